import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from halvard.allowed import refusal
from halvard.observe import observe
from halvard.plan import StartLeg
from halvard.pods import COLLECTOR, TRAINER, PodSettings, build, gpus, template_hash
from halvard.study import Study
from halvard.trial import SavedCheckpoint, Trial
from halvard_trainer.wrap import wrap

DATA = Path(__file__).parent / "data" / "pods"
SETTINGS = PodSettings(collector_image="halvard-trainer:1", collector_url="https://halvard:8443", collector_ca="PEM")


def case(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DATA / f"{name}.yaml").read_text())
    return loaded


def pod_of(given: dict[str, Any]) -> dict[str, Any]:
    trial = Trial.model_validate(given["trial"])
    resume = SavedCheckpoint.model_validate(given["resume"]) if "resume" in given else None
    leg = StartLeg(trial, resume)
    return build(Study.model_validate(given["study"]), trial, leg, SETTINGS, given.get("previousNode", ""))


def container(pod: dict[str, Any], name: str) -> dict[str, Any]:
    spec = pod["spec"]
    found: dict[str, Any] = next(c for c in (*spec["containers"], *spec["initContainers"]) if c["name"] == name)
    return found


def variables(pod: dict[str, Any], name: str) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container(pod, name)["env"] if "value" in variable}


@pytest.mark.parametrize("name", ["least", "most"])
def test_the_pod_of_a_template_is_the_one_on_file(name: str) -> None:
    given = case(name)
    assert given["pod"] == pod_of(given)


def test_the_template_itself_is_left_alone() -> None:
    given = case("most")
    before = copy.deepcopy(given)
    pod_of(given)
    assert before == given


def test_without_a_claim_nothing_is_resumed() -> None:
    given = case("least")
    given["resume"] = {"name": "step-1", "step": 1, "attempt": 1}
    environment = variables(pod_of(given), TRAINER)
    assert (environment["HALVARD_START"], environment["HALVARD_RESUME_FROM"]) == ("0", "")


def test_a_checkpoint_of_an_older_operator_is_in_a_directory_without_a_pod() -> None:
    given = case("most")
    del given["resume"]["pod"]
    assert variables(pod_of(given), TRAINER)["HALVARD_RESUME_FROM"] == "/halvard-resume/attempt-2/step-3"


def test_trainer_and_collector_are_told_the_same_paths_and_budget() -> None:
    pod = pod_of(case("most"))
    trainer, collector = variables(pod, TRAINER), variables(pod, COLLECTOR)
    same = ["HALVARD_REPORTS", "HALVARD_VERDICT", "HALVARD_BUDGET", "HALVARD_START"]
    assert {name: trainer[name] for name in same} == {name: collector[name] for name in same}


def test_only_the_collector_sees_the_token() -> None:
    pod = pod_of(case("most"))
    seen_by = {
        c["name"] for c in (*pod["spec"]["containers"], *pod["spec"]["initContainers"]) if "halvard-token" in str(c)
    }
    assert {COLLECTOR} == seen_by


def test_kubernetes_expands_nothing_inside_a_parameter() -> None:
    given = case("least")
    given["trial"]["spec"]["parameters"] = {"lr": "$(HOME)$$"}
    assert variables(pod_of(given), TRAINER)["HALVARD_PARAM_LR"] == "$$(HOME)$$$$"


def test_stdout_is_collected_by_wrapping_the_command() -> None:
    given = case("least")
    given["study"]["spec"]["collector"] = {"stdout": {"pattern": r"loss=(?P<val_loss>\S+)$"}}
    given["study"]["spec"]["template"]["spec"]["containers"][0]["args"] = ["--epochs=3"]
    pod = pod_of(given)
    trainer, collector = container(pod, TRAINER), variables(pod, COLLECTOR)
    assert wrap(["python", "train.py"], ["--epochs=3"], "/halvard/stdout", "/halvard") == trainer["command"]
    assert "args" not in trainer
    assert (
        collector["HALVARD_STDOUT"],
        collector["HALVARD_STDOUT_PATTERN"],
    ) == ("/halvard/stdout", r"loss=(?P<val_loss>\S+)$$")


def terms_of(required: list[dict[str, Any]] | None, *avoid: str) -> list[dict[str, Any]]:
    """What a Pod requires of its node that avoids these, and whose template requires that."""
    given = case("least")
    if required is not None:
        to_node = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": required}}
        given["study"]["spec"]["template"]["spec"]["affinity"] = {"podAffinity": {}, "nodeAffinity": to_node}
    trial = Trial.model_validate(given["trial"])
    pod = build(Study.model_validate(given["study"]), trial, StartLeg(trial, None, avoid), SETTINGS, "node-0")
    affinity = pod["spec"]["affinity"]
    assert set(affinity) == ({"nodeAffinity"} if required is None else {"podAffinity", "nodeAffinity"})
    assert "preferredDuringSchedulingIgnoredDuringExecution" in affinity["nodeAffinity"]
    terms: list[dict[str, Any]] = affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    return terms


def other_than(node: str) -> dict[str, Any]:
    return {"key": "metadata.name", "operator": "NotIn", "values": [node]}


def test_nodes_are_avoided_one_by_one_as_kubernetes_wants_it() -> None:
    assert terms_of(None, "a", "b") == [{"matchFields": [other_than("a"), other_than("b")]}]


def test_nodes_are_avoided_by_each_term_of_the_users_affinity_as_any_of_them_will_do() -> None:
    by_zone = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["z"]}]}
    by_name = {"matchFields": [other_than("c")]}
    assert terms_of([by_zone, by_name], "a") == [
        {**by_zone, "matchFields": [other_than("a")]},
        {"matchFields": [other_than("c"), other_than("a")]},
    ]


def test_a_term_that_matches_no_node_goes_on_doing_so() -> None:
    assert terms_of([{}, {"matchExpressions": []}], "a") == [{}, {"matchExpressions": []}]


def test_a_pod_carries_which_nodes_it_avoids() -> None:
    given = case("least")
    trial = Trial.model_validate(given["trial"])
    pod = build(Study.model_validate(given["study"]), trial, StartLeg(trial, None, ("a", "b.c")), SETTINGS)
    assert observe(pod).avoids == ("a", "b.c")
    assert observe(pod_of(given)).avoids == ()


def test_empty_fields_of_a_template_count_as_absent() -> None:
    given = case("least")
    spec = given["study"]["spec"]["template"]["spec"]
    spec |= dict.fromkeys(["initContainers", "volumes", "affinity", "automountServiceAccountToken"])
    spec["containers"][0] |= {"env": None, "volumeMounts": None, "terminationMessagePolicy": None}
    pod = pod_of({**given, "previousNode": "node-1"})
    assert [c["name"] for c in pod["spec"]["initContainers"]] == [COLLECTOR]
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert container(pod, TRAINER)["terminationMessagePolicy"] == "FallbackToLogsOnError"


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, 0),
        ({"limits": {"cpu": "4", "memory": "8Gi"}}, 0),
        ({"limits": {"nvidia.com/gpu": 2}}, 2),
        ({"limits": {"nvidia.com/gpu": "2"}, "requests": {"nvidia.com/gpu": "2"}}, 2),
        ({"requests": {"amd.com/gpu": 1}}, 1),
        ({"limits": {"nvidia.com/gpu.shared": 1}}, 1),
        ({"limits": {"nvidia.com/mig-1g.5gb": 3}}, 3),
        ({"limits": {"gpu.intel.com/i915": 1}}, 1),
        ({"limits": {"gpu.intel.com/i915_monitoring": 1, "example.com/gpu-memory": 4000}}, 0),
        ({"limits": {"nvidia.com/gpu": "many"}}, 0),
    ],
)
def test_gpus_are_counted_whatever_their_vendor(resources: dict[str, Any], expected: float) -> None:
    assert expected == gpus({"spec": {"containers": [{"name": TRAINER, "resources": resources}]}})


def test_gpus_are_summed_over_containers() -> None:
    one = {"resources": {"limits": {"nvidia.com/gpu": 1}}}
    assert gpus({"spec": {"containers": [one, {}, one]}}) == 2


def test_the_hash_of_a_template_depends_on_what_it_says_not_on_the_order() -> None:
    assert template_hash({"a": 1, "b": [1, 2]}) == template_hash({"b": [1, 2], "a": 1})
    assert template_hash({"a": 1}) != template_hash({"a": 2})


def test_python_does_not_hold_back_lines_that_are_to_be_collected_unless_the_user_says_so() -> None:
    given = case("least")
    trainer = given["study"]["spec"]["template"]["spec"]["containers"][0]
    trainer["command"] = ["python3", "train.py"]
    metric = given["study"]["spec"]["objective"]["metric"]
    given["study"]["spec"]["collector"] = {"stdout": {"pattern": f"(?P<{metric}>.+)"}}
    assert variables(pod_of(given), TRAINER)["PYTHONUNBUFFERED"] == "1"
    trainer["env"] = [{"name": "PYTHONUNBUFFERED", "value": ""}]
    assert variables(pod_of(given), TRAINER)["PYTHONUNBUFFERED"] == ""


def test_a_template_cannot_use_a_name_that_is_added() -> None:
    given = case("most")
    template, pod = given["study"]["spec"]["template"]["spec"], pod_of(given)["spec"]
    volumes = names(pod["volumes"]) - names(template["volumes"])
    containers = names(pod["initContainers"]) - names(template["initContainers"])
    mounts = [mount for c in (*pod["containers"], *pod["initContainers"]) for mount in c.get("volumeMounts", ())]
    paths = {mount["mountPath"] for mount in mounts if mount["name"] in volumes}
    variables = {v["name"] for c in (*pod["containers"], *pod["initContainers"]) for v in c.get("env", ())}
    tries: list[dict[str, Any]] = [
        *({"volumes": [{"name": name}]} for name in volumes),
        *({"initContainers": [{"name": name}]} for name in containers),
        *({"containers": [{"volumeMounts": [{"name": name}]}]} for name in volumes),
        *({"containers": [{"volumeMounts": [{"mountPath": path}]}]} for path in paths),
        *({"containers": [{"env": [{"name": name}]}]} for name in variables if name.startswith("HALVARD_")),
    ]
    assert len(tries) > 20
    assert [spec for spec in tries if refusal({"spec": spec}) is None] == []


def names(items: list[dict[str, Any]]) -> set[str]:
    return {item["name"] for item in items}
