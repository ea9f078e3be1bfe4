"""Rules about orders, the life of each trial, and how many there are at a time: no scheduler is looked at."""

from collections import Counter
from collections.abc import Iterator
from itertools import accumulate, pairwise

from halvard.scheduler_spec import Scheduler
from halvard.trial import Trial
from history.records import Decided, History, Result, Violation, Withdrawn, life, timeline


def orders(history: History) -> Iterator[Violation]:
    """All that happened has a place of its own, without a gap from 1 on; in each trial's life they only rise."""
    given = Counter(event.order for event in timeline(history.trials))
    missing = sorted(set(range(1, given.total() + 1)) - set(given))
    if missing:
        twice = sorted(order for order, times in given.items() if times > 1)
        yield Violation("orders", None, f"{given.total()} things happened; {missing} are missing, {twice} given twice")
    for trial in history.trials:
        for before, after in pairwise(life(trial)):
            if before.order >= after.order:
                yield Violation("sequence", trial.index, f"{after} came after {before}, but its order does not")


def rungs(history: History) -> Iterator[Violation]:
    """Each trial climbs the ladder rung by rung from its own first one, and completes each once, at its budget."""
    budgets = ladder(history.study.spec.scheduler)
    for trial in history.trials:
        climbed = [result.budget for result in trial.status.rungs]
        pending = [trial.spec.budget] if climbed[-1:] != [trial.spec.budget] else []
        first = lowest_rung(history, trial)
        for budget, times in Counter(climbed).items():
            if times > 1:
                yield Violation("once", trial.index, f"rung {budget} was completed {times} times")
        if list(dict.fromkeys([*climbed, *pending])) != budgets[first : first + len(set(climbed)) + len(pending)]:
            yield Violation("rungs", trial.index, f"it went {climbed}, then {pending}; the ladder is {budgets[first:]}")
        for result in trial.status.rungs:
            if result.step < result.budget:
                yield Violation("rungs", trial.index, f"step {result.step} completed rung {result.budget}")


def brackets(history: History) -> Iterator[Violation]:
    """A trial is in a bracket that the study has, and with Hyperband in the one that its index says."""
    for trial in history.trials:
        count = asha.brackets if (asha := history.study.spec.scheduler.asha) else 1
        right = range(count)
        if history.study.spec.scheduler.hyperband:
            number = hyperband_bracket(history.study.spec.scheduler, trial.index)[0]
            right = range(number, number + 1)
        # the scheduler of Hyperband derives the bracket and stores it all the same
        if trial.spec.bracket not in right:
            yield Violation("brackets", trial.index, f"it is in bracket {trial.spec.bracket}, not in one of {right}")


def states(history: History) -> Iterator[Violation]:
    """A trial's state is what its results say."""
    top = ladder(history.study.spec.scheduler)[-1]
    for trial in history.trials:
        state, done, order = trial.status.state, trial.done, trial.status.order
        pending = trial.spec.budget > done
        where = f"it is {state}, trained until {done}, its budget {trial.spec.budget}, its order {order}"
        right = {
            "Complete": done == top and not pending,
            "Paused": bool(done) and done < top and not (pending and history.over),
            "Failed": pending,
            "Stopped": pending,
            "Running": not history.over,
            "Pending": not history.over,
        }
        if not right[state] or (order > 0) != (state in ("Failed", "Stopped")):
            yield Violation("states", trial.index, where)


def numbers(history: History) -> Iterator[Violation]:
    """Trials are numbered from 0 in the order in which they began, and `limits.trials` holds."""
    begun = [event.trial for event in timeline(history.trials) if isinstance(event, Decided) and not event.start]
    if begun != list(range(len(history.trials))):
        yield Violation("numbers", None, f"trials began in the order {begun}")
    limit = history.study.spec.limits.trials if history.limit is None else history.limit
    if limit is not None and len(begun) > limit:
        yield Violation("limit", None, f"there are {len(begun)} trials; limits.trials is {limit}")


def parallelism(history: History) -> Iterator[Violation]:
    """No more trials than `parallelism` have a leg at a time."""
    allowed = history.study.spec.parallelism if history.parallelism is None else history.parallelism
    events, assigned = timeline(history.trials), set[int]()
    for event in events:
        match event:
            case Decided():
                assigned.add(event.trial)
            case Result() | Withdrawn():
                assigned.discard(event.trial)
        if len(assigned) > allowed:
            yield Violation(
                "parallelism", event.trial, f"{len(assigned)} had a leg at {event.order}; {allowed} may have one"
            )


# --- the ladders of the papers, counted anew


def ladder(scheduler: Scheduler) -> list[int]:
    """The budgets of all rungs, the lowest first."""
    if halving := scheduler.asha or scheduler.adaptive:
        low, high, eta = halving.min_budget, halving.max_budget, halving.reduction_factor
        return [*(low * eta**k for k in range(64) if low * eta**k < high), high]
    if hyperband := scheduler.hyperband:
        low, high, eta = hyperband.min_budget, hyperband.max_budget, hyperband.reduction_factor
        return [high // eta**k for k in reversed(range(64)) if high // eta**k >= low]
    full = scheduler.median or scheduler.patience or scheduler.none
    assert full is not None, "a study has a scheduler"
    return [full.budget]


def hyperband_bracket(scheduler: Scheduler, index: int) -> tuple[int, int, int, int]:
    """The number of the trial's bracket, how many rungs it leaves out, its size n, and the index behind its last trial.

    Algorithm 1 of Hyperband (JMLR 18, 2018): n = ceil((s_max + 1) / (s + 1) * eta^s), s from s_max down to 0.
    """
    assert scheduler.hyperband is not None
    eta, count = scheduler.hyperband.reduction_factor, len(ladder(scheduler))
    sizes = [-(-count * eta**s // (s + 1)) for s in range(count - 1, -1, -1)]
    cycle, rest = divmod(index, sum(sizes))
    ends = list(accumulate(sizes))
    skipped = next(place for place, end in enumerate(ends) if rest < end)
    return cycle * count + skipped, skipped, sizes[skipped], cycle * sum(sizes) + ends[skipped]


def lowest_rung(history: History, trial: Trial) -> int:
    """Which rung of the ladder is the trial's first."""
    scheduler = history.study.spec.scheduler
    if scheduler.hyperband:
        return hyperband_bracket(scheduler, trial.index)[1]
    return trial.spec.bracket
