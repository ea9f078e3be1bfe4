"""A Trial's Pod: the user's template with the least added. Pure.

Added are the contract's environment, an emptyDir that trainer and sidecar share, the collector as a native sidecar with
a token of its own audience, and where checkpoints are kept. GPU requests stay as the user wrote them.
"""

import copy
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from halvard.contract import environment
from halvard.plan import StartLeg
from halvard.study import Study
from halvard.trial import SavedCheckpoint, Trial
from halvard_trainer.wrap import wrap

TRAINER = "trainer"
COLLECTOR = "halvard-collector"
LABEL_STUDY = "halvard.dev/study"
LABEL_TRIAL = "halvard.dev/trial"
LABEL_ATTEMPT = "halvard.dev/attempt"
ANNOTATION_TEMPLATE = "halvard.dev/template"
ANNOTATION_AVOIDS = "halvard.dev/avoids"

_SHARED = "/halvard"
_REPORTS = f"{_SHARED}/reports.jsonl"
_VERDICT = f"{_SHARED}/verdict.json"
_STDOUT = f"{_SHARED}/stdout"
_CHECKPOINTS = "/halvard-checkpoints"
_RESUME = "/halvard-resume"
_POD = "HALVARD_POD"
_TOKEN_DIRECTORY = "/var/run/secrets/halvard"  # noqa: S105  # a path, not a secret
_TOKEN_SECONDS = 3600
_NAME = re.compile(r"((.+)-[0-9]{4,})-(0|[1-9][0-9]*)")
_GPU = re.compile(r".*/(gpu|gpu\.[^/]+|mig-[^/]+)|gpu\.intel\.com/(i915|xe)")


@dataclass(frozen=True, slots=True)
class PodSettings:
    """What every trial's Pod of this operator shares.

    `collector_ca` is a PEM text; `allow` opens what a template may not ask for otherwise (`halvard.allowed`).
    """

    collector_image: str
    collector_url: str
    collector_ca: str
    audience: str = "halvard.dev/reports"
    allow: frozenset[str] = frozenset()


def pod_name(trial: str, attempt: int) -> str:
    """Returns the only name this attempt's Pod can have, so that creating it twice creates it once."""
    return f"{trial}-{attempt}"


def whose(name: str) -> tuple[str, str, int]:
    """Returns which study, trial and attempt a Pod of this name is of; empty and 0 where it cannot be any's.

    Nobody can change a name. Labels anybody can: they are for selectors, and say nothing.
    """
    found = _NAME.fullmatch(name)
    return (found[2], found[1], int(found[3])) if found else ("", "", 0)


def template_hash(template: Mapping[str, Any]) -> str:
    """Returns a short hash of the user's template: Pods of an older one are known by it."""
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]


def is_gpu(resource: str) -> bool:
    """Returns whether a resource of a container is a GPU.

    That is one called `.../gpu` or `.../gpu.<something>` (time-slicing), a MIG slice (`.../mig-...`) or Intel's
    `gpu.intel.com/{i915,xe}`; devices of a ResourceClaim cannot be seen here.
    """
    return bool(_GPU.fullmatch(resource))


def gpus(template: Mapping[str, Any]) -> float:
    """Returns how many GPUs a Pod (or a template) holds: the sum over its containers, limits before requests."""
    total = 0.0
    for container in (template.get("spec") or {}).get("containers") or ():
        resources = container.get("resources") or {}
        wanted = {**(resources.get("requests") or {}), **(resources.get("limits") or {})}
        total += sum(_number(quantity) for name, quantity in wanted.items() if is_gpu(name))
    return total


def build(study: Study, trial: Trial, leg: StartLeg, settings: PodSettings, previous_node: str = "") -> dict[str, Any]:
    """Returns the Pod of one leg: `trial` is the stored one (its uid owns the Pod), `previous_node` is preferred.

    The template is one that `halvard.allowed` has nothing against, so nothing in it goes by a name of ours.
    """
    spec: dict[str, Any] = copy.deepcopy(study.spec.template["spec"])
    resume = leg.resume if study.spec.checkpoint else None  # without a claim nothing outlives a Pod
    trainer = next(container for container in spec["containers"] if container["name"] == TRAINER)
    _add_to_trainer(trainer, study, trial, resume)
    spec["restartPolicy"] = "Never"
    spec["automountServiceAccountToken"] = spec.get("automountServiceAccountToken") or False
    # Last of the init containers: it starts after the user's own sidecars (a mesh, say) and is stopped before them.
    spec["initContainers"] = [*(spec.get("initContainers") or ()), _collector(study, trial, resume, settings)]
    spec["volumes"] = [*(spec.get("volumes") or ()), *_volumes(study, settings)]
    if previous_node:
        _prefer_node(spec, previous_node)
    if leg.avoid:
        _avoid_nodes(spec, leg.avoid)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": _metadata(study, trial, leg.avoid), "spec": spec}


def _metadata(study: Study, trial: Trial, avoid: tuple[str, ...]) -> dict[str, Any]:
    user = study.spec.template.get("metadata") or {}
    owner = {"apiVersion": "halvard.dev/v1alpha1", "kind": "Trial", "name": trial.name, "uid": trial.uid}
    labels = {LABEL_STUDY: study.name, LABEL_TRIAL: trial.name, LABEL_ATTEMPT: str(trial.attempt)}
    annotations = {ANNOTATION_TEMPLATE: template_hash(study.spec.template)}
    if avoid:
        annotations[ANNOTATION_AVOIDS] = " ".join(avoid)
    return {
        "name": pod_name(trial.name, trial.attempt),
        "namespace": study.namespace,
        "labels": {**(user.get("labels") or {}), **labels},
        "annotations": {**(user.get("annotations") or {}), **annotations},
        "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": False}],
    }


def _add_to_trainer(trainer: dict[str, Any], study: Study, trial: Trial, resume: SavedCheckpoint | None) -> None:
    contract = environment(
        study,
        trial,
        resume.step if resume else 0,
        reports=_REPORTS,
        verdict=_VERDICT,
        checkpoint_dir=_CHECKPOINTS,
        resume_from=f"{_RESUME}/{_directory(resume.attempt, resume.pod)}/{resume.name}" if resume else "",
    )
    named = {variable.get("name") for variable in trainer.get("env") or ()}
    if study.spec.collector.stdout and "PYTHONUNBUFFERED" not in named:
        contract["PYTHONUNBUFFERED"] = "1"  # into a pipe, Python would write its lines in bursts
    # Ours first: Kubernetes expands $(NAME) only from variables that come earlier in the list.
    ours = [*_variables(contract), {"name": _POD, "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}]
    kept = [each for each in trainer.get("env") or () if each.get("name") not in {*contract, _POD}]
    trainer["env"] = [*ours, *kept]
    trainer["volumeMounts"] = [
        *(trainer.get("volumeMounts") or ()),
        {"name": "halvard", "mountPath": _SHARED},
        *_checkpoint_mounts(study, trial, resume),
    ]
    # The last lines of a failed program are what its user wants to read first.
    trainer["terminationMessagePolicy"] = trainer.get("terminationMessagePolicy") or "FallbackToLogsOnError"
    if study.spec.collector.stdout:
        trainer["command"] = wrap(trainer.get("command") or (), trainer.pop("args", None) or (), _STDOUT, _SHARED)


def _checkpoint_mounts(study: Study, trial: Trial, resume: SavedCheckpoint | None) -> list[dict[str, Any]]:
    """Each Pod writes a directory of its own, and reads those of all its trial's: a zombie overwrites nothing."""
    if not study.spec.checkpoint:
        return [{"name": "halvard", "mountPath": _CHECKPOINTS, "subPath": "checkpoints"}]
    of_trial = f"{study.name}-{study.uid[:8]}/{trial.name}"
    mount = {"name": "halvard-checkpoints"}
    own = _directory(trial.attempt, f"$({_POD})")
    ours = {**mount, "mountPath": _CHECKPOINTS, "subPathExpr": f"{of_trial}/{own}"}
    if not resume:
        return [ours]
    return [ours, {**mount, "mountPath": _RESUME, "subPath": of_trial, "readOnly": True}]


def _directory(attempt: int, pod: str) -> str:
    """Where an attempt keeps its checkpoints; the number alone would not do, for a Pod may get one that vanished had.

    What an older operator stored names no Pod, and is in a directory without one.
    """
    return f"attempt-{attempt}-{pod}" if pod else f"attempt-{attempt}"


def _collector(study: Study, trial: Trial, resume: SavedCheckpoint | None, settings: PodSettings) -> dict[str, Any]:
    """The sidecar. No startupProbe: with one, a Pod that never restarts can hang for ever (kubernetes#132826)."""
    contract = {
        "HALVARD_REPORTS": _REPORTS,
        "HALVARD_VERDICT": _VERDICT,
        "HALVARD_SPOOL": f"{_SHARED}/spool.json",
        "HALVARD_BUDGET": str(trial.spec.budget),
        "HALVARD_START": str(resume.step if resume else 0),
        "HALVARD_OBJECTIVE": study.spec.objective.metric,
        "HALVARD_COLLECTOR_URL": settings.collector_url,
        "HALVARD_COLLECTOR_CA": settings.collector_ca,
    }
    if study.spec.collector.stdout:
        contract |= {"HALVARD_STDOUT": _STDOUT, "HALVARD_STDOUT_PATTERN": study.spec.collector.stdout.pattern}
    return {
        "name": COLLECTOR,
        "image": settings.collector_image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-m", "halvard_trainer.collector"],
        "restartPolicy": "Always",
        "env": _variables(contract),
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "250m", "memory": "64Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationMessagePolicy": "File",
        "volumeMounts": [
            {"name": "halvard", "mountPath": _SHARED},
            {"name": "halvard-token", "mountPath": _TOKEN_DIRECTORY, "readOnly": True},
        ],
    }


def _volumes(study: Study, settings: PodSettings) -> list[dict[str, Any]]:
    token = {"audience": settings.audience, "expirationSeconds": _TOKEN_SECONDS, "path": "token"}
    volumes: list[dict[str, Any]] = [
        {"name": "halvard", "emptyDir": {}},
        {"name": "halvard-token", "projected": {"sources": [{"serviceAccountToken": token}]}},
    ]
    if study.spec.checkpoint:
        claim = {"claimName": study.spec.checkpoint.persistent_volume_claim.claim_name}
        volumes.append({"name": "halvard-checkpoints", "persistentVolumeClaim": claim})
    return volumes


def _prefer_node(spec: dict[str, Any], node: str) -> None:
    """The image and the data are already there; where the node is full or gone, any other will do."""
    is_it = {"key": "metadata.name", "operator": "In", "values": [node]}
    term = {"weight": 100, "preference": {"matchFields": [is_it]}}
    affinity = spec.get("affinity") or {}
    to_node = affinity.get("nodeAffinity") or {}
    key = "preferredDuringSchedulingIgnoredDuringExecution"
    spec["affinity"] = {**affinity, "nodeAffinity": {**to_node, key: [*(to_node.get(key) or ()), term]}}


def _avoid_nodes(spec: dict[str, Any], nodes: tuple[str, ...]) -> None:
    """Kubernetes takes one name a requirement. Any of the user's terms will do, so each has to rule the nodes out."""
    ruled_out = [{"key": "metadata.name", "operator": "NotIn", "values": [node]} for node in nodes]
    affinity = spec.get("affinity") or {}
    to_node = affinity.get("nodeAffinity") or {}
    key = "requiredDuringSchedulingIgnoredDuringExecution"
    terms = (to_node.get(key) or {}).get("nodeSelectorTerms")
    outside = [
        # a term without any requirement matches no node, and is to go on doing so
        {**term, "matchFields": [*(term.get("matchFields") or ()), *ruled_out]} if any(term.values()) else term
        for term in terms or ()
    ] or [{"matchFields": ruled_out}]
    spec["affinity"] = {**affinity, "nodeAffinity": {**to_node, key: {"nodeSelectorTerms": outside}}}


def _variables(values: Mapping[str, str]) -> list[dict[str, str]]:
    """As EnvVars; `$` is doubled, or Kubernetes would expand $(NAME) inside a parameter or a pattern."""
    return [{"name": name, "value": value.replace("$", "$$")} for name, value in values.items()]


def _number(quantity: object) -> float:
    try:
        return float(str(quantity))
    except ValueError:
        return 0.0
