"""Rules about attempts, what was believed of them, and what was stored: each is held where its records are given."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise

from halvard.faults import INFRASTRUCTURE
from halvard.trial import Trial
from history.records import History, Pod, Violation

ROUNDING = 0.001  # seconds: results and what was lost are stored to a thousandth


def attempts(history: History) -> Iterator[Violation]:
    """Numbers only rise, none is used for two Pods, and a trial has one Pod at a time that is believed."""
    for trial in history.trials:
        given = [result.attempt for result in trial.status.rungs]
        if sorted(given) != given or (given and given[-1] > trial.attempt) or trial.status.faults >= trial.attempt:
            yield Violation(
                "attempts",
                trial.index,
                f"attempt {trial.attempt} after {trial.status.faults} faults; results by {given}",
            )
    for what, times in Counter([(pod.trial, pod.attempt) for pod in history.pods or ()]).items():
        if times > 1:
            yield Violation("attempts", what[0], f"attempt {what[1]} had {times} Pods")
    for trial_index, own in _by_trial(history).items():
        for before, after in pairwise(sorted(own, key=lambda pod: pod.began)):
            if before.attempt > after.attempt:
                yield Violation("attempts", trial_index, f"attempt {before.attempt} began before {after.attempt}")
            elif before.attempt < after.attempt and after.began < before.believed_until:
                yield Violation("believed", trial_index, f"{before} and {after} were believed at once")


def reports(history: History) -> Iterator[Violation]:
    """A report that was accepted is of its trial's Pod, from while that was believed; so is each result."""
    if history.pods is None or history.accepted is None:
        return
    pods = {pod.uid: pod for pod in history.pods}
    taken = set[tuple[int, int, int]]()
    for report in history.accepted:
        pod = pods.get(report.uid)
        if pod is None or pod.trial != report.trial or not pod.began <= report.at <= pod.believed_until:
            yield Violation("reports", report.trial, f"{report} was accepted of {pod}")
        else:
            taken.add((pod.trial, pod.attempt, report.step))
    for trial in history.trials:
        for result in trial.status.rungs:
            if (trial.index, result.attempt, result.step) not in taken:
                yield Violation("reports", trial.index, f"nobody reported {result}")


def time(history: History) -> Iterator[Violation]:
    """The seconds and GPU-seconds of a trial are those of its Pods, each from its start until it was not believed.

    A Pod that nobody saw end counts for any part of that.
    """
    if history.pods is None:
        return
    by_trial = _by_trial(history)
    for trial in history.trials:
        own, status = by_trial.get(trial.index, []), trial.status
        stored = sum(result.seconds for result in status.rungs) + status.lost.seconds
        on_gpus = sum(result.gpu_seconds for result in status.rungs) + status.lost.gpu_seconds
        for what, spent, weights in (
            ("seconds", stored, [1.0] * len(own)),
            ("GPU-seconds", on_gpus, [pod.gpus for pod in own]),
        ):
            spans = [
                weight * max(0.0, pod.believed_until - pod.began) for pod, weight in zip(own, weights, strict=True)
            ]
            least = sum(span for pod, span in zip(own, spans, strict=True) if pod.ended is not None)
            slack = ROUNDING * (1 + len(status.rungs) + len(own)) * max([1.0, *weights])
            if not least - slack <= spent <= sum(spans) + slack:
                yield Violation(
                    "time", trial.index, f"{spent} {what} are stored; its Pods took {least} to {sum(spans)}"
                )


def faults(history: History) -> Iterator[Violation]:
    """What the infrastructure did fails no trial and, where it is known how all went without, changes no value."""
    for trial in history.trials:
        if trial.status.state == "Failed" and trial.status.message.split(":")[0] in INFRASTRUCTURE:
            yield Violation("faults", trial.index, f"it failed for {trial.status.message}")
    if history.undisturbed is not None:
        here, there = (
            {(t.index, r.budget): r.value for t in trials for r in t.status.rungs}
            for trials in (history.trials, history.undisturbed)
        )
        for place in sorted(here.keys() | there.keys()):
            if place not in here or place not in there or here[place] != there[place]:
                yield Violation("faults", place[0], f"rung {place[1]}: {here.get(place)}, else {there.get(place)}")


def writes(history: History) -> Iterator[Violation]:
    """Budgets and attempts never shrink, results stay, the end of a trial is final; restarted, nothing is written."""
    latest = dict[int, Trial]()
    for trial in history.versions or ():
        before = latest.get(trial.index)
        latest[trial.index] = trial
        if before is None:
            continue
        old, new = before.status, trial.status
        shrunk = trial.spec.budget < before.spec.budget or new.attempt < old.attempt
        changed = new.rungs[: len(old.rungs)] != old.rungs or trial.spec.parameters != before.spec.parameters
        if shrunk or changed or (before.finished and new != old):
            yield Violation("writes", trial.index, f"{before} became {trial}")
    for trial in history.trials if history.versions is not None else ():
        last = latest.get(trial.index)
        if last is None or (last.spec, last.status) != (trial.spec, trial.status):
            yield Violation("writes", trial.index, f"it is {trial}, and was last stored as {last}")
    for write in history.quiet or ():
        yield Violation("quiet", None, f"an operator that was started again wrote: {write}")


def _by_trial(history: History) -> dict[int, list[Pod]]:
    found = defaultdict[int, list[Pod]](list)
    for pod in history.pods or ():
        found[pod.trial].append(pod)
    return found
