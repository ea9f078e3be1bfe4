"""Rules about attempts, what was believed of them, and what was stored: each is held where its records are given."""

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

from halvard.faults import INFRASTRUCTURE, RETRIES_EXHAUSTED
from halvard.trial import RungResult, Trial
from history.records import Accepted, History, Pod, Violation

BY_ITSELF = {"NonZeroExit", "OOMKilled", "MetricsUnavailable"}  # what a trainer does that nobody disturbs
AT_ONCE = 1.0  # seconds between a trainer's end and its Pod's disruption that may be either's doing
ROUNDING = 0.001  # seconds: results and what was lost are stored to a thousandth


def attempts(history: History) -> Iterator[Violation]:
    """Numbers only rise, and a trial has one Pod at a time that is believed.

    What fenced the one before was stored before the next one was created; where places are not known, the clock tells.
    A number is used for a second Pod only where the first had vanished before anything of it was stored, and with it
    all that was known of it: it ended before the second began, no report of it is accepted from then on, and of those
    accepted before no result and no checkpoint is ever stored.
    """
    for trial in history.trials:
        given = [result.attempt for result in trial.status.rungs]
        if sorted(given) != given or (given and given[-1] > trial.attempt) or trial.status.faults >= trial.attempt:
            yield Violation(
                "attempts",
                trial.index,
                f"attempt {trial.attempt} after {trial.status.faults} faults; results by {given}",
            )
    for trial_index, own in _by_trial(history).items():
        for before, after in pairwise(sorted(own, key=lambda pod: (pod.created, pod.began, pod.attempt))):
            if before.attempt == after.attempt and (counted := _still_counted(history, before, after)):
                yield Violation("attempts", trial_index, f"attempt {after.attempt} had two Pods: {counted}")
            elif before.attempt > after.attempt:
                yield Violation("attempts", trial_index, f"attempt {before.attempt} began before {after.attempt}")
            elif before.attempt < after.attempt and _at_once(before, after):
                yield Violation("believed", trial_index, f"{before} and {after} were believed at once")


def reports(history: History) -> Iterator[Violation]:
    """A result came from its trial's Pod of that number while that was believed; so did what was accepted.

    Where it is known who sent what was accepted, it was that Pod and no other. Where things are heard of late, that is
    asked of what was stored alone: an operator may not have heard that a Pod is not believed, and may not write then.
    """
    if history.pods is None:
        return
    pods = {pod.uid: pod for pod in history.pods}
    for report in history.accepted or ():
        pod = pods.get(report.uid)
        known = pod is not None and pod.trial == report.trial
        in_time = pod is not None and _may_report(pod, report.at, history.precision)
        if not known or not (in_time or (history.late and not _stored(history, report))):
            yield Violation("reports", report.trial, f"{report} was accepted of {pod}")
    for trial, result in ((each, result) for each in history.trials for result in each.status.rungs):
        own = [pod for pod in history.pods if (pod.trial, pod.attempt) == (trial.index, result.attempt)]
        if not any(_may_report(pod, result.at.timestamp(), history.precision) for pod in own):
            yield Violation("reports", trial.index, f"nobody could report {result}, of {own}")
        by = {report.uid for report in history.accepted or () if report.trial == trial.index and _is(report, result)}
        if history.accepted is not None and not by & {pod.uid for pod in own}:
            yield Violation("reports", trial.index, f"{by or 'nobody'} reported {result}, and not {own}")


def saved(history: History) -> Iterator[Violation]:
    """The checkpoint to come back to is of a Pod that its trial had, of the attempt that it names."""
    if history.pods is None:
        return
    made = {(pod.trial, pod.attempt, uid) for pod in history.pods for uid in ("", pod.uid)}
    for trial in (*(history.versions or ()), *history.trials):
        checkpoint = trial.status.checkpoint
        if checkpoint and (trial.index, checkpoint.attempt, checkpoint.pod) not in made:
            yield Violation("saved", trial.index, f"no Pod of it was to save {checkpoint}")


def said(history: History) -> Iterator[Violation]:
    """A result is what its Pod said: among all that it sent, and in its last words where they are of that step.

    The Pod that wrote a checkpoint has sent a report of that step.
    """
    pods = {(pod.trial, pod.attempt): pod for pod in history.pods or ()}
    sent = None if history.sent is None else {(report.uid, report.step, report.value) for report in history.sent}
    for trial in history.trials:
        for result in trial.status.rungs:
            pod = pods.get((trial.index, result.attempt))
            if pod is None:
                continue
            last, words = pod.last, (result.step, result.value)
            if last and last[0] == result.step and last != words:
                yield Violation("said", trial.index, f"the result at {words[0]} is {words[1]}, its Pod said {last[1]}")
            if sent is not None and last != words and (pod.uid, *words) not in sent:
                yield Violation("said", trial.index, f"{pod} never sent {words}, its result")
    steps = {(uid, step) for uid, step, _ in sent or ()} | {(p.uid, p.last[0]) for p in pods.values() if p.last}
    for trial in (*(history.versions or ()), *history.trials):
        saved = trial.status.checkpoint
        if sent is not None and saved and saved.pod and (saved.pod, saved.step) not in steps:
            yield Violation("said", trial.index, f"its Pod never sent a report of {saved}")


def _may_report(pod: Pod, at: float, precision: float) -> bool:
    slack = precision + ROUNDING
    return (not pod.seen or pod.began - slack <= at) and at <= pod.heard_until + slack


def _stored(history: History, report: Accepted) -> bool:
    every = (trial for trial in (*(history.versions or ()), *history.trials) if trial.index == report.trial)
    return any(_is(report, result) for trial in every for result in trial.status.rungs)


def _is(report: Accepted, result: RungResult) -> bool:
    return report.step == result.step and abs(report.at - result.at.timestamp()) < ROUNDING


def time(history: History) -> Iterator[Violation]:
    """The seconds and GPU-seconds of a trial are those of its Pods, each from its start until it was not believed.

    Of a Pod that was not fenced because it ended, or whose end nobody saw, it may be any part from its last result on;
    of one that is believed still, too; of one that reports before anybody has told of its beginning, any part until
    then; of one that vanished with all that was known of it, so that another has its number, any part of it all. One
    that nobody has told of yet may have taken any time. Where things were heard of late, seconds may be missing, and
    those between its end and the moment from when on it was not believed may be counted.
    """
    if history.pods is None:
        return
    by_trial = _by_trial(history)
    for trial in history.trials:
        every, status = by_trial.get(trial.index, []), trial.status
        own = [pod for pod in every if pod.seen]
        counted = {pod.attempt: pod for pod in sorted(own, key=lambda pod: pod.began)}  # the last of each number
        stored = sum(result.seconds for result in status.rungs) + status.lost.seconds
        on_gpus = sum(result.gpu_seconds for result in status.rungs) + status.lost.gpu_seconds
        for what, spent, weights in (
            ("seconds", stored, [1.0] * len(own)),
            ("GPU-seconds", on_gpus, [pod.gpus for pod in own]),
        ):
            spans = [
                (weight * _least(history, pod, trial) * (pod is counted[pod.attempt]), weight * _most(history, pod))
                for pod, weight in zip(own, weights, strict=True)
            ]
            least, most = sum(span[0] for span in spans), sum(span[1] for span in spans)
            slack = ROUNDING * (1 + len(status.rungs)) * max([1.0, *weights])
            slack += (ROUNDING + history.precision) * sum(weights)
            too_few = spent < least - slack and not history.late
            if too_few or (len(own) == len(every) and spent > most + slack):
                yield Violation("time", trial.index, f"{spent} {what} are stored; its Pods took {least} to {most}")


def _most(history: History, pod: Pod) -> float:
    until = pod.fenced if history.late and pod.fenced is not None else pod.heard_until
    return max(0.0, until - pod.began)


def _least(history: History, pod: Pod, trial: Trial) -> float:
    since = max(pod.began, pod.known or pod.began)
    results = [result.at.timestamp() for result in trial.status.rungs if result.attempt == pod.attempt]
    until = max([since, *(at for at in results if at <= pod.heard_until)])
    if pod.ended is not None and pod.ended == pod.believed_until and _ended_by_itself(history, pod, trial):
        until = max(until, pod.ended)
    return until - since


def _ended_by_itself(history: History, pod: Pod, trial: Trial) -> bool:
    """Whether its end is what fenced it: not its result, nor the end of the study, from when on nothing is counted."""
    states = (v for v in history.versions or () if v.index == pod.trial and (v.finished or v.attempt > pod.attempt))
    if fencing := next(states, None):
        return fencing.status.state in ("Pending", "Failed")
    return trial.finished or pod.attempt < trial.attempt


def faults(history: History) -> Iterator[Violation]:
    """What the infrastructure did fails no trial, unless it did so too often in a row, and changes no value.

    The latter where it is known how all went without it.
    """
    for trial in history.trials:
        why = trial.status.message.split(":")[0] if trial.status.state == "Failed" else ""
        exhausted = trial.status.retries > history.study.spec.limits.retries  # as that is the last thing to happen
        if why in INFRASTRUCTURE or (why == RETRIES_EXHAUSTED) != exhausted:
            state = f"{trial.status.state}: {trial.status.message}"
            yield Violation("faults", trial.index, f"after {trial.status.retries} retries in a row it is {state}")
        disturbed = [pod for pod in history.pods or () if _was_disturbed(pod, trial)]
        if why in BY_ITSELF and disturbed:
            yield Violation("faults", trial.index, f"it failed for {trial.status.message}, and was {disturbed}")
    if history.undisturbed is not None:
        here, there = (
            {(t.index, r.budget): r.value for t in trials for r in t.status.rungs}
            for trials in (history.trials, history.undisturbed)
        )
        for place in sorted(here.keys() | there.keys()):
            if place not in here or place not in there or here[place] != there[place]:
                yield Violation("faults", place[0], f"rung {place[1]}: {here.get(place)}, else {there.get(place)}")


def _was_disturbed(pod: Pod, trial: Trial) -> bool:
    """Whether the trial's last attempt ended only after it was disturbed: it was not the configuration's doing."""
    if (pod.trial, pod.attempt) != (trial.index, trial.attempt) or pod.disturbed is None or pod.ended is None:
        return False
    return pod.disturbed + AT_ONCE < pod.ended


def _at_once(before: Pod, after: Pod) -> bool:
    """Whether the one before was still believed when the next one came, which is believed from then on."""
    if after.created:
        return not 0 < before.superseded < after.created
    return after.began < before.believed_until


def _still_counted(history: History, pod: Pod, after: Pod) -> str:
    """What was believed of a Pod although another got its number after it; nothing where nothing was."""
    until = after.began + history.precision
    if (pod.ended is not None and pod.ended > until) or 0 < after.created < pod.gone:
        return f"{pod} had not ended"
    accepted = [report for report in history.accepted or () if report.uid == pod.uid]
    if late := [report for report in accepted if report.at >= until]:
        return f"{late} were accepted of {pod}"
    for trial in (*(history.versions or ()), *history.trials):
        results = [result for result in trial.status.rungs for report in accepted if _is(report, result)]
        saved = trial.status.checkpoint is not None and trial.status.checkpoint.pod == pod.uid
        if trial.index == pod.trial and (results or saved):
            return f"{results or trial.status.checkpoint} of {pod} was stored"
    return ""


def _by_trial(history: History) -> dict[int, list[Pod]]:
    found = defaultdict[int, list[Pod]](list)
    for pod in history.pods or ():
        found[pod.trial].append(pod)
    return found
