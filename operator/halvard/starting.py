"""Which legs start now: those that are due, as far as there is room, and unless all are held up.

Pure, but for advancing `Progress`.
"""

from collections.abc import Iterator

from halvard.plan import StartLeg
from halvard.progress import Live, Progress

LOOK_AHEAD = 4  # attempts of a study that wait for a place to run in, however large its parallelism


def start(progress: Progress, now: float) -> list[StartLeg]:
    """Give attempts to assigned trials that have none, the highest budgets first, as far as there is room."""
    block, due = progress.block, waiting(progress, now)
    if block and now < block.until and not block.probing:
        return []
    breaker = progress.breaker_open
    if not due:
        progress.block = block if breaker else None
        return []
    free = room(progress)
    if block and free > 0:
        block.probe(now)
        free = 1
    trials = progress.trials  # a breaker tries another one each time
    due.sort(key=lambda i: (trials[i].status.faults if breaker else 0, -trials[i].spec.budget, i))
    return [_start(progress, index, now) for index in due[: max(0, free)]]


def _start(progress: Progress, index: int, now: float) -> StartLeg:
    trial, avoid = progress.trials[index], progress.nodes.avoided_by(index, now)
    if progress.breaker_open and not _choosy(progress):
        avoid = progress.nodes.paused(index, now)  # there may be another node that nobody knows; one looks for it
    progress.retry_at.pop(index, None)
    progress.live[index] = Live(avoids=avoid)
    return StartLeg(trial, trial.status.checkpoint if progress.resumable else None, avoid)


def waiting(progress: Progress, now: float) -> list[int]:
    """Assigned trials whose leg is due and has no attempt."""
    live, retry_at = progress.live, progress.retry_at
    return [i for i in progress.assigned if i not in live and retry_at.get(i, 0.0) <= now]


def room(progress: Progress) -> int:
    """How many more attempts there may be."""
    return min(progress.study.spec.parallelism - len(progress.live), unqueued(progress))


def unqueued(progress: Progress) -> int:
    """How many more attempts may wait for a place to run in."""
    live = progress.live
    return LOOK_AHEAD - sum(not live[i].placed for i in progress.assigned if i in live)


def confined(progress: Progress, now: float) -> list[int]:
    """Attempts that wait and avoid nodes that they need not any more: nobody can tell their Pods."""
    needed = progress.nodes.paused if progress.breaker_open else progress.nodes.avoided_by
    return [index for index, avoids in _choosy(progress).items() if not {*avoids} <= {*needed(index, now)}]


def _choosy(progress: Progress) -> dict[int, tuple[str, ...]]:
    """What attempts avoid that wait and avoid something, by trial."""
    return {index: live.avoids for index, live in progress.live.items() if live.avoids and not live.placed}


def times(progress: Progress, now: float) -> Iterator[float]:
    """When to look again: what is due already waits for room, and what makes room is an event."""
    yield from (at for index, at in progress.retry_at.items() if index in progress.assigned and at > now)
    if _choosy(progress):
        yield from progress.nodes.changes(now)
    block = progress.block
    if block and room(progress) > 0 and (waiting(progress, now) or not block.breaker):
        yield now if block.probing else block.until
