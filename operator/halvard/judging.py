"""How an attempt's end is judged: what it says of its trial, of its node, and of the whole study.

Pure, but for advancing `Progress`. `Ended.fault` says what happened to one Pod; here it is seen beside all others.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from halvard import lifecycle
from halvard.events import Ended, Event, Fault, Placed, Reported, Started
from halvard.faults import DISRUPTED, NODE_SUSPECT, POD_DELETED, POD_VANISHED, RETRIES_EXHAUSTED
from halvard.nodes import MANY
from halvard.progress import TOO_MANY_FAULTS, Block, Live, Progress
from halvard.trial import Trial

MOST_BARREN = 10  # attempts in a row that the infrastructure ended without a report from anywhere
FIRST_BREAK = 60.0
LONGEST_BACKOFF = 300.0
_TAKEN_AWAY = frozenset({DISRUPTED, POD_DELETED, POD_VANISHED})  # by somebody: that says nothing of the node


@dataclass(frozen=True, slots=True)
class Judgement:
    """The fault as it is to be seen, and its trial with it; `warnings` for people: each a reason and a message."""

    trial: Trial
    fault: Fault
    warnings: tuple[tuple[str, str], ...] = ()


def judge(progress: Progress, trial: Trial, live: Live, event: Ended, now: float) -> Judgement:
    """Learn from the end of an attempt that has no result, and return what to make of it."""
    fault, warnings = _by_policy(progress, event.fault), list[tuple[str, str]]()
    if not live.step and not _has_reported(trial, event.attempt):
        event = replace(event, at=now, node=event.node or live.node)
        fault = _barren(progress, trial, event, fault, warnings)
    judgement = Judgement(trial, fault) if fault.counted else retried(progress, trial, fault)
    return replace(judgement, warnings=tuple(warnings))


def retried(progress: Progress, trial: Trial, fault: Fault) -> Judgement:
    """Return what becomes of a trial for which it is once more in a row: its leg runs again, or there were too many.

    Nothing is counted while no trial of the study comes any further.
    """
    if not progress.breaker_open:
        trial = lifecycle.retried(trial)
    retries = trial.status.retries
    if retries > progress.study.spec.limits.retries:
        message = f"{retries} times in a row without progress, the last: {lifecycle.describe(fault)}"
        fault = Fault(RETRIES_EXHAUSTED, message, counted=True)
    return Judgement(trial, fault)


def back_off(trial: Trial) -> float:
    """How many seconds its leg waits until it runs again: 1, 2, 4, ..."""
    return min(LONGEST_BACKOFF, 2.0 ** min(max(trial.status.retries - 1, 0), 10))


def recall(progress: Progress, events: Sequence[Event], now: float) -> None:
    """Learn after a fold from the attempts that had ended before it, and whose trials have moved on.

    `events` are all that the Pods have to say. What nobody stored is not learnt: when running attempts last reported.
    """
    reported = {(event.trial, event.attempt) for event in events if isinstance(event, Reported)}
    reported |= {(i, result.attempt) for i, trial in progress.trials.items() for result in trial.status.rungs}
    for event in events:
        if isinstance(event, Placed | Started):
            progress.nodes.seen(event.node)
            if (event.trial, event.attempt) in reported:
                progress.nodes.reported(event.node)
    ended = sorted((event for event in events if isinstance(event, Ended)), key=lambda event: event.at)
    results = (result.at.timestamp() for trial in progress.trials.values() for result in trial.status.rungs)
    heard = max((*results, *(event.at for event in ended if (event.trial, event.attempt) in reported)), default=0.0)
    for event in ended:
        trial = progress.trials.get(event.trial)
        if trial is None or (event.attempt == trial.attempt and not trial.finished):
            continue  # it is judged when its turn comes
        event = replace(event, at=min(event.at, now))  # noqa: PLW2901  # a node's clock may be ahead
        if (event.trial, event.attempt) in reported or _has_reported(trial, event.attempt):
            progress.nodes.reported(event.node)
        else:
            _recall_barren(progress, trial, event, heard)
        waits = trial.assigned and trial.index not in progress.live
        if waits and trial.status.retries and event.attempt == trial.attempt - 1:
            progress.retry_at[trial.index] = event.at + back_off(trial)
    block = progress.block
    if block and progress.live and now >= block.until:
        block.probe(now)  # it was tried already: here it is


def _recall_barren(progress: Progress, trial: Trial, event: Ended, heard: float) -> None:
    fault = _by_policy(progress, event.fault)
    if event.fault.reason not in _TAKEN_AWAY:
        progress.nodes.ended(event.node, trial.index, event.at)
    if fault.counted and event.attempt < trial.attempt:  # it ran again all the same
        progress.nodes.pardons[trial.index] = event.attempt
    if not fault.counted and event.at > heard and fault.reason != POD_DELETED:  # or Halvard did that
        _infrastructure_failed(progress, trial, fault, event.at)


def _barren(progress: Progress, trial: Trial, event: Ended, fault: Fault, warnings: list[tuple[str, str]]) -> Fault:
    """It ended before it could report: its node may be to blame, or all of the infrastructure."""
    nodes, node = progress.nodes, event.node
    first = nodes.pardons.get(trial.index, 0) <= max((result.attempt for result in trial.status.rungs), default=0)
    by_user = fault is not event.fault
    suspect = fault.counted and first and not by_user and nodes.suspect(node, trial.index)
    if fault.reason not in _TAKEN_AWAY and (seconds := nodes.ended(node, trial.index, event.at)):
        what = f"the last {MANY} trials there ended without a report, {trial.name} with {lifecycle.describe(fault)}"
        warnings.append(("NodeAvoided", f"{node} is avoided for {seconds / 60:.0f} min: {what}"))
    if suspect:
        nodes.pardons[trial.index] = event.attempt
        return Fault(NODE_SUSPECT, f"{node} may be to blame: {lifecycle.describe(fault)}", counted=False)
    if not fault.counted and (message := _infrastructure_failed(progress, trial, fault, event.at)):
        warnings.append((TOO_MANY_FAULTS, message))
    return fault


def _infrastructure_failed(progress: Progress, trial: Trial, fault: Fault, at: float) -> str:
    """Return why no further legs are started, where that begins now.

    One trial alone may have itself to blame, and has its own limit; two of them speak for all.
    """
    progress.barren.append(trial.index)
    number = len(progress.barren)
    if number < MOST_BARREN or len(set(progress.barren)) == 1:
        return ""
    last = f"the last was {trial.name}: {lifecycle.describe(fault)}"
    message = f"{number} attempts in a row ended before they could report; {last}"
    block = progress.block
    if block is None or not block.breaker:
        progress.block = Block(TOO_MANY_FAULTS, message, until=at + FIRST_BREAK, delay=FIRST_BREAK)
        return message
    block.message = message
    if at >= block.until:
        block.probe(at)
    return ""


def _by_policy(progress: Progress, fault: Fault) -> Fault:
    policy = progress.study.spec.failure_policy
    return policy.judged(fault) if policy else fault


def _has_reported(trial: Trial, attempt: int) -> bool:
    """Whether something is stored that this attempt reported."""
    checkpoint = trial.status.checkpoint
    by = {result.attempt for result in trial.status.rungs} | ({checkpoint.attempt} if checkpoint else set())
    return attempt in by
