"""What a Pod template may ask for, held against every field that the API server knows, and shown on a cluster."""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cluster.scripted import Scene, template
from halvard.allowed import TEMPLATE, parse, refusal
from halvard.shapes import Entries, Fields, Items, Opened, Shape
from lab.control_plane import ControlPlane

EXPECTED = Path(__file__).parent / "data" / "allowed-fields.txt"
OFF = (False, "", 0)
"""Values that are as good as no value."""

DANGEROUS = {
    *("hostNetwork", "hostPID", "hostIPC", "hostUsers", "hostPort", "hostIP", "hostPath", "privileged"),
    *("nodeName", "serviceAccountName", "serviceAccount", "priorityClassName", "priority", "schedulerName"),
    *("shareProcessNamespace", "ephemeralContainers", "windowsOptions", "overhead", "preemptionPolicy", "host"),
    *("namespace", "namespaces", "namespaceSelector", "volumeName", "ownerReferences", "finalizers", "user", "role"),
    *("nfs", "iscsi", "fc", "flexVolume", "glusterfs", "rbd", "cephfs", "gitRepo", "fileKeyRef"),
}
NEEDED = {"tolerations[]": {"key": "x"}}
"""What an object cannot do without."""


class Api:
    """The schema of a PodTemplateSpec as the API server publishes it."""

    def __init__(self, control_plane: ControlPlane) -> None:
        published = json.loads(control_plane.kubectl("get", "--raw", "/openapi/v3/api/v1").stdout)
        self._schemas: Mapping[str, Any] = published["components"]["schemas"]
        self.values: dict[str, list[Any]] = {}  # by the path of a field that holds a single value: some of each type
        self.objects: list[str] = []  # the paths of objects with fixed fields
        self._walk(self._schemas["io.k8s.api.core.v1.PodTemplateSpec"], "")

    def _walk(self, schema: Mapping[str, Any], path: str) -> None:
        for part in schema.get("allOf", ()):
            schema = self._schemas[part["$ref"].rpartition("/")[2]] if "$ref" in part else schema
        if "$ref" in schema:
            schema = self._schemas[schema["$ref"].rpartition("/")[2]]
        if "properties" in schema:
            self.objects.append(path)
            for name, inner in schema["properties"].items():
                self._walk(inner, f"{path}.{name}".removeprefix("."))
        elif schema.get("type") == "array":
            self._walk(schema["items"], f"{path}[]")
        elif "additionalProperties" in schema:
            self._walk(schema["additionalProperties"], f"{path}{{}}")
        else:
            self.values[path] = tries(schema)


def tries(schema: Mapping[str, Any]) -> list[Any]:
    """Values of the type; both of a switch, all where they are few."""
    if "enum" in schema:
        return list(schema["enum"])
    every: dict[str, list[Any]] = {
        "boolean": [True, False],
        "integer": [1, 0],
        "number": [1, 0],
        "string": ["x", ""],
        "object": [{"x": 1}],
    }
    types = [schema["type"]] if "type" in schema else [one["type"] for one in schema["oneOf"]]
    return [value for kind in types for value in every[kind]]


def document(path: str, value: Any) -> Any:
    """The template in which only this field is set, and what it cannot do without."""
    head, _, rest = path.partition(".")
    inner: Any = document(rest, value) if rest else value
    if isinstance(inner, dict):
        inner = {**NEEDED.get(head, {}), **inner}
    name = head.rstrip("[]{}")
    return {name: [inner] if head.endswith("[]") else {"x": inner} if head.endswith("{}") else inner}


@pytest.fixture(scope="module")
def api(control_plane: ControlPlane) -> Api:
    return Api(control_plane)


def allowed(api: Api) -> Iterator[tuple[str, list[Any]]]:
    """Every field that may be set, and the values it may have where not all were taken."""
    for path, values in api.values.items():
        taken = [value for value in values if refusal(document(path, value)) is None]
        if taken:
            yield path, [] if taken == values else taken


def test_every_field_that_the_server_knows_is_refused_or_on_file_as_allowed(api: Api) -> None:
    found = [path + (f" = {json.dumps(values)[1:-1]}" if values else "") for path, values in allowed(api)]
    expected = EXPECTED.read_text().splitlines()
    assert [line for line in found if line not in expected] == []
    assert [line for line in expected if line not in found] == []


def test_nothing_dangerous_can_be_reached_by_any_path(api: Api) -> None:
    assert DANGEROUS - {name for path in (*api.values, *api.objects) for name in names(path)} == set()
    reached = {
        path: values
        for path, values in allowed(api)
        if DANGEROUS & names(path) and (not values or set(values) - set(OFF))
    }
    assert reached == {}


def names(path: str) -> set[str]:
    """The fields that a path goes through."""
    return set(re.findall(r"\w+", path))


def test_a_field_that_kubernetes_invents_is_refused_wherever_it_is(api: Api) -> None:
    paths = [f"{path}.inventedLater".removeprefix(".") for path in api.objects]
    values: list[Any] = [True, 1, "x", {}, []]
    assert len(paths) > 100
    taken = [path for path in paths for value in values if refusal(document(path, value)) is None]
    assert taken == []


def test_every_field_of_the_tree_is_one_that_the_server_knows(api: Api) -> None:
    assert [path for path in paths_of(TEMPLATE) if path not in api.values] == []


def paths_of(shape: Shape, path: str = "") -> Iterator[str]:
    """The paths of every single value in the tree."""
    match shape:
        case Fields(fields):
            for name, inner in fields.items():
                yield from paths_of(inner, f"{path}.{name}".removeprefix("."))
        case Items(item):
            yield from paths_of(item, f"{path}[]")
        case Opened(_, inner):
            yield from paths_of(inner, path)
        case Entries():
            yield f"{path}{{}}"
        case _:
            yield path


# --- on a cluster -----------------------------------------------------------------------------------------------------


def with_trainer(**fields: Any) -> dict[str, Any]:
    """A template with these fields in its trainer."""
    asked = template()
    asked["spec"]["containers"][0].update(fields)
    return asked


HOST_PATH = {"volumes": [{"name": "root", "hostPath": {"path": "/"}}]}
ASKED = {
    "hostNetwork": (template(hostNetwork=True), "spec.hostNetwork: true"),
    "hostPath": (template(**HOST_PATH), 'spec.volumes[0].hostPath: {"path": "/"}'),
    "privileged": (
        with_trainer(securityContext={"privileged": True}),
        "spec.containers[0].securityContext.privileged: true",
    ),
    "serviceAccountName=admin": (template(serviceAccountName="admin"), 'spec.serviceAccountName: "admin"'),
    "nodeName=gpu-1": (template(nodeName="gpu-1"), 'spec.nodeName: "gpu-1"'),
}


@pytest.mark.parametrize("entry", ASKED)
async def test_a_template_that_asks_for_too_much_gets_no_pod_until_it_is_mended(scene: Scene, entry: str) -> None:
    asked, field = ASKED[entry]
    async with scene.operator():
        await scene.apply(parallelism=2, template=asked)
        condition = await scene.condition("Degraded", "True", "TemplateNotAllowed")
        pods = await scene.pods()
        metrics = await scene.metrics()
        await scene.change(template=template())
        await scene.pod(0)
        await scene.pod(1)
        await scene.condition("Degraded", "False", "Recovered")
        trials = await scene.trials()
    assert f"{field} is not allowed here; " in condition["message"]
    assert f'ask whoever runs Halvard to add "{entry}"' in condition["message"]
    assert pods == []
    assert 'halvard_pod_create_errors_total{reason="TemplateNotAllowed"}' in metrics
    assert [trial["status"].get("faults", 0) for trial in trials] == [0, 0]


@pytest.mark.parametrize("entry", ASKED)
async def test_what_whoever_runs_the_operator_has_opened_gets_its_pod(scene: Scene, entry: str) -> None:
    asked, _ = ASKED[entry]
    await scene.kubectl("create", "serviceaccount", "admin")
    scene.settings = dataclasses.replace(scene.settings, allow=parse(entry))
    async with scene.operator():
        await scene.apply(template=asked)
        spec = (await scene.pod(0))["spec"]
    got = {
        "hostNetwork": spec.get("hostNetwork"),
        "hostPath": any("hostPath" in volume for volume in spec["volumes"]),
        "privileged": spec["containers"][0].get("securityContext", {}).get("privileged"),
        "serviceAccountName=admin": spec["serviceAccountName"] == "admin",
        "nodeName=gpu-1": spec.get("nodeName") == "gpu-1",
    }
    assert [name for name, is_there in got.items() if is_there] == [entry]


async def test_a_running_trial_keeps_its_pod_when_the_template_asks_for_too_much(scene: Scene) -> None:
    async with scene.operator():
        await scene.apply()
        pod = await scene.pod(0)
        await scene.runs(pod)
        await scene.trial_in(0, "Running")
        await scene.change(template=template(hostNetwork=True), parallelism=2)
        await scene.condition("Degraded", "True", "TemplateNotAllowed")
        await scene.leg(0, 0.5)
        pods = await scene.pods()
        trial = await scene.trial(0)
    assert [rung["value"] for rung in trial["status"]["rungs"]] == [0.5]
    assert [one["metadata"]["uid"] for one in pods] == [pod["metadata"]["uid"]]
