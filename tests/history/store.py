"""Rules about what was stored, in the order of the store: each is held where its records are given."""

from collections import defaultdict
from collections.abc import Iterator

from halvard.trial import Trial
from history.records import History, Violation, life


def versions(history: History) -> Iterator[Violation]:
    """Budgets and attempts never shrink, results stay, the end of a trial is final."""
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
            yield Violation("versions", trial.index, f"{before} became {trial}")
    for trial in history.trials if history.versions is not None else ():
        last = latest.get(trial.index)
        if last is None or (last.spec, last.status) != (trial.spec, trial.status):
            yield Violation("versions", trial.index, f"it is {trial}, and was last stored as {last}")


def prefix(history: History) -> Iterator[Violation]:
    """Whatever happened is stored before what came after it, so that at any moment a restart finds all it rests on."""
    known = set[int]()
    for trial in history.versions or ():
        new = {event.order for event in life(trial)} - known
        known |= new
        if new and max(new) > len(known):
            missing = sorted(set(range(1, max(new))) - known)
            yield Violation("prefix", trial.index, f"{sorted(new)} were stored when {missing} were not")


def decided(history: History) -> Iterator[Violation]:
    """A Pod is created for an attempt that was stored before, is the trial's latest, and has a budget to train for."""
    if history.versions is None:
        return
    lives = defaultdict[int, list[Trial]](list)
    for trial in history.versions:
        lives[trial.index].append(trial)
    for pod in history.pods or ():
        earlier = [trial for trial in lives[pod.trial] if trial.version and int(trial.version) < pod.created]
        if pod.created and not (earlier and earlier[-1].assigned and earlier[-1].attempt == pod.attempt):
            yield Violation("decided", pod.trial, f"{pod} was created when {earlier[-1:]} was stored")


def quiet(history: History) -> Iterator[Violation]:
    """No write stores what is stored already, and where nothing is left to do, there is none."""
    writes = history.writes or ()
    for number, write in enumerate(writes):
        if not write.changed:
            before = next((each for each in reversed(writes[:number]) if each.what == write.what), None)
            yield Violation("idle", None, f"{write} changed nothing after {before}")
    for what in history.quiet or ():
        yield Violation("quiet", None, f"nothing was left to do, and an operator wrote: {what}")


def leading(history: History) -> Iterator[Violation]:
    """Who writes is named by the Lease at that moment, as far as writers can be told apart and that is known."""
    if history.leases is None:
        return
    names = defaultdict[str, set[str]](set)  # by which a writer has called itself
    for lease in history.leases:
        if lease.holder:
            names[lease.by].add(lease.holder)
    for write in history.writes or ():
        before = [lease for lease in history.leases if lease.place < write.place]
        if before and before[-1].holder not in names[write.by]:
            yield Violation("leading", None, f"{write} was made after {before[-1]}, by one of {names[write.by]}")
