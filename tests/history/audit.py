"""A History from the API server's audit log: what was really stored, and by whom, in the order of the store. Pure.

A resourceVersion is a place in one order of all writes, whatever they are of; no clock is needed to say what came
first. Of a request whose answer was never logged, as its API server died, only the next write of that object tells.
"""

import contextlib
import json
import math
import sys
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

from halvard.apply import POD_NOT_DELETED
from halvard.cache import parse_study, parse_trial
from halvard.pods import COLLECTOR, LABEL_ATTEMPT, LABEL_STUDY, TRAINER, gpus
from halvard.study import Study
from halvard.trial import Trial
from halvard_trainer.reports import from_wire
from history.logged import Heard
from history.records import Accepted, Held, History, Pod, Write

Manifest = dict[str, Any]
WRITES = {"create", "update", "patch", "delete"}
KINDS = {"studies", "trials", "pods", "leases"}
NOTHING: Manifest = {}
KEPT = f"Degraded=True {POD_NOT_DELETED}"
PRECISION = 3.0  # seconds: a sidecar counts from when its program runs
WHOLE = 1.0  # seconds: a kubelet leaves out what is less


@dataclass(frozen=True, slots=True)
class Entry:
    """A write that was taken: its place among all writes, when, by whom, of what, and what is stored since.

    `stored` is empty where the answer does not say. `changed`: it is another version than before, or could not be known
    not to be: somebody else had deleted it a moment ago.
    """

    place: int
    at: float
    by: str
    agent: str
    verb: str
    resource: str
    namespace: str
    name: str
    uid: str
    stored: Manifest
    changed: bool

    @property
    def kind(self) -> str:
        """The resource, whichever part of it was written."""
        return self.resource.partition("/")[0]

    @property
    def owner(self) -> str:
        """The uid of the object that it belongs to."""
        return next((owner["uid"] for owner in self.stored.get("metadata", NOTHING).get("ownerReferences", ())), "")

    @property
    def deletes(self) -> bool:
        """Whether it is on its way out."""
        return self.verb == "delete" or "deletionTimestamp" in self.stored.get("metadata", NOTHING)


class Known(NamedTuple):
    """An object's latest version, and which user was the first to ask for its deletion."""

    version: str = ""
    deleted_by: str = ""


class Version(NamedTuple):
    """A state in which a Trial was stored, and when."""

    at: float
    trial: Trial


def history_of(lines: Iterable[str], namespace: str, study: str, heard: Sequence[Heard] | None = None) -> History:
    """Returns the history of the latest Study of that name in a namespace; raises LookupError where there was none."""
    found = [history for history in histories(lines, namespace, heard) if history.study.name == study]
    if not found:
        raise LookupError(f"the audit log knows no Study {namespace}/{study}")
    return found[-1]


def histories(lines: Iterable[str], namespace: str, heard: Sequence[Heard] | None = None) -> list[History]:
    """Returns the history of every Study that a namespace ever had, each until now or until it was deleted."""
    return histories_of(entries(lines, namespace), namespace, heard)


def histories_of(found: Sequence[Entry], namespace: str, heard: Sequence[Heard] | None = None) -> list[History]:
    """Returns the same from what was written there; `heard`: every result that an operator heard of there."""
    uids = dict.fromkeys(entry.uid for entry in found if entry.resource == "studies" and entry.verb == "create")
    leases, others = _leases(found, namespace), [entry for entry in found if entry.kind != "leases"]
    every = (_history(others, uid, leases, heard) for uid in uids)
    return [history for history in every if history is not None]


def entries(lines: Iterable[str], namespace: str) -> list[Entry]:
    """Returns what was written of Studies, Trials, Pods and Leases there, and of Leases elsewhere, in order."""
    found, known = list[Entry](), dict[str, Known]()
    for line in lines:
        if '"level":"RequestResponse"' not in line or not line.endswith("}\n"):  # the last one may still be written
            continue
        if f'"namespace":"{namespace}"' in line or '"resource":"leases"' in line:
            entry = _entry(json.loads(line), found[-1].place if found else 0, known)
            if entry and (entry.namespace == namespace or entry.kind == "leases"):
                found.append(entry)
    return sorted(found, key=lambda entry: entry.place)


def _entry(request: Manifest, latest: int, known: dict[str, Known]) -> Entry | None:
    """A request as a write; `latest`: the place of the one before; `known`: of each object, by uid."""
    target, answer = request["objectRef"], request.get("responseObject") or NOTHING
    if target["resource"] not in KINDS or request["verb"] not in WRITES:
        return None
    if not 200 <= request.get("responseStatus", NOTHING).get("code", 0) < 300:
        return None
    metadata = NOTHING if answer.get("kind") == "Status" else answer.get("metadata", NOTHING)
    uid = metadata.get("uid") or answer.get("details", NOTHING).get("uid", "")
    user, deletes = request["user"], request["verb"] == "delete"
    before, version = known.get(uid, Known()), metadata.get("resourceVersion", "")
    deleted_by = before.deleted_by or (user["username"] if deletes or "deletionTimestamp" in metadata else "")
    known[uid] = Known(version, deleted_by)
    pods = user.get("extra", NOTHING).get("authentication.kubernetes.io/pod-name", ())
    return Entry(
        place=int(version or latest + 1),
        at=_seconds(request["stageTimestamp"]),
        by="/".join((user["username"], *pods)),
        agent=request.get("userAgent", ""),
        verb=request["verb"],
        resource="/".join(part for part in (target["resource"], target.get("subresource")) if part),
        namespace=target.get("namespace", ""),
        name=metadata.get("name") or target.get("name", ""),
        uid=uid,
        stored=answer if metadata else NOTHING,
        changed=not version or version != before.version or (deletes and deleted_by != user["username"]),
    )


def _leases(found: Sequence[Entry], namespace: str) -> list[Held]:
    """Who was to write, by the Lease of the operators of this namespace: its own, else those anywhere."""
    leases = [e for e in found if e.kind == "leases" and e.stored and e.agent.startswith("halvard/")]
    own = [entry for entry in leases if entry.namespace == namespace]
    return [Held(e.place, e.stored["spec"].get("holderIdentity") or "", e.by) for e in own or leases]


def _history(found: list[Entry], uid: str, leases: list[Held], heard: Sequence[Heard] | None) -> History | None:
    """The history of the Study with the uid; None where its spec could never be read."""
    deleted = next((e.place for e in found if e.uid == uid and e.deletes), math.inf)
    found = [entry for entry in found if entry.place < deleted]
    studies = list(_studies(e for e in found if e.uid == uid))
    if not studies:
        return None
    lives = _lives(found, uid)
    ran, of_others = _pods_by_owner(found, lives)
    own = {uid, *lives, *ran}
    operators = {lease.by for lease in leases}
    writes = [e for e in found if e.uid in own and e.by in operators]
    study, limits = studies[-1][1], [study.spec.limits.trials for _, study in studies]
    pods = tuple(_pods(found, lives, study.spec.objective.metric))
    trials = sorted((versions[-1].trial for versions in lives.values()), key=lambda trial: trial.index)
    return History(
        study=study,
        trials=tuple(trials),
        parallelism=max(study.spec.parallelism for _, study in studies),
        limit=max(sys.maxsize if limit is None else limit for limit in limits),
        pods=pods,
        accepted=None if heard is None else tuple(_accepted(trials, heard, of_others)),
        versions=tuple(sorted((v.trial for life in lives.values() for v in life), key=lambda t: int(t.version))),
        writes=tuple(Write(e.place, e.by, _what(e), e.changed) for e in writes),
        leases=tuple(leases),
        quiet=tuple(_needless(writes, studies)),
        precision=PRECISION,
    )


def _what(entry: Entry) -> str:
    return f"{entry.verb} {entry.resource} {entry.name}"


def _needless(writes: Iterable[Entry], studies: Sequence[tuple[int, Study]]) -> Iterator[str]:
    """What was written once the Study was over, but deletions, and that one is refused, or is not any more."""
    over = next((place for place, study in studies if study.status.state in ("Complete", "Failed")), math.inf)
    told = {place: [f"{c.type}={c.status} {c.reason}" for c in study.status.conditions] for place, study in studies}
    for entry in writes:
        if entry.place > over and entry.verb != "delete":
            before = max((place for place in told if place < entry.place), default=0)
            said = told.get(entry.place, [])
            if KEPT not in said and KEPT not in told.get(before, []):
                yield " ".join((_what(entry), *said))


def _studies(found: Iterable[Entry]) -> Iterator[tuple[int, Study]]:
    for entry in found:
        if isinstance(study := parse_study(entry.stored), Study):  # the operator goes on with no other either
            yield entry.place, study


def _lives(found: Iterable[Entry], study: str) -> dict[str, list[Version]]:
    """Every version of each Trial of the Study by uid, but of those that were deleted."""
    lives = defaultdict[str, list[Version]](list)
    for entry in found:
        if entry.kind == "trials" and entry.deletes:
            lives.pop(entry.uid, None)
        elif entry.kind == "trials" and entry.owner == study:
            with contextlib.suppress(
                ValueError
            ):  # changed by hand into what is none: the operator keeps the one before
                lives[entry.uid].append(Version(entry.at, parse_trial(entry.stored)))
    return dict(lives)


# --- Pods


def _pods(found: Iterable[Entry], lives: Mapping[str, list[Version]], objective: str) -> Iterator[Pod]:
    by_uid = defaultdict[str, list[Entry]](list)
    for entry in found:
        if entry.kind == "pods" and entry.stored and entry.owner in lives:
            by_uid[entry.uid].append(entry)
    for uid, seen in by_uid.items():
        labels = seen[0].stored["metadata"].get("labels", NOTHING)
        if LABEL_STUDY not in labels or seen[0].verb != "create":
            continue
        life, attempt = lives[seen[0].owner], int(labels[LABEL_ATTEMPT])
        fencing = next((v for v in life if v.trial.attempt > attempt or v.trial.finished), None)
        pod = _pod(Pod(life[0].trial.index, attempt, uid, math.inf, None), seen, objective)
        fenced = fencing.at if fencing else None
        unseen = fencing is not None and "PodVanished" in fencing.trial.status.message
        if unseen and pod.gone:
            pod = replace(pod, ended=None, drained=None)
        yield replace(pod, fenced=fenced, superseded=int(fencing.trial.version) if fencing else 0)


def _pod(pod: Pod, seen: Sequence[Entry], objective: str) -> Pod:
    """The Pod with all that was said of it: the latest word on each thing counts."""
    for entry in seen:
        status = entry.stored.get("status", NOTHING)
        trainer = _terminated_or_running(status.get("containerStatuses"), TRAINER)
        collector = _terminated_or_running(status.get("initContainerStatuses"), COLLECTOR)
        over = status.get("phase") in {"Succeeded", "Failed"}
        ended, silent = _seconds(trainer.get("finishedAt")) or pod.ended, _seconds(collector.get("finishedAt"))
        # A collector that ends before the trainer does is started again.
        drained = max(ended, silent) + WHOLE if ended and silent else entry.at if over else None
        disturbed = entry.at if entry.deletes or _disrupted(status) else None
        gone = entry.verb == "delete" and entry.stored["metadata"].get("deletionGracePeriodSeconds") == 0
        pod = replace(
            pod,
            began=_seconds(trainer.get("startedAt")) or pod.began,
            known=pod.known or (entry.at if "startedAt" in trainer else None),
            ended=ended,
            drained=pod.drained or drained,
            disturbed=pod.disturbed or disturbed,
            last=_last_words(collector, objective) or _last_words(trainer, objective) or pod.last,
            gone=entry.place if gone else pod.gone,
        )
    drained = pod.drained or (math.inf if pod.ended else None)  # its collector may still have something to say
    return replace(pod, created=seen[0].place, gpus=gpus(seen[0].stored), drained=drained)


def _terminated_or_running(containers: Sequence[Manifest] | None, name: str) -> Manifest:
    state = next((c.get("state") or NOTHING for c in containers or () if c["name"] == name), NOTHING)
    found: Manifest = state.get("terminated") or state.get("running") or NOTHING
    return found


def _disrupted(status: Manifest) -> bool:
    kinds = {c["type"] for c in status.get("conditions") or () if c["status"] == "True"}
    return bool(kinds & {"DisruptionTarget", "TerminationTarget"})


def _last_words(container: Manifest, objective: str) -> tuple[int, float | None] | None:
    try:
        report = from_wire(json.loads(container.get("message") or ""))
    except (ValueError, RecursionError):
        return None
    if objective not in report.metrics:
        return None
    value = report.metrics[objective]
    return report.step, value if math.isfinite(value) else None


def _pods_by_owner(found: Iterable[Entry], lives: Mapping[str, list[Version]]) -> tuple[set[str], set[str]]:
    """The uids of the Pods of a study, and of all others."""
    own, others = set[str](), set[str]()
    for entry in found:
        if entry.kind == "pods" and entry.stored:
            (own if entry.owner in lives else others).add(entry.uid)
    return own, others - own


def _accepted(trials: Iterable[Trial], heard: Iterable[Heard], of_others: Collection[str]) -> Iterator[Accepted]:
    """What was heard of these trials, but not of those before them that had the same names."""
    indexes = {trial.name: trial.index for trial in trials}
    for result in heard:
        if result.trial in indexes and result.uid not in of_others:
            yield Accepted(indexes[result.trial], result.uid, result.step, result.at)


def _seconds(timestamp: str | None) -> float:
    """Seconds since the epoch; 0 where there is none, or where it never happened, which the kubelet dates 1970."""
    return datetime.fromisoformat(timestamp).timestamp() if timestamp else 0.0
