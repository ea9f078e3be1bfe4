"""What a Pod template may ask for: a tree of what is allowed, and whatever is not in it is refused. Pure.

An allow-list, so that a field which Kubernetes invents later is refused until somebody has thought about it. It is
roughly the baseline Pod Security Standard of Kubernetes 1.34 without what picks a node, another service account, a
priority or a scheduler (docs/templates.md, docs/decisions/0011). The API server still checks types and values.
"""

from collections.abc import Mapping
from itertools import islice
from typing import Any

from halvard import template_rules as rules
from halvard.shapes import Allow, Entries, Fields, Items, Only, Opened, Scalar, Shape, Word

_FEW = 3


def parse(text: str) -> Allow:
    """Returns the entries of a comma list; raises ValueError naming the first that opens nothing, and all that do."""
    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    for entry in entries:
        if not any(word.takes(entry) for word in rules.WORDS):
            known = ", ".join(map(str, rules.WORDS))
            raise ValueError(f'HALVARD_ALLOW has "{entry}", which opens nothing; what can be opened: {known}')
    return frozenset(entries)


def refusal(template: Mapping[str, Any], allow: Allow = frozenset()) -> str | None:
    """Returns the first few things that a PodTemplateSpec may not ask for, in words; None where there is nothing."""
    faults = list(islice(TEMPLATE.faults(template, allow), _FEW + 1))
    lines = [f"{path.removeprefix('.')}: {message}" for path, message in faults[:_FEW]]
    return ". ".join(lines + ["There is more"] * (len(faults) > _FEW)) or None


ANY = Scalar()
TEXTS = Items(ANY)


def plain(names: str) -> dict[str, Shape]:
    """Returns fields that may have any single value."""
    return dict.fromkeys(names.split(), ANY)


def only(*values: str | int, word: Word | None = None) -> Scalar:
    """Returns a scalar that is one of these."""
    return Scalar(Only(values), word)


def off(word: Word | None = None) -> Scalar:
    """Returns a switch that has to be off."""
    return Scalar(Only((False,)), word)


METADATA = Fields({"labels": Entries(rules.label), "annotations": Entries(rules.annotation)})

# Names in the namespace: whoever may create Pods in it may use them.
KEY_REF = Fields(plain("name key optional"))
NAME_REF = Fields(plain("name"))
MAP_REF = Fields(plain("name optional"))
KEYS = Items(Fields(plain("key path mode")))
OF_THE_POD: dict[str, Shape] = {
    "fieldRef": Fields(plain("apiVersion fieldPath")),
    "resourceFieldRef": Fields(plain("containerName divisor resource")),
}
DOWNWARD = Items(Fields({**plain("path mode"), **OF_THE_POD}))
AMOUNTS: dict[str, Shape] = {"limits": Entries(), "requests": Entries()}  # of any resource
RESOURCES = Fields({**AMOUNTS, "claims": Items(Fields(plain("name request")))})
LABEL_SELECTOR = Fields(
    {"matchLabels": Entries(), "matchExpressions": Items(Fields({**plain("key operator"), "values": TEXTS}))}
)

HEADERS = Items(Fields(plain("name value")))
ACTIONS: dict[str, Shape] = {  # without a host: the kubelet makes these calls, from the node
    "exec": Fields({"command": TEXTS}),
    "httpGet": Fields({"host": only(""), **plain("path port scheme"), "httpHeaders": HEADERS}),
    "tcpSocket": Fields({"host": only(""), **plain("port")}),
}
PROBE = Fields(
    {
        **ACTIONS,
        "grpc": Fields(plain("port service")),
        **plain("initialDelaySeconds periodSeconds timeoutSeconds successThreshold failureThreshold"),
        **plain("terminationGracePeriodSeconds"),
    }
)
HOOK = Fields({**ACTIONS, "sleep": Fields(plain("seconds"))})

PROFILE = Fields({"type": only("RuntimeDefault", "Localhost"), **plain("localhostProfile")})
CONFINEMENT: dict[str, Shape] = {
    **plain("runAsUser runAsGroup runAsNonRoot"),
    "seccompProfile": PROFILE,
    "appArmorProfile": PROFILE,
    "seLinuxOptions": Fields(
        {
            "type": only("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"),
            **plain("level"),
        }
    ),
}
CONTAINER_SECURITY = Fields(
    {
        **CONFINEMENT,
        **plain("allowPrivilegeEscalation readOnlyRootFilesystem"),
        "privileged": off(rules.PRIVILEGED),
        "procMount": only("Default"),
        "capabilities": Fields({"add": Items(only("NET_BIND_SERVICE", word=rules.CAPABILITY)), "drop": TEXTS}),
    }
)
SYSCTLS = (  # of the Pod's own namespaces
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
)
POD_SECURITY = Fields(
    {
        **CONFINEMENT,
        **plain("fsGroup fsGroupChangePolicy supplementalGroupsPolicy seLinuxChangePolicy"),
        "supplementalGroups": TEXTS,
        "sysctls": Items(Fields({"name": only(*SYSCTLS), **plain("value")})),
    }
)

VARIABLE = Fields(
    {
        "name": Scalar(rules.not_our_variable),
        **plain("value"),
        "valueFrom": Fields({"configMapKeyRef": KEY_REF, "secretKeyRef": KEY_REF, **OF_THE_POD}),
    }
)
MOUNT = Fields(
    {
        "name": Scalar(rules.not_ours),
        "mountPath": Scalar(rules.not_our_path),
        **plain("subPath subPathExpr readOnly recursiveReadOnly"),
        "mountPropagation": only("None", "HostToContainer", word=rules.PRIVILEGED),
    }
)
PORT = Fields(
    {
        **plain("name containerPort protocol"),
        "hostPort": only(0, word=rules.HOST_PORTS),
        "hostIP": only("", word=rules.HOST_PORTS),
    }
)
CONTAINER: dict[str, Shape] = {
    "name": Scalar(rules.not_ours),
    "image": Scalar(rules.image),
    **plain("imagePullPolicy workingDir stdin stdinOnce tty terminationMessagePath terminationMessagePolicy"),
    "command": TEXTS,
    "args": TEXTS,
    "env": Items(VARIABLE),
    "envFrom": Items(Fields({**plain("prefix"), "configMapRef": MAP_REF, "secretRef": MAP_REF})),
    "ports": Items(PORT),
    "resources": RESOURCES,
    "volumeMounts": Items(MOUNT),
    "volumeDevices": Items(Fields({"name": Scalar(rules.not_ours), **plain("devicePath")})),
    "livenessProbe": PROBE,
    "readinessProbe": PROBE,
    "startupProbe": PROBE,
    "lifecycle": Fields({"postStart": HOOK, "preStop": HOOK}),
    "securityContext": CONTAINER_SECURITY,
}

SOURCE = Fields(
    {
        "configMap": Fields({**plain("name optional"), "items": KEYS}),
        "secret": Fields({**plain("name optional"), "items": KEYS}),
        "downwardAPI": Fields({"items": DOWNWARD}),
        "serviceAccountToken": Fields({"audience": Scalar(rules.not_our_audience), **plain("expirationSeconds path")}),
    }
)
DATA_SOURCE = Fields(plain("apiGroup kind name"))  # no other namespace
CLAIM = Fields(
    {
        "metadata": METADATA,
        "spec": Fields(  # no volumeName, no selector: a new volume, not somebody's old one
            {
                "accessModes": TEXTS,
                "resources": Fields(AMOUNTS),
                **plain("storageClassName volumeAttributesClassName volumeMode"),
                "dataSource": DATA_SOURCE,
                "dataSourceRef": DATA_SOURCE,
            }
        ),
    }
)
VOLUME_SOURCE = Fields(
    {
        "name": Scalar(rules.not_ours),
        "configMap": Fields({**plain("name optional defaultMode"), "items": KEYS}),
        "csi": Fields(
            {**plain("driver fsType readOnly"), "volumeAttributes": Entries(), "nodePublishSecretRef": NAME_REF}
        ),
        "downwardAPI": Fields({**plain("defaultMode"), "items": DOWNWARD}),
        "emptyDir": Fields(plain("medium sizeLimit")),
        "ephemeral": Fields({"volumeClaimTemplate": CLAIM}),
        "hostPath": Opened(rules.HOST_PATH, Fields(plain("path type"))),
        "image": Fields({"reference": Scalar(rules.image), **plain("pullPolicy")}),
        "nfs": Opened(rules.VOLUME, Fields(plain("server path readOnly")), "nfs"),
        "persistentVolumeClaim": Fields(plain("claimName readOnly")),
        "projected": Fields({**plain("defaultMode"), "sources": Items(SOURCE)}),
        "secret": Fields({**plain("secretName optional defaultMode"), "items": KEYS}),
    }
)

REQUIREMENTS = Items(Fields({**plain("key operator"), "values": TEXTS}, rules.node_requirement, rules.NODE_NAME))
NODE_TERM = Fields({"matchExpressions": REQUIREMENTS, "matchFields": REQUIREMENTS})
POD_TERM = Fields(  # of this namespace alone: anti-affinity to everybody's Pods would keep them off the node
    {"labelSelector": LABEL_SELECTOR, **plain("topologyKey"), "matchLabelKeys": TEXTS, "mismatchLabelKeys": TEXTS}
)
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
POD_AFFINITY = Fields(
    {REQUIRED: Items(POD_TERM), PREFERRED: Items(Fields({**plain("weight"), "podAffinityTerm": POD_TERM}))}
)
AFFINITY = Fields(
    {
        "nodeAffinity": Fields(
            {
                REQUIRED: Fields({"nodeSelectorTerms": Items(NODE_TERM)}),
                PREFERRED: Items(Fields({**plain("weight"), "preference": NODE_TERM})),
            }
        ),
        "podAffinity": POD_AFFINITY,
        "podAntiAffinity": POD_AFFINITY,
    }
)
SPREAD = Fields(
    {
        **plain("maxSkew minDomains nodeAffinityPolicy nodeTaintsPolicy topologyKey whenUnsatisfiable"),
        "labelSelector": LABEL_SELECTOR,
        "matchLabelKeys": TEXTS,
    }
)

TEMPLATE = Fields(
    {
        "metadata": METADATA,
        "spec": Fields(
            {
                **plain("activeDeadlineSeconds terminationGracePeriodSeconds automountServiceAccountToken"),
                **plain("enableServiceLinks dnsPolicy hostname subdomain setHostnameAsFQDN runtimeClassName"),
                "containers": Items(Fields(CONTAINER)),
                "initContainers": Items(Fields({**CONTAINER, "restartPolicy": only("Always")})),
                "volumes": Items(VOLUME_SOURCE),
                "restartPolicy": only("Never"),
                "resources": RESOURCES,
                "resourceClaims": Items(Fields(plain("name resourceClaimName resourceClaimTemplateName"))),
                "securityContext": POD_SECURITY,
                "os": Fields({"name": only("linux")}),
                "imagePullSecrets": Items(NAME_REF),
                "dnsConfig": Fields(
                    {"nameservers": TEXTS, "searches": TEXTS, "options": Items(Fields(plain("name value")))}
                ),
                "hostAliases": Items(Fields({**plain("ip"), "hostnames": TEXTS})),
                "hostNetwork": off(rules.HOST_NETWORK),
                "hostPID": off(rules.HOST_PID),
                "hostIPC": off(rules.HOST_IPC),
                "hostUsers": off(),
                "shareProcessNamespace": off(),
                "serviceAccountName": only("", "default", word=rules.SERVICE_ACCOUNT),
                "serviceAccount": only("", "default", word=rules.SERVICE_ACCOUNT),
                "nodeName": only("", word=rules.NODE_NAME),
                "nodeSelector": Entries(rules.node_label, rules.NODE_NAME),
                "affinity": AFFINITY,
                "tolerations": Items(
                    Fields(plain("key operator value effect tolerationSeconds"), rules.toleration, rules.TOLERATIONS)
                ),
                "topologySpreadConstraints": Items(SPREAD),
                "schedulingGates": Items(Fields(plain("name"))),
                "schedulerName": only("", "default-scheduler", word=rules.SCHEDULER),
                "priorityClassName": only("", word=rules.PRIORITY_CLASS),
            }
        ),
    }
)
