"""Rules about trials that `median` and `patience` stop at a report; results in order do not matter to either."""

import math
from collections.abc import Iterator

from halvard.scheduler_spec import Median, Patience
from halvard.trial import Trial
from history.records import History, Violation

Course = list[tuple[int, float]]  # (step, score) of the reports that counted, lower is better, infinity: not finite


def stopping(history: History) -> Iterator[Violation]:
    """Whoever was stopped had to be, at its last report; of the others none had to be at any.

    Exact with `patience`. With `median` it is not known who had come how far: if it is worse than the median of some,
    then at least half as many as must be compared have a better average.
    """
    scheduler = history.study.spec.scheduler
    rule = scheduler.median or scheduler.patience
    courses = {trial.index: _course(history, trial) for trial in history.trials}
    for trial in history.trials:
        course, stopped = courses[trial.index], trial.status.message.startswith("stopped: ")
        if rule is None or not course:
            if stopped:
                yield Violation("stopping", trial.index, f"it was stopped without a report: {trial.status.message}")
            continue
        decided = [step for step, _ in course if rule.grace <= step < rule.budget and step % rule.interval == 0]
        if stopped and course[-1][0] not in decided:
            yield Violation("stopping", trial.index, f"it was stopped at {course[-1][0]}, before grace or in between")
        for step in decided:
            last, before = stopped and step == course[-1][0], [point for point in course if point[0] <= step]
            if isinstance(rule, Patience):
                had_to, might = (_levelled_off(before, rule),) * 2
            else:
                others = [other for index, other in courses.items() if index != trial.index]
                had_to, might = before[-1][1] == math.inf, _below_median(before, others, rule)
            if (last and not (had_to or might)) or (had_to and not last):
                verb = "was" if last else "was not"
                yield Violation("stopping", trial.index, f"it {verb} stopped at step {step} after {before}")


def _course(history: History, trial: Trial) -> Course:
    sign = 1 if history.study.spec.objective.goal == "minimize" else -1
    return [(p.step, math.inf if p.value is None else sign * p.value) for p in trial.status.curve]


def _levelled_off(course: Course, patience: Patience) -> bool:
    """Whether nothing was better by more than minDelta than what was last so, for `patience` units of budget."""
    best, since = math.inf, 0
    for step, score in course:
        if best - score > patience.min_delta:
            best, since = score, step
    return course[-1][0] - since >= patience.patience


def _below_median(course: Course, others: list[Course], median: Median) -> bool:
    """Whether a median of the averages of some others, up to this step, can be better than its best value."""
    step, best = course[-1][0], min(score for _, score in course)
    reached = [[score for s, score in other if s <= step] for other in others if other and other[-1][0] >= step]
    averages = [sum(scores) / len(scores) for scores in reached if scores]
    better = sum(average < best for average in averages)
    return len(averages) >= median.trials and 2 * better >= median.trials
