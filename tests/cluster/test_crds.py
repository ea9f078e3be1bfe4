"""The custom resources in a real API server: what it refuses and with which words, what it shows, what may change."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from halvard.invalid import InvalidStudy
from halvard.manifest import load
from halvard.study import Study
from halvard.trial import Trial
from lab.control_plane import ControlPlane, ControlPlaneError

ROOT = Path(__file__).parents[2]
MALFORMED = sorted((ROOT / "tests" / "cluster" / "malformed").glob("*.yaml"))
WELL_FORMED = [
    *sorted((ROOT / "tests" / "cluster" / "wellformed").glob("*.yaml")),
    *sorted((ROOT / "examples").glob("*/study.yaml")),
]

Apply = Callable[..., dict[str, Any]]


def expected(text: str) -> list[str]:
    return [line.removeprefix("# expect: ") for line in text.splitlines() if line.startswith("# expect: ")]


@pytest.mark.parametrize("path", MALFORMED, ids=lambda path: path.stem)
def test_a_malformed_study_is_refused_in_the_same_words_by_the_api_server_and_by_halvard(
    path: Path, control_plane: ControlPlane
) -> None:
    refused = control_plane.kubectl("create", "-f", str(path), check=False)
    with pytest.raises(InvalidStudy) as invalid:
        Study.from_manifest(load(path.read_text()))

    words = expected(path.read_text())
    assert words
    assert refused.returncode == 1
    assert [word for word in words if word not in refused.stderr] == [], refused.stderr
    assert [word for word in words if word not in str(invalid.value)] == [], invalid.value


@pytest.mark.parametrize("path", WELL_FORMED, ids=lambda path: path.stem)
def test_a_well_formed_study_is_taken_and_means_the_same_in_the_cluster(
    path: Path, control_plane: ControlPlane, namespace: str
) -> None:
    control_plane.kubectl("create", "-f", str(path), "-n", namespace)

    written = Study.from_manifest(load(path.read_text()))
    stored = Study.from_manifest(
        json.loads(control_plane.kubectl("get", "hst", "-n", namespace, "-ojson").stdout)["items"][0]
    )
    assert written.spec == stored.spec


@pytest.fixture
def apply(control_plane: ControlPlane, namespace: str) -> Apply:
    def apply(kind: str = "Study", *, subresource: str = "", **manifest: Any) -> dict[str, Any]:
        """Applies a Study (or Trial) named `one` and returns what is stored; with a subresource, patches that."""
        document = {"apiVersion": "halvard.dev/v1alpha1", "kind": kind, "metadata": {"name": "one"}, **manifest}
        where = ["-n", namespace, "-ojson"]
        if subresource:
            patch = ["--subresource", subresource, "--type=merge", "-p", json.dumps(manifest)]
            done = control_plane.kubectl("patch", kind.lower(), "one", *patch, *where)
        else:
            done = control_plane.kubectl("apply", "-f", "-", *where, input=json.dumps(document))
        stored: dict[str, Any] = json.loads(done.stdout)
        return stored

    return apply


def spec(**changes: Any) -> dict[str, Any]:
    return {
        "objective": {"metric": "loss", "goal": "minimize"},
        "parameters": [{"name": "lr", "choice": [0.1, 1, "auto", True]}],
        "scheduler": {"asha": {"maxBudget": 9}},
        "limits": {"trials": 3},
        "template": {"spec": {"containers": [{"name": "trainer", "image": "example.com/i"}]}},
        **changes,
    }


STARTED = {"state": "Running", "startTime": "2026-01-01T00:00:00Z"}

SEARCH = {
    "objective": {"metric": "loss", "goal": "maximize"},
    "parameters": [{"name": "lr", "choice": [0.2, 1, "auto", True]}],
    "sampler": {"auto": None, "grid": {}},
    "scheduler": {"asha": {"maxBudget": 27}},
    "initialPoints": [{"lr": 0.2}, {"lr": "auto"}],
    "seed": 1,
    "checkpoint": {"persistentVolumeClaim": {"claimName": "c"}},
    "collector": {"stdout": {"pattern": "(?P<loss>.+)"}},
}


@pytest.mark.parametrize("field", SEARCH)
def test_the_search_may_change_until_the_study_has_started(field: str, apply: Apply) -> None:
    template = {"spec": {"containers": [{"name": "trainer", "command": ["train"]}]}}
    apply(spec=spec(template=template))
    apply(spec=spec(template=template, **{field: SEARCH[field]}))
    apply(subresource="status", status=STARTED)

    words = rf"spec\.{field}: .*{field} cannot be changed once the study has started"
    with pytest.raises(ControlPlaneError, match=words):
        apply(spec=spec(template=template))


def test_parallelism_limits_suspend_and_template_may_change_at_any_time(apply: Apply) -> None:
    apply(spec=spec())
    apply(subresource="status", status=STARTED)
    template = {"spec": {"containers": [{"name": "trainer", "image": "example.com/j"}]}}

    stored = apply(spec=spec(parallelism=7, limits={"duration": "2h"}, suspend=True, template=template))

    assert stored["spec"]["parallelism"] == 7
    assert stored["spec"]["limits"] == {"duration": "2h", "failedTrials": 20, "retries": 10}
    assert stored["spec"]["suspend"] is True
    assert stored["spec"]["template"] == template


def test_the_stored_study_shows_the_defaults_it_runs_with(apply: Apply) -> None:
    stored = apply(spec=spec())["spec"]

    assert stored["sampler"] == {"auto": {}}
    ladder = {"minBudget": 1, "maxBudget": 9, "reductionFactor": 3}
    assert stored["scheduler"] == {"asha": {**ladder, "brackets": 1, "grace": 1, "control": 0}}
    assert stored["limits"] == {"trials": 3, "failedTrials": 20, "retries": 10}
    assert (stored["parallelism"], stored["seed"], stored["suspend"]) == (1, 0, False)


def test_kubectl_waits_for_a_study_to_be_complete(control_plane: ControlPlane, namespace: str, apply: Apply) -> None:
    apply(spec=spec())
    condition = {
        "type": "Complete",
        "status": "True",
        "reason": "TrialsDone",
        "message": "all",
        "observedGeneration": 1,
    }
    apply(subresource="status", status={"conditions": [{**condition, "lastTransitionTime": "2026-01-01T00:00:00Z"}]})

    done = control_plane.kubectl("wait", "--for=condition=Complete", "study/one", "-n", namespace, "--timeout=30s")

    assert done.stdout == "study.halvard.dev/one condition met\n"


def test_kubectl_explain_is_a_page_about_asha(control_plane: ControlPlane) -> None:
    page = " ".join(control_plane.kubectl("explain", "study.spec.scheduler.asha").stdout.split())

    assert "Asynchronous successive halving (Li et al., MLSys 2020)" in page
    assert "maxBudget <integer> -required- The budget of the highest rung. A trial that reaches it is complete." in page
    assert "minBudget <integer> The budget of the lowest rung" in page
    assert "reductionFactor <integer> Each rung's budget is this many times the one below" in page


def test_a_listing_tells_where_studies_and_trials_stand(
    control_plane: ControlPlane, namespace: str, apply: Apply
) -> None:
    apply(spec=spec())
    best = {"trial": "one-0002", "value": 0.25, "budget": 9, "parameters": {"lr": "auto"}}
    counts = {"total": 9, "running": 2, "complete": 3, "failed": 1}
    held_up = {"type": "Degraded", "status": "True", "reason": "ErrImagePull", "message": "no such image"}
    status = {**STARTED, "trials": counts, "best": best, "highestRung": 9, "gpuHours": {"total": 1.5}}
    status["conditions"] = [{**held_up, "lastTransitionTime": "2026-01-01T00:00:00Z"}]
    apply(subresource="status", status=status)
    apply("Trial", spec={"index": 2, "budget": 9, "parameters": {"lr": "auto"}})
    results = [
        {"budget": budget, "value": value, "step": budget, "seconds": 1, "at": "2026-01-01T00:00:00Z"}
        for budget, value in ((1, 0.5), (3, 0.25))
    ]
    checkpoint = {"name": "step-3", "step": 3, "attempt": 1}
    apply(
        "Trial",
        subresource="status",
        status={"state": "Running", "step": 4, "rungs": results, "checkpoint": checkpoint},
    )

    listing = control_plane.kubectl("get", "halvard", "-n", namespace).stdout.splitlines()

    columns = [line.split()[:-1] for line in listing if line]
    assert columns == [
        ["NAME", "STATE", "DEGRADED", "DONE", "RUNNING", "FAILED", "BEST", "RUNG", "GPU-HOURS"],
        ["study.halvard.dev/one", "Running", "ErrImagePull", "3", "2", "1", "0.25", "9", "1.5"],
        ["NAME", "STATE", "BUDGET", "RUNG", "VALUE", "ATTEMPT", "STEP", "CHECKPOINT"],
        ["trial.halvard.dev/one", "Running", "9", "3", "0.25", "1", "4", "step-3"],
    ]


@pytest.mark.parametrize("name", ["studies", "study", "hst", "halvard", "trials", "trial", "htr"])
def test_the_resources_answer_to_their_names(name: str, control_plane: ControlPlane, namespace: str) -> None:
    assert control_plane.kubectl("get", name, "-n", namespace).stderr.startswith("No resources found")


def test_a_new_trial_is_pending_without_a_write_of_its_status(apply: Apply) -> None:
    stored = apply("Trial", spec={"index": 0, "budget": 1, "parameters": {}})

    assert stored["status"] == {"state": "Pending", "attempt": 1}
    assert Trial.from_manifest(stored).status.attempt == 1


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"index": 1}, "index cannot be changed"),
        ({"bracket": 1}, "bracket cannot be changed"),
        ({"budget": 1}, "budget cannot be lowered"),
    ],
)
def test_a_decision_about_a_trial_is_not_taken_back(changed: dict[str, int], words: str, apply: Apply) -> None:
    made = {"index": 0, "budget": 3, "parameters": {"lr": 0.1}}
    apply("Trial", spec=made)

    with pytest.raises(ControlPlaneError, match=words):
        apply("Trial", spec={**made, **changed})


def test_the_largest_search_space_is_within_the_api_servers_budget_for_rules(apply: Apply) -> None:
    names = [f"x{place:02}".ljust(63, "x") for place in range(64)]
    conditions = {name: [0, 1] for name in names[:16]}
    parameters = [
        {"name": name, "choice": list(range(256)), **({"when": conditions} if place >= 16 else {})}
        for place, name in enumerate(names)
    ]
    containers = [{"name": f"helper-{place}", "command": ["x"]} for place in range(31)]
    template = {"spec": {"containers": [*containers, {"name": "trainer", "command": ["y"]}]}}
    largest = spec(
        parameters=parameters, template=template, collector={"stdout": {"pattern": "(?P<loss>.)".ljust(1024, "x")}}
    )

    apply(spec=largest)
    apply(subresource="status", status=STARTED)
    stored = apply(spec={**largest, "parallelism": 2})

    assert stored["spec"]["parallelism"] == 2
    assert len(Study.from_manifest(stored).spec.parameters) == 64
