"""A History from an audit log: what it says of a small study as it should be, and of one that was stored wrongly."""

import json
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from chaos.leaders import too_late
from halvard import lifecycle
from halvard.apply import as_json, trial_manifest
from halvard.cache import parse_study, parse_trial
from halvard.faults import VANISHED
from halvard.progress import Progress
from halvard.status import study_status
from halvard.study import Study
from halvard.trial import SavedCheckpoint, Trial, TrialSpec, TrialState
from halvard_trainer.reports import Report
from history import Accepted, History, Sent, check, named
from history.after import excused, gpu_seconds, missing
from history.audit import entries, histories, histories_of, history_of
from history.logged import heard
from history.pods import time
from lab.control_plane import CANDIDATES

Manifest = dict[str, Any]
BEGIN = 1_800_000_000.0
TEMPLATE = {"spec": {"containers": [{"name": "trainer", "resources": {"limits": {"nvidia.com/gpu": 2}}}]}}
SPEC = {
    "objective": {"metric": "loss", "goal": "minimize"},
    "parameters": [{"name": "x", "float": {"min": 0.0, "max": 1.0}}],
    "scheduler": {"none": {"budget": 3}},
    "limits": {"trials": 1},
    "template": TEMPLATE,
}
PAYLOAD = Report(3, {"loss": 0.5}, "step-3")


def stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


@dataclass
class Server:
    """An API server that logs each write; every one of them takes a second."""

    lines: list[str] = field(default_factory=list)
    stored: dict[str, Manifest] = field(default_factory=dict)
    place: int = 100

    @property
    def now(self) -> float:
        return BEGIN + self.place

    def create(self, user: str, kind: str, name: str, manifest: Manifest) -> Manifest:
        self.place += 1
        metadata = {**manifest.get("metadata", {}), "name": name, "namespace": "lab", "uid": f"{name}-{self.place}"}
        self.stored[name] = {**manifest, "metadata": {**metadata, "resourceVersion": str(self.place)}}
        return self.log((user, "create"), kind, name, self.stored[name])

    def patch(self, user: str, kind: str, name: str, **parts: Any) -> Manifest:
        before = self.stored[name]
        after = deepcopy({**before, **parts})
        if after != before:
            self.place += 1
            after["metadata"] = {**after["metadata"], "resourceVersion": str(self.place)}
        self.stored[name] = after
        return self.log((user, "patch"), kind, name, after)

    def delete(self, user: str, kind: str, name: str) -> None:
        self.place += 1
        uid = self.stored.pop(name)["metadata"]["uid"]
        self.log((user, "delete"), kind, name, {"kind": "Status", "details": {"name": name, "uid": uid}})

    def log(self, who: tuple[str, str], kind: str, name: str, answer: Manifest, code: int = 200) -> Manifest:
        user, verb = who
        resource, _, subresource = kind.partition("/")
        request = {
            "level": "RequestResponse",
            "verb": verb,
            "user": {"username": user},
            "userAgent": "halvard/1" if user.startswith("operator") else "kubectl",
            "objectRef": {"resource": resource, "subresource": subresource, "namespace": "lab", "name": name},
            "responseStatus": {"code": code},
            "responseObject": answer,
            "stageTimestamp": stamp(self.now),
        }
        self.lines.append(json.dumps(request, separators=(",", ":")) + "\n")
        return answer


@dataclass
class Lab:
    """A study of one trial, told step by step."""

    server: Server = field(default_factory=Server)
    study: Study = field(init=False)
    trial: Trial = field(init=False)

    def begins(self) -> None:
        self.leads("a")
        manifest = {"apiVersion": "halvard.dev/v1alpha1", "kind": "Study", "spec": SPEC}
        study = parse_study(self.server.create("user", "studies", "s", manifest))
        assert isinstance(study, Study)
        self.study = study
        spec = TrialSpec(index=0, budget=3, parameters={"x": 0.5}, decision="new trial: random", order=1)
        new = lifecycle.new_trial("s", spec)
        self.trial = parse_trial(self.server.create("operator", "trials", new.name, trial_manifest(self.study, new)))

    def leads(self, holder: str, user: str = "operator") -> None:
        spec = {"holderIdentity": holder}
        if "lease" in self.server.stored:
            self.server.patch(user, "leases", "lease", spec=spec)
        else:
            self.server.create(user, "leases", "lease", {"spec": spec})

    def gets_a_pod(self, attempt: int = 1) -> str:
        owner = {"kind": "Trial", "uid": self.trial.uid}
        labels = {"halvard.dev/study": "s", "halvard.dev/trial": "s-0000", "halvard.dev/attempt": str(attempt)}
        metadata = {"labels": labels, "ownerReferences": [owner]}
        manifest = {"kind": "Pod", "metadata": metadata, "spec": TEMPLATE["spec"], "status": {"phase": "Pending"}}
        name = f"s-0000-{attempt}"
        uid: str = self.server.create("operator", "pods", name, manifest)["metadata"]["uid"]
        return uid

    def runs(self, attempt: int = 1) -> float:
        began = self.server.now + 1
        running = {"name": "trainer", "state": {"running": {"startedAt": stamp(began)}}}
        self.kubelet(attempt, {"phase": "Running", "containerStatuses": [running]})
        return began

    def ends(self, began: float, attempt: int = 1, **more: Any) -> float:
        ended = self.server.now + 1
        state = {"startedAt": stamp(began), "finishedAt": stamp(ended), "exitCode": 0}
        words = {"terminated": {**state, "message": json.dumps({"step": 3, "metrics": {"loss": 0.5}})}}
        containers = {
            "containerStatuses": [{"name": "trainer", "state": {"terminated": state}}],
            "initContainerStatuses": [{"name": "halvard-collector", "state": words}],
        }
        self.kubelet(attempt, {"phase": "Succeeded", **containers, **more})
        return ended

    def kubelet(self, attempt: int, status: Manifest) -> None:
        self.server.patch("system:node:n", "pods/status", f"s-0000-{attempt}", status=status)

    def reports(self, began: float, at: float) -> None:
        pod = self.server.stored[f"s-0000-{self.trial.attempt}"]
        trial = lifecycle.reported(self.trial, PAYLOAD, "loss", pod=pod["metadata"]["uid"])
        trial = lifecycle.completed_rung(trial, 0.5, at - began, 2 * (at - began), at, order=2)
        self.stores(lifecycle.ended(trial, "Complete", "finished the full budget of 3"))

    def stores(self, trial: Trial, user: str = "operator") -> None:
        """The operator writes the Trial's status."""
        self.trial = trial
        self.server.patch(user, "trials/status", "s-0000", status=as_json(trial.status))

    def is_over(self) -> None:
        progress = Progress(self.study, [self.trial])
        progress.started_at = progress.ended_at = self.server.now
        complete = {
            "type": "Complete",
            "status": "True",
            "reason": "TrialsFinished",
            "message": "",
            "lastTransitionTime": stamp(0),
        }
        status = as_json(study_status(progress, self.server.now))
        self.server.patch(
            "operator", "studies/status", "s", status={**status, "state": "Complete", "conditions": [complete]}
        )

    def history(self) -> History:
        return history_of(self.server.lines, "lab", "s")

    def told(self, *log: str) -> History:
        """The history, and what the operator has logged."""
        return histories_of(entries(self.server.lines, "lab"), "lab", heard(log))[-1]


def whole() -> Lab:
    """The study as it should be, from its beginning to its end."""
    lab = Lab()
    lab.begins()
    lab.gets_a_pod()
    began = lab.runs()
    lab.reports(began, at=lab.server.now + 1)
    lab.ends(began)
    lab.is_over()
    return lab


def zombie() -> tuple[Lab, str, str]:
    """A result is stored of the second Pod while the first one, which nobody believes any more, runs on; their uids."""
    lab = Lab()
    lab.begins()
    old = lab.gets_a_pod()
    lab.runs()
    lab.stores(lifecycle.requeued(lab.trial, "its node is silent", fault=True))
    new = lab.gets_a_pod(attempt=2)
    began = lab.runs(attempt=2)
    lab.server.place += 5
    lab.reports(began, at=lab.server.now)
    return lab, old, new


def line(uid: str, at: float, trial: str = "s-0000") -> str:
    """What an operator logs of a result."""
    return f"2027-01-15 08:00:00,123 INFO halvard.reconcile: lab/{trial}: {words(uid, at)}"


def words(uid: str, at: float) -> str:
    return f"Pod {uid} reported 0.5 at step 3, received at {datetime.fromtimestamp(at, UTC).isoformat()}"


def broken(history: History) -> set[str]:
    return {violation.rule for violation in check(history)}


def test_a_study_is_read_from_the_log_as_it_was() -> None:
    lab = whole()
    history = lab.history()
    assert check(history) == []
    (pod,) = history.pods or ()
    began, reported, ended = (BEGIN + place for place in (105, 106, 107))
    assert (pod.attempt, pod.gpus, pod.last) == (1, 2.0, (3, 0.5))
    assert (pod.began, pod.fenced, pod.ended, pod.created) == (began, reported, ended, 104)
    assert [trial.version for trial in history.versions or ()] == ["103", "106"]
    assert (pod.superseded, pod.drained, history.accepted) == (106, ended + 1.0, None)
    assert [write.what for write in history.writes or ()] == [
        "create trials s-0000",
        "create pods s-0000-1",
        "patch trials/status s-0000",
        "patch studies/status s",
    ]


def test_who_reported_a_result_is_read_from_the_operators_log() -> None:
    lab, _, new = zombie()
    at = lab.trial.status.rungs[0].at.timestamp()
    history = lab.told("leading as one", line(new, at), "Traceback (most recent call last):")
    assert history.accepted == (Accepted(0, new, 3, at),)
    assert check(history) == []
    assert lab.told(line(new, at), line("another", at, trial="t-0000")).accepted == history.accepted


def test_a_zombies_result_that_is_stored_as_that_of_the_new_pod_is_found() -> None:
    lab, old, new = zombie()
    at = lab.trial.status.rungs[0].at.timestamp()
    assert lab.trial.status.checkpoint is not None
    assert lab.trial.status.checkpoint.pod == new  # nothing that is stored tells of it
    assert check(lab.history()) == []
    assert broken(lab.told(line(old, at))) == {"reports"}
    assert broken(lab.told()) == {"reports"}
    assert check(replace(lab.history(), sent=(Sent(old, 3, 0.4), Sent(new, 3, 0.5)))) == []
    assert broken(replace(lab.history(), sent=(Sent(old, 3, 0.5),))) == {"said"}
    assert broken(replace(lab.history(), sent=(Sent(old, 3, 0.5), Sent(new, 3, 0.4)))) == {"said"}


def test_what_was_heard_of_a_study_before_of_that_name_is_left_out() -> None:
    lab = whole()
    (before,) = lab.history().pods or ()
    at = lab.trial.status.rungs[0].at.timestamp()
    lab.server.delete("user", "studies", "s")
    lab.server.delete("system:gc", "trials", "s-0000")
    lab.begins()
    assert lab.told(line(before.uid, at)).accepted == ()
    assert broken(lab.told(line("stranger", at))) == {"reports"}


def test_a_pod_that_came_before_the_other_one_was_fenced_is_found_by_the_order_however_near_that_was() -> None:
    lab = Lab()
    lab.begins()
    lab.gets_a_pod()
    lab.runs()
    lab.gets_a_pod(attempt=2)
    lab.stores(lifecycle.requeued(lab.trial, "again", fault=True))
    lab.runs(attempt=2)
    assert broken(lab.history()) == {"believed", "decided"}
    assert broken(zombie()[0].history()) == set()


def test_seconds_of_a_short_leg_that_no_pod_took_are_found_where_clocks_are_precise() -> None:
    lab = whole()
    for seconds in (0.5, 1.5):  # its Pod took one
        result = lab.trial.status.rungs[0].model_copy(update={"seconds": seconds, "gpu_seconds": 2 * seconds})
        status = lab.trial.status.model_copy(update={"rungs": (result,)})
        trial = lab.history().trials[0].model_copy(update={"status": status})
        wrong = replace(lab.history(), trials=(trial,), versions=None)
        assert broken(wrong) == {"status"}
        assert broken(replace(wrong, precision=0.2)) == {"time", "status"}


@pytest.mark.parametrize(("state", "missed"), [("Failed", 2), ("Pending", 2), ("Stopped", 0), ("Paused", 0)])
def test_seconds_of_a_pod_that_was_fenced_as_it_ended_may_not_be_missing(state: TrialState, missed: int) -> None:
    lab = Lab()
    lab.begins()
    lab.gets_a_pod()
    began = lab.runs()
    lab.server.place += 5
    ended = lab.ends(began)
    trial = lifecycle.requeued(lab.trial, "again", fault=True)
    if state != "Pending":
        trial = lifecycle.ended(trial, state, "the study ended", order=2 * (state in ("Failed", "Stopped")))
    lab.stores(lifecycle.lost(trial, 1.0, 2.0))
    history = replace(lab.history(), precision=0.1)
    (pod,) = history.pods or ()
    assert (pod.began, pod.ended) == (began, ended)
    assert len(list(time(history))) == missed  # seconds, and GPU-seconds
    assert not list(time(replace(history, late=True)))


def test_a_line_that_is_being_written_and_what_was_refused_are_left_out() -> None:
    lab = whole()
    lab.server.log(("operator", "patch"), "trials/status", "s-0000", {"kind": "Status"}, code=409)
    lab.server.lines.append(lab.server.lines[-2].rstrip("\n"))
    assert lab.history() == whole().history()


def test_of_a_study_that_was_made_anew_the_one_before_stays_as_it_was_when_it_was_deleted() -> None:
    lab = whole()
    before = lab.history()
    lab.server.delete("user", "studies", "s")
    lab.server.delete("system:gc", "trials", "s-0000")
    lab.begins()
    first, second = histories(lab.server.lines, "lab")
    assert (first.study, first.trials, first.pods) == (before.study, before.trials, before.pods)
    assert (len(second.trials), second.pods) == (1, ())
    assert check(first) == check(second) == []


def test_a_trial_that_was_deleted_is_missed_by_its_number() -> None:
    lab = whole()
    lab.server.delete("user", "trials", "s-0000")
    assert lab.history().trials == ()


def test_a_study_that_never_was_is_not_found() -> None:
    with pytest.raises(LookupError, match="no Study lab/other"):
        history_of(whole().server.lines, "lab", "other")
    assert histories(whole().server.lines, "another") == []


def test_the_highest_limits_count() -> None:
    lab = whole()
    for parallelism, limits in ((7, {"trials": 9}), (2, {"trials": 1})):
        spec = {**SPEC, "parallelism": parallelism, "limits": limits}
        lab.server.patch("user", "studies", "s", spec=spec)
    assert (lab.history().parallelism, lab.history().limit) == (7, 9)


def test_a_pod_whose_attempt_was_not_stored_before_is_found() -> None:
    lab = Lab()
    lab.begins()
    lab.gets_a_pod(attempt=2)
    assert broken(lab.history()) == {"decided"}


def test_a_pod_of_a_trial_that_has_ended_is_found() -> None:
    lab = whole()
    lab.gets_a_pod(attempt=2)
    assert broken(lab.history()) == {"decided", "quiet"}


def test_a_write_of_an_operator_that_does_not_lead_any_more_is_found() -> None:
    lab = Lab()
    lab.begins()
    lab.gets_a_pod()
    lab.leads("b", user="operator-b")
    assert check(lab.history()) == []
    lab.stores(lifecycle.started(lab.trial))
    assert broken(lab.history()) == {"leading"}
    lab.leads("a")
    lab.stores(lifecycle.requeued(lab.trial, "again", fault=True))
    assert len(check(lab.history())) == 1
    lab.leads("")
    lab.stores(lifecycle.started(lab.trial))
    assert len(check(lab.history())) == 2


def test_what_a_loser_asks_for_is_told_with_its_answer() -> None:
    lab, (one, two) = Lab(), CANDIDATES
    lab.begins()
    for candidate in CANDIDATES:
        lab.leads(candidate, user=candidate)
        lab.stores(lifecycle.started(lab.trial), user=candidate)
    lab.server.log((one, "patch"), "trials/status", "s-0000", {"kind": "Status"}, code=409)
    lab.server.log((one, "create"), "pods", "s-0000-1", {"kind": "Status"}, code=504)  # it was killed meanwhile
    assert list(too_late(lab.server.lines, "lab")) == [(f"{one}: patch trials s-0000", 409)]
    lab.leads("", user=two)
    lab.stores(lifecycle.requeued(lab.trial, "again", fault=True), user=one)
    assert len(list(too_late(lab.server.lines, "lab"))) == 1
    lab.leads(two, user=two)
    lab.stores(lifecycle.requeued(lab.trial, "again", fault=True), user=one)
    assert list(too_late(lab.server.lines, "lab"))[1:] == [(f"{one}: patch trials s-0000", 200)]


def test_a_write_that_changes_nothing_is_found() -> None:
    lab = Lab()
    lab.begins()
    lab.stores(lab.trial)
    assert check(lab.history()) == []  # the defaults were not there
    lab.stores(lab.trial)
    assert broken(lab.history()) == {"idle"}


@pytest.mark.parametrize(("first", "found"), [("user", set()), ("operator", {"idle"})])
def test_a_pod_deleted_twice_is_found_unless_somebody_else_was_faster(first: str, found: set[str]) -> None:
    lab = Lab()
    lab.begins()
    lab.gets_a_pod()
    metadata = {**lab.server.stored["s-0000-1"]["metadata"], "deletionTimestamp": stamp(lab.server.now)}
    lab.server.patch(first, "pods", "s-0000-1", metadata=metadata)
    going = lab.server.patch("kubelet", "pods/status", "s-0000-1", status={"phase": "Running"})
    lab.server.log(("operator", "delete"), "pods", "s-0000-1", going)
    assert broken(lab.history()) == found


def test_a_write_after_the_end_is_found() -> None:
    lab = whole()
    status = lab.server.stored["s"]["status"]
    lab.server.patch("user", "studies", "s", metadata={**lab.server.stored["s"]["metadata"], "labels": {}})
    assert check(lab.history()) == []
    lab.server.patch("operator", "studies/status", "s", status={**status, "used": {**status["used"], "trials": "1/2"}})
    assert broken(lab.history()) == {"quiet"}


def test_that_a_pod_could_not_be_deleted_may_be_written_after_the_end_and_taken_back() -> None:
    lab = whole()
    status = lab.server.stored["s"]["status"]
    kept = {**status["conditions"][0], "type": "Degraded", "status": "True", "reason": "PodNotDeleted"}
    lab.server.patch("operator", "studies/status", "s", status={**status, "conditions": [*status["conditions"], kept]})
    lab.server.patch("operator", "studies/status", "s", status=status)
    assert check(lab.history()) == []
    other = {**kept, "reason": "QuotaExhausted"}
    lab.server.patch("operator", "studies/status", "s", status={**status, "conditions": [*status["conditions"], other]})
    assert "quiet" in broken(lab.history())


def test_a_result_that_its_pod_did_not_send_is_found() -> None:
    lab = whole()
    (pod,) = lab.history().pods or ()
    assert check(replace(lab.history(), sent=(Sent(pod.uid, 3, 0.5),))) == []
    silent = replace(pod, last=None)
    for sent in ((), (Sent(pod.uid, 3, 0.4),), (Sent("a stranger", 3, 0.5),), (Sent(pod.uid, 2, 0.5),)):
        assert broken(replace(lab.history(), pods=(silent,), sent=sent)) == {"said"}
    assert broken(replace(lab.history(), pods=(replace(pod, last=(3, 0.4)),))) == {"said"}
    assert broken(replace(lab.history(), pods=(replace(pod, last=(2, 0.4)),))) == set()


@pytest.mark.parametrize(
    ("pod", "attempt"), [("a stranger", 1), ("", 2), ("a stranger", 2)], ids=["of another", "too late", "both"]
)
def test_a_checkpoint_that_no_pod_of_the_trial_was_to_save_is_found(pod: str, attempt: int) -> None:
    lab = whole()
    checkpoint = SavedCheckpoint(name="step-3", step=3, attempt=attempt, pod=pod)
    status = lab.trial.status.model_copy(update={"checkpoint": checkpoint})
    trial = lab.history().trials[0].model_copy(update={"status": status})
    assert broken(replace(lab.history(), trials=(trial,), versions=None)) == {"saved"}


@pytest.mark.parametrize(("after", "rules"), [(0, {"faults"}), (5, set[str]())])
def test_a_trial_that_fails_for_what_was_done_to_its_pod_is_found(after: int, rules: set[str]) -> None:
    lab = Lab()
    lab.begins()
    lab.gets_a_pod()
    began = lab.runs()
    disrupted = [{"type": "DisruptionTarget", "status": "True"}]
    if not after:
        lab.kubelet(1, {**lab.server.stored["s-0000-1"]["status"], "conditions": disrupted})
    lab.server.place += 3
    ended = lab.ends(began)
    if after:
        lab.kubelet(1, {**lab.server.stored["s-0000-1"]["status"], "conditions": disrupted})
    failed = lifecycle.ended(lab.trial, "Failed", "NonZeroExit: exit code 1", order=2)
    lab.stores(lifecycle.lost(failed, ended - began, 2 * (ended - began)))
    assert broken(lab.history()) == rules


def test_a_pod_that_nobody_saw_end_before_it_was_gone_took_an_unknown_time() -> None:
    lab = Lab()
    lab.begins()
    lab.gets_a_pod()
    lab.ends(lab.runs())
    gone = deepcopy(lab.server.stored["s-0000-1"])
    gone["metadata"]["deletionGracePeriodSeconds"] = 0
    lab.server.log(("user", "delete"), "pods", "s-0000-1", gone)
    lab.stores(lifecycle.requeued(lab.trial, lifecycle.describe(VANISHED), fault=True))
    assert check(lab.history()) == []
    (pod,) = lab.history().pods or ()
    assert (pod.ended, pod.gone) == (None, lab.server.place - 1)
    lab.trial = lab.trial.model_copy(update={"status": lab.trial.status.model_copy(update={"message": "Evicted: "})})
    lab.stores(lab.trial)
    assert check(lab.history()) == []  # what fenced it first counts


def test_seconds_that_no_pod_took_are_found() -> None:
    lab = whole()
    assert broken(lab.history()) == set()
    result = lab.trial.status.rungs[0].model_copy(update={"seconds": 99.0, "gpu_seconds": 198.0})
    status = lab.trial.status.model_copy(update={"rungs": (result,)})
    trial = lab.history().trials[0].model_copy(update={"status": status})
    assert broken(replace(lab.history(), trials=(trial,), versions=None)) == {"time", "status"}


def test_what_reports_before_the_kubelet_has_told_of_it_is_timed_by_its_sidecar() -> None:
    lab = whole()
    (pod,) = lab.history().pods or ()
    assert pod.known == pod.began
    result = lab.trial.status.rungs[0].model_copy(update={"seconds": 0.0, "gpu_seconds": 0.0})
    status = lab.trial.status.model_copy(update={"rungs": (result,)})
    trial = lab.history().trials[0].model_copy(update={"status": status})
    untimed = replace(lab.history(), trials=(trial,), versions=None, precision=0.0)
    assert broken(untimed) == {"time", "status"}
    assert broken(replace(untimed, pods=(replace(pod, known=result.at.timestamp()),))) == {"status"}


def test_a_pod_whose_kubelet_has_not_spoken_yet_may_have_taken_any_time() -> None:
    lab = Lab()
    lab.begins()
    lab.gets_a_pod()
    lab.reports(lab.server.now - 50, at=lab.server.now)
    assert check(lab.history()) == []
    (pod,) = lab.history().pods or ()
    assert not pod.seen
    assert broken(replace(lab.history(), pods=(replace(pod, began=lab.server.now - 5),))) == {"time"}


def test_metrics_that_say_something_else_are_found() -> None:
    history = whole().history()
    sample = 'halvard_gpu_seconds{{namespace="lab",study="s",rung="{}",outcome="{}"}} {}\n'
    assert gpu_seconds(sample.format(3, "complete", 2.0), "lab", "other") is None
    for rung, outcome, seconds, rules in (
        (3, "complete", 2.0, set[str]()),
        (3, "complete", 2.5, {"metrics"}),
        (1, "complete", 2.0, {"metrics"}),
        (3, "paused", 2.0, {"metrics"}),
    ):
        scraped = gpu_seconds(sample.format(rung, outcome, seconds), "lab", "s")
        assert broken(replace(history, scraped=scraped)) == rules


def test_what_the_log_does_not_have_is_taken_from_what_is_stored() -> None:
    lab = whole()
    stored = [lab.server.stored["s-0000"], lab.server.stored["s"]]
    assert missing(entries(lab.server.lines, "lab"), stored, lab.server.now) == []
    logged = entries(lab.server.lines[:-1], "lab")
    (absent,) = missing(logged, stored, lab.server.now)
    (history,) = histories_of([*logged, absent], "lab")
    assert (history.study, history.over) == (lab.history().study, True)


def test_a_write_that_the_log_does_not_have_was_made_before_the_next_one_that_it_has_or_now() -> None:
    lab = whole()
    every, now = entries(lab.server.lines, "lab"), lab.server.now + 9
    lost = [entry for entry in every if entry.kind == "trials"][-1]
    before = [entry for entry in every if entry.place < lost.place]
    after = [entry for entry in every if entry.place > lost.place]
    assert [(e.place, e.at) for e in missing([*before, *after], [lost.stored], now)] == [(lost.place, after[0].at)]
    assert [(e.place, e.at) for e in missing(before, [lost.stored], now)] == [(lost.place, now)]


def test_only_rules_that_there_are_can_be_excused() -> None:
    def marked(*rules: str, **why: str) -> Any:
        return SimpleNamespace(nodeid="a test", iter_markers=lambda _: [pytest.mark.unsound(*rules, **why).mark])

    assert named(["time", "said"]) == {"time", "said"}
    assert excused(marked("time", reason="it is late")) == {"time"}
    with pytest.raises(ValueError, match=r"^tim, writes: no such rule of the history checker; there are orders, "):
        named(["writes", "time", "tim"])
    with pytest.raises(ValueError, match=r"^writes: no such rule"):
        excused(marked("writes", reason="it writes"))
    with pytest.raises(TypeError, match="a test: write unsound"):
        excused(marked("time"))
