"""The words that open things in a Pod template, and the rules for single values of it. Pure.

A rule returns what would be right instead of the value, and nothing where the value is right.
"""

import posixpath
import re
from collections.abc import Mapping
from typing import Any

from halvard.shapes import Word

_NAME = r"[A-Za-z0-9._-]+"
HOST_NETWORK = Word("hostNetwork")
HOST_PID = Word("hostPID")
HOST_IPC = Word("hostIPC")
HOST_PORTS = Word("hostPorts")
HOST_PATH = Word("hostPath")
PRIVILEGED = Word("privileged")
CAPABILITY = Word("capability", r"[A-Z_]+", alone=False, form="capability=NAME")
VOLUME = Word("volume", "nfs", alone=False, form="volume=nfs")
NODE_NAME = Word("nodeName", _NAME, form="nodeName[=name]")
SERVICE_ACCOUNT = Word("serviceAccountName", _NAME, form="serviceAccountName[=name]")
PRIORITY_CLASS = Word("priorityClassName", _NAME, form="priorityClassName[=name]")
SCHEDULER = Word("schedulerName", _NAME, form="schedulerName[=name]")
TOLERATIONS = Word("tolerations")

WORDS = (
    *(HOST_NETWORK, HOST_PID, HOST_IPC, HOST_PORTS, HOST_PATH, PRIVILEGED, CAPABILITY, VOLUME),
    *(NODE_NAME, SERVICE_ACCOUNT, PRIORITY_CLASS, SCHEDULER, TOLERATIONS),
)
"""Everything that can be opened."""

_OUR_PATHS = ("/halvard", "/var/run/secrets/halvard", "/run/secrets/halvard")
_HARMLESS = frozenset(
    {
        "cluster-autoscaler.kubernetes.io/safe-to-evict",
        "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes",
        "kubectl.kubernetes.io/default-container",
    }
)
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
_MAY_BE_TOLERATED = frozenset({"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"})
_NODE_NAMES = frozenset({"kubernetes.io/hostname", "metadata.name"})

_HOST = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?:(?:{_HOST}(?:\.{_HOST})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?/)?"  # the registry
    rf"{_PART}(?:/{_PART})*"
    r"(?::\w[\w.-]{0,127})?"
    r"(?:@sha(?:256:[a-f0-9]{64}|384:[a-f0-9]{96}|512:[a-f0-9]{128}))?",
    re.ASCII,
)


def not_ours(name: object) -> str:
    """Names of volumes, containers and mounts."""
    return 'a name that does not begin with "halvard"' if str(name).startswith("halvard") else ""


def not_our_variable(name: object) -> str:
    """Names of environment variables."""
    return 'a name that does not begin with "HALVARD_"' if str(name).startswith("HALVARD_") else ""


def not_our_path(path: object) -> str:
    """Where a volume is mounted; Kubernetes takes a relative path from the root."""
    normal = "/" + posixpath.normpath(f"/{path}").lstrip("/")
    mine = normal.startswith(_OUR_PATHS)
    return f"another path, for {_OUR_PATHS[0]}… and {_OUR_PATHS[1]} are Halvard's own" if mine else ""


def not_our_audience(audience: object) -> str:
    """Whom a projected token is for: with one for Halvard, the trainer could push past its sidecar."""
    return "another audience" if str(audience).startswith("halvard.dev/") else ""


def image(reference: object) -> str:
    """Images, in the grammar of the distribution project: the kubelet would wait for ever with one that cannot be."""
    if not reference or _IMAGE.fullmatch(str(reference)):  # the API server has its own words for none at all
        return ""
    return "[registry[:port]/]name[:tag][@sha256:…], the name in lower case"


def label(key: str, _value: object) -> str:
    """Labels of Pods and claims."""
    return "these are Halvard's own; leave it out" if _is_in(key, "halvard.dev") else ""


def annotation(key: str, value: object) -> str:
    """Annotations: those of Kubernetes itself and of container runtimes (`io.`) change what a Pod may do."""
    if key.startswith(_APPARMOR):
        fine = value == "runtime/default" or str(value).startswith("localhost/")
        return not_ours(key.removeprefix(_APPARMOR)) or ("" if fine else '"runtime/default" or "localhost/<profile>"')
    own = key.lower().startswith("io.") or _is_in(key, "kubernetes.io", "k8s.io")
    return label(key, value) or ("leave it out" if own and key not in _HARMLESS else "")


def node_label(key: str, _value: object) -> str:
    """A nodeSelector: it picks nodes by what they are, not by name."""
    return "choose nodes by another label" if key in _NODE_NAMES else ""


def node_requirement(requirement: Mapping[str, Any]) -> str:
    """A requirement of a node affinity: a name may only be avoided."""
    by_name = str(requirement.get("key")) in _NODE_NAMES and requirement.get("operator") != "NotIn"
    return "choose nodes by another label (NotIn is allowed)" if by_name else ""


def toleration(tolerated: Mapping[str, Any]) -> str:
    """A toleration: of one taint, and none with which Kubernetes keeps a node to itself."""
    key = str(tolerated.get("key") or "")
    if not key:
        return "name the key of one taint"
    if key == "CriticalAddonsOnly" or (_is_in(key, "kubernetes.io", "k8s.io") and key not in _MAY_BE_TOLERATED):
        return "leave it out: this taint is of Kubernetes itself"
    return ""


def _is_in(key: str, *domains: str) -> bool:
    """Whether the key has the prefix of one of the domains, or of one below it."""
    prefix, slash, _ = key.lower().partition("/")
    return bool(slash) and any(prefix == domain or prefix.endswith(f".{domain}") for domain in domains)
