"""What the operator's service account may do in the cluster, all of it, and what it must not."""

import re

import pytest

from e2e.release import Release
from e2e.studies import Studies, show

# Every authenticated user has these.
EVERYBODY = {
    "selfsubjectaccessreviews.authorization.k8s.io": "create",
    "selfsubjectreviews.authentication.k8s.io": "create",
    "selfsubjectrulesreviews.authorization.k8s.io": "create",
}
ANYWHERE = {
    "events.events.k8s.io": "create",
    "pods": "create delete get list watch",
    "studies.halvard.dev": "get list watch",
    "studies.halvard.dev/status": "patch",
    "tokenreviews.authentication.k8s.io": "create",
    "trials.halvard.dev": "create get list patch watch",
    "trials.halvard.dev/status": "patch",
}
AT_HOME = {
    "endpointslices.discovery.k8s.io": "create",
    "endpointslices.discovery.k8s.io [halvard]": "get update",
    "leases.coordination.k8s.io": "create",
    "leases.coordination.k8s.io [halvard]": "get update",
    "services [halvard]": "get",
}
FORBIDDEN = [
    ("get", "secrets"),
    ("list", "secrets"),
    ("create", "serviceaccounts/token"),
    ("impersonate", "users"),
    ("create", "pods/exec"),
    ("get", "pods/log"),
    ("patch", "pods"),
    ("update", "pods/ephemeralcontainers"),
    ("create", "pods/eviction"),
    ("create", "studies.halvard.dev"),
    ("patch", "studies.halvard.dev"),
    ("delete", "studies.halvard.dev"),
    ("delete", "trials.halvard.dev"),
    ("list", "nodes"),
    ("list", "namespaces"),
    ("get", "configmaps"),
    ("create", "roles.rbac.authorization.k8s.io"),
    ("bind", "clusterroles.rbac.authorization.k8s.io"),
    ("patch", "customresourcedefinitions.apiextensions.k8s.io"),
    ("create", "deployments.apps"),
    ("create", "persistentvolumeclaims"),
]


def rights(release: Release, namespace: str) -> dict[str, str]:
    """What `kubectl auth can-i --list` says of resources: verbs by resource, with the names it is limited to."""
    account = f"--as=system:serviceaccount:{release.namespace}:{release.name}"
    listed = release.cluster.kubectl("auth", "can-i", "--list", account, f"--namespace={namespace}").stdout
    found: dict[str, set[str]] = {}
    for line in listed.splitlines()[1:]:
        row = re.fullmatch(r"(\S*)\s+\[(.*?)\]\s+\[(.*?)\]\s+\[(.*?)\]\s*", line)
        assert row is not None, line
        resource, _urls, names, verbs = row.groups()
        if resource:
            found.setdefault(f"{resource} [{names}]" if names else resource, set()).update(verbs.split())
    return {resource: " ".join(sorted(verbs)) for resource, verbs in sorted(found.items())}


def test_elsewhere_it_may_do_this_and_nothing_else(release: Release, served: Studies) -> None:
    found = rights(release, served.namespace)
    show("rights of the operator", "".join(f"{resource:50} {verbs}\n" for resource, verbs in found.items()))
    assert found == EVERYBODY | ANYWHERE


def test_at_home_it_may_also_lead(release: Release) -> None:
    assert rights(release, release.namespace) == EVERYBODY | ANYWHERE | AT_HOME


@pytest.mark.parametrize(("verb", "resource"), FORBIDDEN)
def test_it_must_not(release: Release, verb: str, resource: str) -> None:
    account = f"--as=system:serviceaccount:{release.namespace}:{release.name}"
    kind, _, part = resource.partition("/")
    options = (account, f"--subresource={part}", "--all-namespaces")
    asked = release.cluster.kubectl("auth", "can-i", verb, kind, *options, check=False)
    assert (asked.stdout.strip(), asked.returncode) == ("no", 1)


def test_limited_to_namespaces_it_may_do_nothing_elsewhere(release: Release, served: Studies) -> None:
    release.upgrade("--reset-then-reuse-values", f"--set=namespaces[0]={served.namespace}")
    reviews = {"tokenreviews.authentication.k8s.io": "create"}
    assert rights(release, served.namespace) == EVERYBODY | ANYWHERE
    assert rights(release, "default") == EVERYBODY | reviews
    assert rights(release, release.namespace) == EVERYBODY | reviews | AT_HOME
