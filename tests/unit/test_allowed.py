"""What a Pod template may ask for; tests/cluster/test_allowed.py walks every field that the API server knows."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from halvard import template_rules as rules
from halvard.allowed import TEMPLATE, parse, refusal
from halvard.shapes import Entries, Fields, Items, Only, Opened, Scalar, Shape

ROOT = Path(__file__).parents[2]
DATA = Path(__file__).parent / "data" / "allowed"
PAGE = ROOT / "docs" / "templates.md"
ASK = ', or ask whoever runs Halvard to add "{}" to the chart\'s value "allow"'
EVERYTHING = frozenset(word.name for word in rules.WORDS if word.alone) | {"capability=SYS_ADMIN", "volume=nfs"}


def spec(text: str) -> dict[str, Any]:
    """A template of a spec in YAML's flow style, without the braces."""
    return {"spec": yaml.safe_load(f"{{{text}}}")}


def trainer(text: str) -> dict[str, Any]:
    """A template of one container."""
    return {"spec": {"containers": [{"name": "trainer", **yaml.safe_load(f"{{{text}}}")}]}}


EXAMPLE = yaml.safe_load((ROOT / "examples/digits/study.yaml").read_text())["spec"]["template"]
NORMAL = {"the example": EXAMPLE, **yaml.safe_load((DATA / "normal.yaml").read_text())}
REFUSED = yaml.safe_load((DATA / "refused.yaml").read_text())
IMAGES = yaml.safe_load((DATA / "images.yaml").read_text())


@pytest.mark.parametrize("name", NORMAL)
def test_what_people_normally_need_is_allowed(name: str) -> None:
    assert refusal(NORMAL[name]) is None


@pytest.mark.parametrize("case", REFUSED, ids=[case["message"].split(": ")[0] for case in REFUSED])
def test_anything_else_is_refused_naming_field_and_value_and_what_would_be_right(case: dict[str, Any]) -> None:
    opening = ASK.format(case["opens"]) if "opens" in case else ""
    assert refusal(case["template"]) == case["message"] + opening


@pytest.mark.parametrize("image", IMAGES["taken"])
def test_an_image_that_the_kubelet_takes_is_allowed(image: str) -> None:
    assert refusal({"spec": {"containers": [{"image": image}]}}) is None


@pytest.mark.parametrize("image", IMAGES["refused"])
def test_an_image_that_cannot_exist_is_refused(image: str) -> None:
    message = refusal({"spec": {"containers": [{"image": image}]}})
    assert message is not None
    assert message.endswith("is not allowed here; [registry[:port]/]name[:tag][@sha256:…], the name in lower case")


@pytest.mark.parametrize(
    "path",
    [
        *("/halvard", "/halvard/", "//halvard", "/./halvard/reports.jsonl", "/a/../halvard", "halvard"),
        *("/halvard-resume", "/var/run/secrets/halvard", "/run/secrets/halvard", "/var/run/secrets/halvard/token"),
    ],
)
def test_nothing_is_mounted_over_what_is_ours(path: str) -> None:
    message = refusal(trainer(f"volumeMounts: [{{name: a, mountPath: {path}}}]"))
    assert message is not None
    assert message.endswith("another path, for /halvard… and /var/run/secrets/halvard are Halvard's own")


def node_affinity(term: str) -> dict[str, Any]:
    required = f"requiredDuringSchedulingIgnoredDuringExecution: {{nodeSelectorTerms: [{term}]}}"
    return spec(f"affinity: {{nodeAffinity: {{{required}}}}}")


@pytest.mark.parametrize(
    "term",
    [
        "{matchFields: [{key: metadata.name, operator: In, values: [gpu-1]}]}",
        "{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [gpu-1]}]}",
        "{matchExpressions: [{key: zone, operator: In}, {key: kubernetes.io/hostname, operator: Exists}]}",
    ],
)
def test_a_node_cannot_be_named_by_affinity_either(term: str) -> None:
    message = refusal(node_affinity(term))
    assert message is not None
    assert "choose nodes by another label (NotIn is allowed)" in message
    assert refusal(node_affinity(term), frozenset({"nodeName"})) is None


@pytest.mark.parametrize("scope", ["namespaces: [theirs]", "namespaceSelector: {}"])
def test_nobody_elses_pods_are_kept_away(scope: str) -> None:
    term = f"[{{topologyKey: zone, labelSelector: {{}}, {scope}}}]"
    message = refusal(
        spec(f"affinity: {{podAntiAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: {term}}}}}")
    )
    assert message is not None
    assert scope.partition(":")[0] in message


OPENED = {
    "hostNetwork": spec("hostNetwork: true"),
    "hostPID": spec("hostPID: true"),
    "hostIPC": spec("hostIPC: true"),
    "hostPorts": trainer("ports: [{containerPort: 80, hostPort: 80, hostIP: 10.0.0.1}]"),
    "hostPath": spec("volumes: [{name: a, hostPath: {path: /data}}]"),
    "privileged": trainer("securityContext: {privileged: true}"),
    "capability=SYS_ADMIN": trainer("securityContext: {capabilities: {add: [SYS_ADMIN]}}"),
    "volume=nfs": spec("volumes: [{name: a, nfs: {server: b, path: /c}}]"),
    "nodeName": spec("nodeName: gpu-1"),
    "serviceAccountName": spec("serviceAccountName: trainer, serviceAccount: trainer"),
    "priorityClassName": spec("priorityClassName: high"),
    "schedulerName": spec("schedulerName: mine"),
    "tolerations": spec("tolerations: [{operator: Exists}]"),
}


def test_every_word_is_tried() -> None:
    assert set(OPENED) == EVERYTHING


@pytest.mark.parametrize("entry", OPENED)
def test_an_entry_of_allow_opens_its_thing(entry: str) -> None:
    assert refusal(OPENED[entry], parse(entry)) is None


@pytest.mark.parametrize("entry", OPENED)
def test_no_other_entry_opens_it(entry: str) -> None:
    message = refusal(OPENED[entry], EVERYTHING - {entry})
    assert message is not None
    assert entry.partition("=")[0] in message


@pytest.mark.parametrize("word", ["nodeName", "serviceAccountName", "priorityClassName", "schedulerName"])
def test_an_entry_with_a_value_opens_that_value_alone(word: str) -> None:
    allow = parse(f"{word}=mine")
    assert refusal(spec(f"{word}: mine"), allow) is None
    assert refusal(spec(f"{word}: theirs"), allow) is not None


def test_what_has_no_word_is_refused_even_where_everything_is_open() -> None:
    shut = [case["template"] for case in REFUSED if "opens" not in case]
    assert [template for template in shut if refusal(template, EVERYTHING) is None] == []


def test_the_first_few_are_named() -> None:
    message = refusal(spec("hostUsers: true, priority: 1, os: {name: windows}, overhead: {}"))
    assert message == (
        "spec.hostUsers: true is not allowed here; leave it out. spec.priority: 1 is not allowed here; leave it out. "
        'spec.os.name: "windows" is not allowed here; "linux". There is more'
    )


def test_a_long_value_is_cut() -> None:
    message = refusal(spec(f"overhead: {'x' * 1000}"))
    assert message is not None
    assert len(message) < 120


def test_allow_is_a_list_of_known_entries() -> None:
    text = "hostNetwork, capability=IPC_LOCK,,serviceAccountName=trainer.v1,nodeName,"
    assert parse(text) == {"hostNetwork", "capability=IPC_LOCK", "serviceAccountName=trainer.v1", "nodeName"}
    assert parse("") == frozenset()


@pytest.mark.parametrize(
    "entry",
    [
        *("hostnetwork", "hostNetwork=true", "capability", "capability=", "capability=ipc_lock", "volume"),
        *("volume=iscsi", "nodeName=", "nodeName=a b", "nodeName=a=b", "=x", "*"),
    ],
)
def test_an_entry_that_opens_nothing_is_an_error_that_names_it_and_what_there_is(entry: str) -> None:
    with pytest.raises(ValueError, match="HALVARD_ALLOW") as error:
        parse(f"hostPID,{entry}")
    assert f'"{entry}"' in str(error.value)
    assert "hostNetwork, hostPID, hostIPC" in str(error.value)


def test_the_page_names_every_entry_and_no_other() -> None:
    section = PAGE.read_text().split("## What can be opened\n", 1)[1].split("\n## ", 1)[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)] == [str(word) for word in rules.WORDS]


def test_entries_are_what_the_charts_schema_takes() -> None:
    assert all(re.fullmatch(r"[a-zA-Z]+(=[A-Za-z0-9._-]+)?", entry) for entry in EVERYTHING)


# --- any template ---------------------------------------------------------------------------------------------------

FINE: dict[Callable[..., str], list[Any]] = {
    rules.not_ours: ["trainer", "data", "my-halvard"],
    rules.not_our_variable: ["LR", "MY_HALVARD_"],
    rules.not_our_path: ["/data", "/mnt/halvard", "data"],
    rules.image: ["", *IMAGES["taken"]],
    rules.not_our_audience: ["", "vault", "https://example.com"],
    rules.label: ["app", "app.kubernetes.io/name", "kueue.x-k8s.io/queue-name"],
    rules.annotation: ["prometheus.io/scrape", "kubectl.kubernetes.io/default-container"],
    rules.node_label: ["nvidia.com/gpu.product", "topology.kubernetes.io/zone"],
    rules.node_requirement: [{"key": "zone"}, {"key": "kubernetes.io/hostname", "operator": "NotIn"}],
    rules.toleration: [{"key": "nvidia.com/gpu"}, {"key": "node.kubernetes.io/not-ready"}],
}
SCALARS = st.text(max_size=5) | st.integers() | st.booleans()


class Template:
    """A template that is allowed, and every object in it whose fields are fixed."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        self.objects: list[dict[str, Any]] = []
        self.document = self._any(TEMPLATE)

    def _any(self, shape: Shape) -> Any:
        match shape:
            case Items(item):
                return [self._any(item) for _ in range(self._draw(st.integers(0, 2)))]
            case Fields():
                return self._object(shape)
            case Entries(instead):
                keys = st.sampled_from(FINE[instead]) if instead else st.text(max_size=5)
                return self._draw(st.dictionaries(keys, SCALARS, max_size=2))
            case Scalar(Only(values)):
                return self._draw(st.sampled_from(values))
            case Scalar(instead):
                return self._draw(st.sampled_from(FINE[instead]) if instead else SCALARS)
            case _:
                raise TypeError(shape)

    def _object(self, shape: Fields) -> dict[str, Any]:
        names = [name for name, field in shape.fields.items() if not isinstance(field, Opened)]
        chosen = self._draw(st.lists(st.sampled_from(names), max_size=3, unique=True))
        made = {name: self._any(shape.fields[name]) for name in chosen}
        if shape.instead:
            made |= self._draw(st.sampled_from(FINE[shape.instead]))
        self.objects.append(made)
        return made


@given(st.data())
def test_whatever_is_made_of_the_tree_is_allowed(data: st.DataObject) -> None:
    assert refusal(data.draw(st.composite(Template)()).document) is None


@given(st.data(), st.text(min_size=1), SCALARS | st.just({}) | st.just([]))
def test_a_field_that_is_not_known_is_refused_at_any_depth(data: st.DataObject, name: str, value: Any) -> None:
    template = data.draw(st.composite(Template)())
    data.draw(st.sampled_from(template.objects))[f"{name} (new)"] = value
    assert f"{name} (new)" in (refusal(template.document, EVERYTHING) or "")
