"""How an attempt's end is judged: what it says of its trial, of its node, and of the whole study.

Pure, but for advancing `Progress`. `Ended.fault` says what happened to one Pod; here it is seen beside all others.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from halvard import lifecycle
from halvard.events import Ended, Event, Fault, Placed, Reported, Started
from halvard.faults import DISRUPTED, NODE_SUSPECT, OOM_KILLED, POD_DELETED, POD_VANISHED, RETRIES_EXHAUSTED
from halvard.nodes import MANY, Fate, Leg
from halvard.progress import MOST_BARREN, TOO_MANY_FAULTS, Block, Live, Progress
from halvard.trial import Trial

FIRST_BREAK = 60.0
LONGEST_BACKOFF = 300.0
NODE_AVOIDED = "NodeAvoided"
_TAKEN_AWAY = frozenset({DISRUPTED, POD_DELETED, POD_VANISHED})  # by somebody: that says nothing of the node


@dataclass(frozen=True, slots=True)
class Judgement:
    """The fault as it is to be seen, and its trial with it; `warnings` for people: each a reason and a message."""

    trial: Trial
    fault: Fault
    warnings: tuple[tuple[str, str], ...] = ()


def judge(progress: Progress, trial: Trial, live: Live, event: Ended, now: float) -> Judgement:
    """Learn from the end of an attempt that has no result, and return what to make of it."""
    fault, avoided, held_up = _by_policy(progress, event.fault), "", ""
    event = replace(event, at=now, node=event.node or live.node)
    progress.placed(live, _leg(event), event.node)  # which nobody may have told
    if fault is event.fault and _left_with_an_error(trial, fault):
        fault = replace(fault, message=f"{fault.message}, after its result", counted=False)
    elif not live.step and not lifecycle.has_reported(trial, event.attempt):
        fault, avoided = _on_its_node(progress, trial, event, fault, "barren")
        if not fault.counted and fault.reason != NODE_SUSPECT:
            held_up = _infrastructure_failed(progress, trial, live, event, fault)
    elif fault.counted and fault is event.fault:  # not as the user wants it
        fault, avoided = _on_its_node(progress, trial, event, fault, "failed")
    judgement = Judgement(trial, fault) if fault.counted else retried(progress, trial, fault)
    warnings = ((reason, words) for reason, words in ((NODE_AVOIDED, avoided), (TOO_MANY_FAULTS, held_up)) if words)
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
    """Learn after a fold from all attempts that the Pods, by `events`, or results tell of, as they came and ended.

    What nobody stored is not learnt: when running attempts last reported.
    """
    reported = {_leg(event) for event in events if isinstance(event, Reported)}
    lives = {(index, progress.trials[index].attempt): live for index, live in progress.live.items()}
    for event in _story(progress, events, now):
        leg, trial = _leg(event), progress.trials.get(event.trial)
        if trial is None:
            continue
        live = lives.setdefault(leg, Live())
        progress.placed(live, leg, event.node)
        known = leg in reported or lifecycle.has_reported(trial, event.attempt)
        if known:
            progress.heard(live, leg)
        if isinstance(event, Ended) and (event.attempt != trial.attempt or trial.finished):  # else its turn comes
            _recall_end(progress, trial, live, event, barren=not known)
    block, latest = progress.block, max((number for number, _ in progress.barren), default=0)
    if block and now >= block.until and any(live.number > latest for live in progress.live.values()):
        block.probe(now)  # one more was tried already: here it is


def _story(progress: Progress, events: Sequence[Event], now: float) -> list[Placed | Started | Ended]:
    """When each attempt got its place, and when it ended."""
    ends = {_leg(event): replace(event, at=min(event.at, now)) for event in events if isinstance(event, Ended)}
    starts = sorted((event for event in events if isinstance(event, Started)), key=lambda event: bool(event.node))
    began = {_leg(event): event for event in starts}  # a kubelet knows better than a sidecar
    for trial in progress.trials.values():
        for result in trial.status.rungs:  # its Pod may be gone
            at = result.at.timestamp() - result.seconds
            began.setdefault((trial.index, result.attempt), Started(trial.index, result.attempt, at))
    waited = [event for event in events if isinstance(event, Placed) and _leg(event) not in began]
    story: list[tuple[float, bool, Placed | Started | Ended]] = []  # who has ended has come, if only then
    story += [(min(event.at, now), False, event) for event in began.values()]
    story += [(ends[_leg(event)].at if _leg(event) in ends else now, False, event) for event in waited]
    story += [(event.at, True, event) for event in ends.values()]
    return [event for *_, event in sorted(story, key=lambda each: each[:2])]


def _recall_end(progress: Progress, trial: Trial, live: Live, event: Ended, *, barren: bool) -> None:
    fault = _by_policy(progress, event.fault)
    ran_again = event.attempt < trial.attempt
    results = {result.attempt for result in trial.status.rungs}
    failed = fault.counted and fault is event.fault and event.attempt not in results
    if barren or (failed and (ran_again or trial.status.state == "Failed")):
        if fault.reason not in _TAKEN_AWAY:
            progress.nodes.ended(event.node, _leg(event), event.at, "barren" if barren else "failed")
        if fault.counted and ran_again:
            progress.nodes.pardons[trial.index] = event.attempt, event.node
    if barren and not fault.counted and fault.reason != POD_DELETED:  # or Halvard did that
        _infrastructure_failed(progress, trial, live, event, fault)
    waits = trial.assigned and trial.index not in progress.live
    if waits and trial.status.retries and event.attempt == trial.attempt - 1:
        progress.retry_at[trial.index] = event.at + back_off(trial)


def _on_its_node(progress: Progress, trial: Trial, event: Ended, fault: Fault, fate: Fate) -> tuple[Fault, str]:
    """What to make of a fault where its node may be to blame, and why all are to avoid that where this begins now."""
    nodes, node = progress.nodes, event.node
    attempt, blamed = nodes.pardons.get(trial.index, (0, ""))
    first = attempt <= max((result.attempt for result in trial.status.rungs), default=0)  # of this leg
    counts = fault.counted and fault is event.fault and (first or blamed == node)
    suspect = counts and nodes.suspect(node, trial.index, event.at, fate)
    avoided = ""
    if fault.reason not in _TAKEN_AWAY and (seconds := nodes.ended(node, _leg(event), event.at, fate)):
        barren = f"the last {MANY} trials there ended without a report"
        what = barren if fate == "barren" else "more trials fail there than elsewhere"
        why = f"{what}, {trial.name} with {lifecycle.describe(fault)}"
        avoided = f"{node} is avoided for {seconds / 60:.0f} min: {why}"
    if suspect:
        nodes.pardons[trial.index] = event.attempt, node
        fault = Fault(NODE_SUSPECT, f"{node} may be to blame: {lifecycle.describe(fault)}", counted=False)
    return fault, avoided


def _infrastructure_failed(progress: Progress, trial: Trial, live: Live, event: Ended, fault: Fault) -> str:
    """Return why no further legs are started, where that begins now.

    One trial alone may have itself to blame, and has its own limit; two of them speak for all. A node that is avoided
    while another is not speaks for itself.
    """
    if not progress.breaker_open and event.node in progress.nodes.avoided(event.at):
        return ""
    progress.barren.append((live.number, trial.index))
    number = len(progress.barren)
    if number < MOST_BARREN or len({index for _, index in progress.barren}) == 1:
        return ""
    last = f"the last was {trial.name}: {lifecycle.describe(fault)}"
    message = f"{number} attempts in a row ended before they could report; {last}"
    block = progress.block
    if block is None or not block.breaker:
        progress.block = Block(TOO_MANY_FAULTS, message, until=event.at + FIRST_BREAK, delay=FIRST_BREAK)
        return message
    block.message = message
    if event.at >= block.until:
        block.probe(event.at)
    return ""


def _left_with_an_error(trial: Trial, fault: Fault) -> bool:
    """Whether it may have failed on its way out, after its result, and before it could hear that it was promoted.

    As one that left in peace, it is let off once: the next attempt did not make that result.
    """
    by_itself = fault.exit_code is not None and fault.reason != OOM_KILLED
    return by_itself and lifecycle.did_nothing_more(trial)


def _by_policy(progress: Progress, fault: Fault) -> Fault:
    policy = progress.study.spec.failure_policy
    return policy.judged(fault) if policy else fault


def _leg(event: Event) -> Leg:
    return event.trial, event.attempt
