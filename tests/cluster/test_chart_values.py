"""The chart's values: each is described, changes something that a cluster takes, and refuses nonsense."""

import json
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.chart import ALL_ON, FOREIGN, LEAVES, NAMESPACE, ROOT, SCHEMA, Manifest, mistakes, one, render
from halvard import __version__
from halvard.template_rules import WORDS
from lab.control_plane import ControlPlane
from lab.helm import CHART, Helm, HelmError

LABELS = {"team": "a"}
DIGEST = f"sha256:{'0' * 64}"
# Something else than the default, for each value.
OTHER: dict[str, Any] = {
    "replicas": 3,
    "namespaces": ["team-a", "team-b"],
    "image.repository": "localhost:5000/operator",
    "image.tag": "edge",
    "image.digest": DIGEST,
    "image.pullPolicy": "Always",
    "collector.image.repository": "localhost:5000/collector",
    "collector.image.tag": "edge",
    "collector.image.digest": DIGEST,
    "imagePullSecrets": [{"name": "registry"}],
    "allow": ["hostIPC", "capability=SYS_PTRACE", "priorityClassName=low"],
    "crds.enabled": False,
    "crds.keep": False,
    "rbac.create": False,
    "rbac.aggregate": False,
    "serviceAccount.create": False,
    "serviceAccount.name": "other",
    "serviceAccount.annotations": {"example.com/role": "arn:1/operator"},
    "tls.existingSecret": "certificate",
    "tls.certManager.enabled": True,
    "tls.certManager.issuerRef": {"name": "company", "kind": "ClusterIssuer"},
    "metrics.serviceMonitor.enabled": True,
    "metrics.serviceMonitor.interval": "10s",
    "metrics.serviceMonitor.labels": LABELS,
    "metrics.prometheusRule.enabled": True,
    "metrics.prometheusRule.runbookUrl": "https://git.example.com/docs/operate.md",
    "metrics.prometheusRule.labels": LABELS,
    "metrics.dashboard.enabled": True,
    "metrics.dashboard.labels": LABELS,
    "metrics.dashboard.annotations": {"grafana_folder": "Machine learning"},
    "networkPolicy.enabled": True,
    "networkPolicy.metricsFrom": [{"namespaceSelector": {"matchLabels": LABELS}}, {"ipBlock": {"cidr": "10.0.0.0/8"}}],
    "networkPolicy.apiServerPorts": [16443],
    "podDisruptionBudget.enabled": True,
    "priorityClass.create": True,
    "priorityClass.name": "system-cluster-critical",
    "priorityClass.value": 1000000000,
    "resources.requests": {"cpu": 1, "memory": "0.5Gi"},
    "resources.limits": {"memory": "1Gi", "nvidia.com/gpu": "1"},
    "nodeSelector": LABELS,
    "tolerations": [{"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]
            }
        }
    },
    "topologySpreadConstraints": [
        {"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}
    ],
    "podLabels": LABELS,
    "podAnnotations": {"example.com/inject": "false"},
}
# What else has to be set for the value to matter.
BESIDE: dict[str, Any] = {
    "serviceAccount.create": {"serviceAccount.name": "other"},
    "tls.certManager.issuerRef": {"tls.certManager.enabled": True},
    "metrics.serviceMonitor": {"metrics.serviceMonitor.enabled": True},
    "metrics.prometheusRule": {"metrics.prometheusRule.enabled": True},
    "metrics.dashboard": {"metrics.dashboard.enabled": True},
    "networkPolicy": {"networkPolicy.enabled": True},
    "priorityClass.value": {"priorityClass.create": True},
}
NONSENSE: dict[str, list[Any]] = {
    "replicas": [0, -1, 1.5, "2", 100],
    "namespaces": ["default", ["Team A"], ["a", "a"], ["a,b"], ["*"], [""], ["a" * 64]],
    "image.repository": ["", "Registry/Operator", "operator:1 ", "a b"],
    "image.tag": [1, "a b", "-", "a" * 129],
    "image.digest": ["latest", "sha256:12", "md5:00"],
    "image.pullPolicy": ["Sometimes", ""],
    "collector.image.repository": ["", "collector image"],
    "collector.image.tag": [1.0, "a/b"],
    "collector.image.digest": ["0" * 64],
    "imagePullSecrets": ["registry", ["registry"], [{"name": ""}], [{"secret": "registry"}]],
    "allow": ["hostIPC", ["everything"], ["hostNetwork", "hostNetwork"], ["hostIPC,hostPID"], ["capability"]],
    "crds.enabled": ["yes"],
    "crds.keep": [1],
    "rbac.create": ["true"],
    "rbac.aggregate": [None],
    "serviceAccount.create": ["default"],
    "serviceAccount.name": ["Operator", "a_b"],
    "serviceAccount.annotations": [{"a": 1}, {"a b": "c"}],
    "tls.existingSecret": ["My Secret", True],
    "tls.certManager.enabled": ["auto"],
    "tls.certManager.issuerRef": ["company", {"kind": "Issuer"}, {"name": "a", "colour": "b"}],
    "metrics.serviceMonitor.enabled": ["on"],
    "metrics.serviceMonitor.interval": [30, "30", "often", "0s"],
    "metrics.serviceMonitor.labels": [["a"], {"a": "b c"}, {"a": True}],
    "metrics.prometheusRule.enabled": [0],
    "metrics.prometheusRule.runbookUrl": ["docs/operate.md", "https://a b", "https://a/operate.md#b", 1],
    "metrics.prometheusRule.labels": [{"/": "a"}],
    "metrics.dashboard.enabled": ["1"],
    "metrics.dashboard.labels": [{"grafana_dashboard": 1}],
    "metrics.dashboard.annotations": [{"folder": 1}],
    "networkPolicy.enabled": ["strict"],
    "networkPolicy.metricsFrom": [[{}], [{"pods": {}}], "monitoring"],
    "networkPolicy.apiServerPorts": [[], [0], [65536], ["https"], [443, 443]],
    "podDisruptionBudget.enabled": [2],
    "priorityClass.create": ["high"],
    "priorityClass.name": ["High"],
    "priorityClass.value": ["high", 2000000000],
    "resources.requests": [{"memory": "much"}, {"cpu": 0}, ["cpu"]],
    "resources.limits": [{"memory": "512 MB"}, {"cpu": -1}],
    "nodeSelector": [["a"], {"gpu": False}],
    "tolerations": [{"key": "a"}, [{}], ["a"]],
    "affinity": [[], {"nodeAfinity": {}}],
    "topologySpreadConstraints": [{}, ["zone"]],
    "podLabels": [{"a": None, "b": 1}, {"a b": "c"}],
    "podAnnotations": [{"a": True}],
}


@pytest.fixture(scope="module")
def accepting(control_plane: ControlPlane) -> ControlPlane:
    """An API server with what a dry run cannot have made before."""
    for namespace in (NAMESPACE, "team-a", "team-b"):
        control_plane.kubectl("create", "namespace", namespace)
    restricted = ("pod-security.kubernetes.io/enforce=restricted", "pod-security.kubernetes.io/warn=restricted")
    control_plane.kubectl("label", "namespace", NAMESPACE, *restricted)
    control_plane.kubectl("create", "--save-config", "serviceaccount", "halvard-check", "-n", NAMESPACE)
    return control_plane


def beside(name: str) -> Manifest:
    needed = [values for prefix, values in BESIDE.items() if name.startswith(prefix)]
    return {other: value for values in needed for other, value in values.items() if other != name}


def without_key(item: Manifest) -> Manifest:
    """A rendered object without what differs each time: the authority made for it."""
    return {**item, "data": None} if item["kind"] == "Secret" else item


def accepted(control_plane: ControlPlane, objects: list[Manifest]) -> str:
    """What is said against these objects, every field checked: by their projects' types, else by a dry run of them."""
    foreign = [item for item in objects if item["apiVersion"] in FOREIGN]
    said = mistakes(foreign) if foreign else ""
    documents = "\n---\n".join(json.dumps(item) for item in objects if item not in foreign)
    dry_run = ("apply", "--dry-run=server", "--validate=strict", "-f", "-")
    return said + (control_plane.kubectl(*dry_run, input=documents).stderr if documents else "")


def test_there_is_another_setting_and_nonsense_for_every_value() -> None:
    assert (set(OTHER), set(NONSENSE)) == (set(LEAVES), set(LEAVES))


def test_the_defaults_are_accepted_by_the_api_server(accepting: ControlPlane) -> None:
    assert accepted(accepting, render()) == ""


@pytest.mark.parametrize("name", LEAVES)
def test_every_value_changes_objects_that_the_api_server_accepts(name: str, accepting: ControlPlane) -> None:
    before = [without_key(item) for item in render(beside(name))]
    after = render({**beside(name), name: OTHER[name]})

    changed = [item for item in after if without_key(item) not in before]
    assert changed or len(after) < len(before)
    assert not changed or accepted(accepting, changed) == ""


@pytest.mark.parametrize("kind", ["ServiceMonitor", "PrometheusRule", "Certificate", "Issuer"])
def test_a_field_that_a_kind_of_another_project_lacks_is_named(kind: str) -> None:
    item = next(item for item in render({**ALL_ON, "tls.certManager.enabled": True}) if item["kind"] == kind)
    item["spec"]["colour"] = "red"
    assert mistakes([item]) == f'{kind} {item["metadata"]["name"]}: unknown field "spec.colour"\n'


def test_a_misspelt_field_within_a_service_monitor_is_named_with_its_place() -> None:
    monitor = one(render(ALL_ON), "ServiceMonitor")
    [endpoint] = monitor["spec"]["endpoints"]
    endpoint["intervall"] = endpoint.pop("interval")
    assert mistakes([monitor]) == 'ServiceMonitor halvard: unknown field "spec.endpoints[0].intervall"\n'


@pytest.mark.parametrize("name", LEAVES)
def test_nonsense_is_refused_and_the_value_named(name: str) -> None:
    path = name.replace(".", "/")  # or, where it was taken away (null), it is missed
    for value in NONSENSE[name]:
        with pytest.raises(HelmError, match=f"'/{path}|missing property '{Path(path).name}'"):
            render({name: value})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"replica": 2}, "additional properties 'replica' not allowed"),
        ({"image.name": "x"}, "at '/image': additional properties 'name' not allowed"),
        ({"tls.existingSecret": "a", "tls.certManager.enabled": True}, "at '/tls/existingSecret': maxLength"),
        ({"serviceAccount.create": False}, "at '/serviceAccount/name': minLength"),
    ],
)
def test_values_that_do_not_go_together_or_are_not_there_are_refused(values: Manifest, words: str) -> None:
    with pytest.raises(HelmError, match=words):
        render(values)


@pytest.mark.parametrize(
    ("name", "api"),
    [
        ("metrics.serviceMonitor.enabled", "monitoring.coreos.com/v1: install the Prometheus Operator"),
        ("metrics.prometheusRule.enabled", "monitoring.coreos.com/v1: install the Prometheus Operator"),
        ("tls.certManager.enabled", "cert-manager.io/v1: install cert-manager"),
    ],
)
def test_what_the_cluster_lacks_is_named_with_the_value(name: str, api: str) -> None:
    with pytest.raises(HelmError, match=f"{name} is true, but this cluster has no {api} first, or set it to false"):
        render({name: True}, apis=())


def nodes(schema: Manifest, name: str = "") -> Iterator[tuple[str, Manifest]]:
    yield name, schema
    for key, part in schema.get("properties", {}).items():
        yield from nodes(part, f"{name}.{key}")


def test_the_schema_knows_every_default_and_nothing_else() -> None:
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    for name, schema in nodes(SCHEMA):
        value = defaults
        for key in filter(None, name.split(".")):
            value = value.get(key, {}) if isinstance(value, dict) else {}
        if "properties" in schema:
            assert schema["additionalProperties"] is False, name
            assert set(value) <= set(schema["properties"]), name
        if "required" in schema:
            assert set(schema["required"]) == set(value), name


def test_every_value_is_described() -> None:
    undescribed = [name for name in LEAVES if not dict(named())[name].get("description", "").endswith(".")]
    assert undescribed == []


def named() -> Iterator[tuple[str, Manifest]]:
    return ((name.removeprefix("."), schema) for name, schema in nodes(SCHEMA))


def test_the_schema_allows_what_the_operator_can_open() -> None:
    forms = [
        word.name + (f"={word.values}" if not word.alone else f"(={word.values})?" if word.values else "")
        for word in WORDS
    ]
    assert SCHEMA["properties"]["allow"]["items"]["pattern"] == f"^({'|'.join(forms)})$"


def test_make_chart_has_been_run() -> None:
    made = runpy.run_path(str(ROOT / "helm" / "make_chart.py"))

    assert made["values_page"]() == (ROOT / "docs" / "values.md").read_text()
    assert contents(CHART / "files" / "crds") == contents(ROOT / "crds")


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_the_chart_has_halvards_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)


def test_helm_has_nothing_to_say_against_the_chart(tmp_path: Path) -> None:
    said = Helm(tmp_path, tmp_path).run("lint", "--strict", str(CHART))
    assert "1 chart(s) linted, 0 chart(s) failed" in said
