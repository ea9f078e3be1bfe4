"""The chart's objects: what there is, what the operator may do, how its Pods are confined, who believes them."""

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.chart import ALL_ON, NAMESPACE, ROOT, Manifest, one, render, rendered
from halvard.kube import TOKEN_REVIEWS
from halvard.operator import Settings
from halvard.tls import load_or_create
from lab.control_plane import ControlPlane
from lab.helm import CHART
from tlsclient import shake_hands

HOST = f"halvard.{NAMESPACE}.svc"


def operator_pod(values: dict[str, Any]) -> Manifest:
    """The operator's Pod, as its Deployment would make it."""
    template = one(render(values), "Deployment")["spec"]["template"]
    return {"apiVersion": "v1", "kind": "Pod", **template, "metadata": {**template["metadata"], "name": "operator"}}


def environment(values: dict[str, Any]) -> dict[str, str]:
    [container] = operator_pod(values)["spec"]["containers"]
    references = {
        "metadata.namespace": NAMESPACE,
        "metadata.name": "halvard-1",
        "status.podIP": "10.0.0.7",
    }
    return {
        variable["name"]: variable["value"]
        if "value" in variable
        else references[variable["valueFrom"]["fieldRef"]["fieldPath"]]
        for variable in container["env"]
    }


def rules(objects: list[Manifest], *kinds: str) -> Iterator[Manifest]:
    """The rules of the operator's own roles."""
    for item in objects:
        mine = item["metadata"]["name"] in {"halvard", f"halvard-{NAMESPACE}"}
        if mine and item["kind"] in (kinds or ("Role", "ClusterRole")):
            yield from item["rules"]


def rights(of: Iterator[Manifest]) -> dict[tuple[str, str], set[str]]:
    """Verbs by group and resource."""
    found: dict[tuple[str, str], set[str]] = {}
    for rule in of:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                found.setdefault((group, resource), set()).update(rule["verbs"])
    return found


def documented() -> dict[tuple[str, str], set[str]]:
    """The table of docs/operator.md, likewise; `create (trials)` is a verb for one of a row's resources."""
    section = (ROOT / "docs" / "operator.md").read_text().split("## Rights\n")[1].split("\n## ")[0]
    found: dict[tuple[str, str], set[str]] = {}
    for row in re.findall(r"^\| (`.*?) \| (.*?) \|", section, re.MULTILINE):
        resources, group = re.findall("`(.*?)`", row[0]), re.search(r"\(([\w.]+\.[\w.]+)", row[0])
        for resource in resources:
            where = group[1] if group else "halvard.dev" if "/" in resource else ""
            verbs = re.findall(r"(\w+)(?: \((\w+)\))?", row[1])
            found[where, resource] = {verb for verb, only in verbs if only in {"", resource}}
    return found


# --- what there is ----------------------------------------------------------------------------------------------------


def test_a_release_is_these_objects() -> None:
    listed = sorted(f"{item['kind']}/{item['metadata']['name']}" for item in render())
    assert listed == [
        f"ClusterRole/halvard-{NAMESPACE}",
        f"ClusterRole/halvard-study-edit-{NAMESPACE}",
        f"ClusterRole/halvard-study-view-{NAMESPACE}",
        f"ClusterRoleBinding/halvard-{NAMESPACE}",
        "CustomResourceDefinition/studies.halvard.dev",
        "CustomResourceDefinition/trials.halvard.dev",
        "Deployment/halvard",
        "Pod/halvard-check",
        "Role/halvard",
        "Role/halvard-check",
        "RoleBinding/halvard",
        "RoleBinding/halvard-check",
        "Secret/halvard-ca",
        "Service/halvard",
        "Service/halvard-metrics",
        "ServiceAccount/halvard",
        "ServiceAccount/halvard-check",
    ]


def test_everything_else_is_made_where_it_is_asked_for() -> None:
    before = {(item["kind"], item["metadata"]["name"]) for item in render()}
    after = {(item["kind"], item["metadata"]["name"]) for item in render(ALL_ON)}
    assert after - before == {
        ("ConfigMap", "halvard-dashboard"),
        ("NetworkPolicy", "halvard"),
        ("PodDisruptionBudget", "halvard"),
        ("PriorityClass", f"halvard-{NAMESPACE}"),
        ("PrometheusRule", "halvard"),
        ("ServiceMonitor", "halvard"),
    }


def test_objects_are_called_after_the_release() -> None:
    names = {item["metadata"]["name"] for item in render(release="night") if item["kind"] == "Deployment"}
    assert names == {"night-halvard"}


def test_the_longest_release_name_makes_names_that_are_not_too_long() -> None:
    objects = render(ALL_ON, release="r" * 53)
    namespaced = [item["metadata"]["name"] for item in objects if "namespace" in item["metadata"]]
    assert max(map(len, namespaced)) <= 63


@pytest.mark.parametrize("name", ["study", "trial"])
def test_the_custom_resources_are_those_of_crds(name: str) -> None:
    definition = yaml.safe_load((ROOT / "crds" / f"{name}.yaml").read_text())
    rendered = one(render(), "CustomResourceDefinition", definition["metadata"]["name"])
    assert rendered["spec"] == definition["spec"]


def test_studies_and_the_authority_their_pods_trust_outlive_the_release_unless_told_otherwise() -> None:
    kept = {"helm.sh/resource-policy": "keep"}
    studies = ("CustomResourceDefinition", "studies.halvard.dev")
    assert one(render(), *studies)["metadata"]["annotations"] == kept
    assert one(render(), "Secret", "halvard-ca")["metadata"]["annotations"] == kept
    assert "annotations" not in one(render({"crds.keep": False}), *studies)["metadata"]
    assert "annotations" not in one(render({"crds.keep": False}), "Secret", "halvard-ca")["metadata"]


# --- rights -----------------------------------------------------------------------------------------------------------


def test_the_operator_may_do_what_is_documented_and_nothing_else() -> None:
    assert rights(rules(render())) == documented()


def test_limited_to_namespaces_only_token_reviews_are_cluster_wide() -> None:
    objects = render({"namespaces": ["team-a", "team-b"]})
    namespaces = {
        item["metadata"]["namespace"]
        for item in objects
        if item["metadata"]["name"] == f"halvard-{NAMESPACE}" and item["kind"] == "Role"
    }
    assert namespaces == {"team-a", "team-b"}
    assert rights(rules(objects, "ClusterRole")) == {(TOKEN_REVIEWS.group, "tokenreviews"): {"create"}}
    assert rights(rules(objects)) == documented()


def test_nothing_may_see_secrets_or_everything() -> None:
    every = [rule for item in render({**ALL_ON, "namespaces": ["team-a"]}) for rule in item.get("rules", ())]
    words = {word for rule in every for key in ("apiGroups", "resources", "verbs") for word in rule[key]}
    assert "pods" in words
    assert words & {"*", "secrets", "nodes", "pods/exec", "pods/log", "escalate", "bind", "impersonate"} == set()


def test_what_is_there_already_is_named_in_every_right_but_to_create() -> None:
    unnamed = [rule for rule in one(render(), "Role")["rules"] if "resourceNames" not in rule]
    assert {verb for rule in unnamed for verb in rule["verbs"]} == {"create"}


def test_viewers_see_studies_and_editors_edit_them() -> None:
    objects = render()
    view = one(objects, "ClusterRole", f"halvard-study-view-{NAMESPACE}")
    edit = one(objects, "ClusterRole", f"halvard-study-edit-{NAMESPACE}")
    prefix = "rbac.authorization.k8s.io/aggregate-to-"
    assert [label for label in view["metadata"]["labels"] if prefix in label] == [f"{prefix}view"]
    assert {label for label in edit["metadata"]["labels"] if prefix in label} == {f"{prefix}edit", f"{prefix}admin"}
    assert rights(iter(view["rules"])) == {
        ("halvard.dev", kind): {"get", "list", "watch"} for kind in ("studies", "trials")
    }
    assert rights(iter(edit["rules"])) == {
        ("halvard.dev", "studies"): {"create", "delete", "deletecollection", "patch", "update"}
    }


# --- the operator's Pods ----------------------------------------------------------------------------------------------


def test_the_operator_understands_its_environment() -> None:
    values = {"namespaces": ["team-a", "team-b"], "allow": ["hostIPC", "capability=SYS_PTRACE"]}
    settings = Settings.from_environment(environment(values))
    assert settings.namespaces == ("team-a", "team-b")
    assert settings.allow == {"hostIPC", "capability=SYS_PTRACE"}
    assert (settings.service, settings.pod_ip) == ("halvard", "10.0.0.7")
    assert settings.collector_url == f"https://{HOST}:8443"
    assert settings.collector_image == "registry.example.com/halvard/collector:0.1.0"
    assert (settings.lease_namespace, settings.lease_name, settings.identity) == (NAMESPACE, "halvard", "halvard-1")


def test_a_digest_wins_over_a_tag() -> None:
    digest = f"sha256:{'a' * 64}"
    values = {"image.tag": "edge", "image.digest": digest, "collector.image.digest": digest}
    [container] = operator_pod(values)["spec"]["containers"]
    assert container["image"] == f"registry.example.com/halvard/operator@{digest}"
    assert environment(values)["HALVARD_COLLECTOR_IMAGE"] == f"registry.example.com/halvard/collector@{digest}"


@pytest.mark.parametrize("values", [{}, {"tls.existingSecret": "certificate"}], ids=["own authority", "given secret"])
def test_the_operators_pod_meets_the_restricted_standard(
    values: dict[str, Any], control_plane: ControlPlane, namespace: str
) -> None:
    refused(control_plane, namespace, operator_pod(values))


def test_the_pod_of_helm_test_meets_it_too(control_plane: ControlPlane, namespace: str) -> None:
    refused(control_plane, namespace, one(render(), "Pod", "halvard-check"))


def refused(control_plane: ControlPlane, namespace: str, pod: Manifest) -> None:
    """Raises ControlPlaneError where a namespace that enforces the restricted standard would not take the Pod."""
    control_plane.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    control_plane.kubectl("create", "serviceaccount", pod["spec"]["serviceAccountName"], "-n", namespace)
    here = {**pod, "metadata": {**pod["metadata"], "namespace": namespace}}
    control_plane.kubectl("create", "--dry-run=server", "-f", "-", input=json.dumps(here))


def test_the_operator_has_a_memory_limit_and_only_its_pods_get_a_token() -> None:
    spec = operator_pod({})["spec"]
    assert spec["containers"][0]["resources"]["limits"] == {"memory": "512Mi"}
    assert spec["automountServiceAccountToken"] is True
    assert one(render(), "ServiceAccount")["automountServiceAccountToken"] is False


def test_helm_test_pulls_the_images_of_its_study_as_its_own() -> None:
    def arguments(secrets: list[dict[str, str]]) -> list[str]:
        [container] = one(render({"imagePullSecrets": secrets}), "Pod", "halvard-check")["spec"]["containers"]
        return [argument for argument in container["args"] if "secret" in argument]

    assert arguments([]) == []
    assert arguments([{"name": "a"}, {"name": "b"}]) == ["--pull-secret=a", "--pull-secret=b"]


def test_labels_of_ones_own_cannot_hide_the_pods_from_their_deployment() -> None:
    deployment = one(render({"podLabels": {"app.kubernetes.io/name": "mine", "team": "a"}}), "Deployment")["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"].items() <= labels.items()
    assert labels["team"] == "a"


def test_only_the_operators_pods_are_selected() -> None:
    objects = render(ALL_ON)
    selector = one(objects, "Deployment")["spec"]["selector"]["matchLabels"]
    assert one(objects, "Service", "halvard-metrics")["spec"]["selector"] == selector
    assert one(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == selector
    assert one(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == selector
    assert not selector.items() <= one(objects, "Pod", "halvard-check")["metadata"]["labels"].items()


def test_the_leader_alone_decides_who_is_behind_the_service() -> None:
    assert "selector" not in one(render(), "Service")["spec"]


# --- certificates -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("helm", ["", "x509sha256skid=1"], ids=["this Helm", "a Helm built with a newer Go"])
def test_an_operator_signs_by_the_charts_authority_and_is_believed(
    helm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GODEBUG", helm)
    rendered.cache_clear()
    for name, content in one(render(), "Secret", "halvard-ca")["data"].items():
        (tmp_path / name).write_bytes(base64.b64decode(content))
        (tmp_path / name).chmod(0o440)

    tls = load_or_create(tmp_path, [HOST])

    assert tls.ca_pem == (tmp_path / "ca.crt").read_text()
    shake_hands(tls, tls.ca_pem, HOST)


def test_each_release_has_an_authority_of_its_own() -> None:
    first = one(render(), "Secret", "halvard-ca")["data"]
    rendered.cache_clear()
    assert one(render(), "Secret", "halvard-ca")["data"]["ca.key"] != first["ca.key"]


@pytest.mark.parametrize(
    ("values", "secret"),
    [({"tls.existingSecret": "certificate"}, "certificate"), ({"tls.certManager.enabled": True}, "halvard-tls")],
    ids=["given secret", "cert-manager"],
)
def test_a_certificate_from_elsewhere_is_mounted_whole_so_that_a_renewed_one_arrives(
    values: dict[str, Any], secret: str
) -> None:
    spec = operator_pod(values)["spec"]
    assert spec["volumes"] == [{"name": "tls", "secret": {"secretName": secret, "defaultMode": 0o440}}]
    assert spec["containers"][0]["volumeMounts"] == [
        {"name": "tls", "mountPath": environment(values)["HALVARD_TLS_DIRECTORY"], "readOnly": True}
    ]
    assert [item for item in render(values) if item["kind"] == "Secret"] == []


def test_cert_manager_makes_a_certificate_for_the_service() -> None:
    own = one(render({"tls.certManager.enabled": True}), "Certificate")["spec"]
    company = {"name": "company", "kind": "ClusterIssuer"}
    objects = render({"tls.certManager.enabled": True, "tls.certManager.issuerRef": company})
    assert own["dnsNames"] == [HOST]
    assert own["issuerRef"] == {"name": "halvard-ca", "kind": "Issuer"}
    assert one(objects, "Certificate")["spec"]["issuerRef"] == company
    assert [item["metadata"]["name"] for item in objects if item["kind"] in {"Issuer", "Certificate"}] == ["halvard"]


# --- what Prometheus and Grafana get ----------------------------------------------------------------------------------


def test_the_rules_and_the_dashboard_are_those_of_the_chart() -> None:
    objects = render(ALL_ON)
    assert one(objects, "PrometheusRule")["spec"] == yaml.safe_load((CHART / "files" / "rules.yaml").read_text())
    dashboard = one(objects, "ConfigMap", "halvard-dashboard")["data"]["halvard.json"]
    assert json.loads(dashboard) == json.loads((CHART / "files" / "dashboard.json").read_text())


def test_alerts_link_to_their_sections_of_a_page_that_can_be_linked_to() -> None:
    page = "https://git.example.com/docs/operate.md"
    groups = one(render({**ALL_ON, "metrics.prometheusRule.runbookUrl": page}), "PrometheusRule")["spec"]["groups"]
    alerts = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    assert alerts
    for rule in alerts:
        assert rule["annotations"]["runbook_url"] == f"{page}#{rule['alert'].lower()}"
        assert "runbook" not in rule["annotations"]


def test_the_service_monitor_finds_the_metrics_and_leaves_the_studies_namespace_alone() -> None:
    objects = render(ALL_ON)
    monitor = one(objects, "ServiceMonitor")["spec"]
    found = [
        item["metadata"]["name"]
        for item in objects
        if item["kind"] == "Service"
        and monitor["selector"]["matchLabels"].items() <= item["metadata"]["labels"].items()
    ]
    assert found == ["halvard-metrics"]
    assert monitor["endpoints"] == [{"port": "metrics", "interval": "30s", "honorLabels": True}]
