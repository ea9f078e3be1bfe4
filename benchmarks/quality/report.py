"""Tables of what the runs say: for each condition how long it takes, and how many times as long as the reference."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from benchmarks.quality.policies import POLICIES, REFERENCE, Policy
from benchmarks.quality.problem import TOP, TOPS, Condition, Problem
from benchmarks.quality.runs import Run, Store, Task, version
from benchmarks.quality.summary import Mean, Ratio, Reached, geometric_mean, mean, paired, pooled, reached
from benchmarks.results import Table

NONE = "-"


@dataclass(frozen=True, slots=True)
class Cell:
    """The runs of one policy on one table under one condition, by seed."""

    runs: Mapping[int, Run]
    reached: Mapping[int, Reached]

    @property
    def time(self) -> Mean:
        return mean([each.at for each in self.reached.values()], [each.missed for each in self.reached.values()])

    @property
    def busy(self) -> float:
        return fmean(each.busy for each in self.reached.values())

    def beside(self, other: "Cell") -> Ratio | None:
        one, two = ({seed: each.at for seed, each in cell.reached.items()} for cell in (self, other))
        return paired(one, two)


Cells = Mapping[tuple[Condition, str, str], Cell]
"""By condition, policy and table."""


def gather(tasks: Sequence[Task], store: Store) -> Cells:
    """Returns what the store holds of these; a cell without a run is missing."""
    runs: dict[tuple[Condition, str, str], dict[int, Run]] = {}
    problems = {task.problem.name: task.problem for task in tasks}
    for task in tasks:
        if made := store.runs.get(task.key):
            runs.setdefault((task.condition, task.policy.name, task.problem.name), {})[task.seed] = made
    return {
        (condition, policy, table): Cell(
            by_seed,
            {
                seed: reached(made, problems[table].target, condition.cap, condition.workers)
                for seed, made in by_seed.items()
            },
        )
        for (condition, policy, table), by_seed in runs.items()
    }


def tables(cells: Cells, problems: Sequence[Problem]) -> Iterator[Table]:
    """Yields all tables, those of a condition one after the other."""
    for condition in dict.fromkeys(condition for condition, _, _ in cells):
        yield _times(condition, cells, problems)
        if any((condition, REFERENCE, problem.name) in cells for problem in problems):
            yield _ratios(condition, cells, problems)
    yield _rivals(cells)


def _times(condition: Condition, cells: Cells, problems: Sequence[Problem]) -> Table:
    rows: list[tuple[float, tuple[str, ...]]] = []
    for policy in _present(cells, condition):
        found = [cells.get((condition, policy, problem.name)) for problem in problems]
        known = [cell for cell in found if cell]
        times = [str(cell.time) if cell else NONE for cell in found]
        overall = geometric_mean([cell.time.mean for cell in known]) if len(known) == len(found) else float("inf")
        work = f"{geometric_mean([cell.busy for cell in known]):.1f}" if len(known) == len(found) else NONE
        made = [run for cell in known for run in cell.runs.values()]
        counts = f"{fmean(run.begun for run in made):.0f} / {fmean(run.finished for run in made):.0f}"
        seconds = f"{fmean(run.seconds for run in made):.1f} s"
        total = f"{overall:.2f}" if len(known) == len(found) else NONE
        rows.append((overall, (policy, *times, total, work, counts, seconds)))
    return Table(
        f"{condition.title}: the time until a good trial is finished",
        (
            "policy",
            *(problem.name for problem in problems),
            "all tables",
            "worker time",
            "begun / finished",
            "computed",
        ),
        [row for _, row in sorted(rows, key=lambda each: each[0])],
        _seeds(cells, condition),
    )


def _ratios(condition: Condition, cells: Cells, problems: Sequence[Problem]) -> Table:
    rows: list[tuple[float, tuple[str, ...]]] = []
    for policy in _present(cells, condition):
        if policy == REFERENCE:
            continue
        ratios = []
        for problem in problems:
            one, other = (cells.get((condition, name, problem.name)) for name in (policy, REFERENCE))
            ratios.append(one.beside(other) if one and other else None)
        known = [ratio for ratio in ratios if ratio]
        total = pooled(known) if known and len(known) == len(ratios) else None
        cut = [str(ratio) if ratio else NONE for ratio in ratios]
        rows.append((total.ratio if total else float("inf"), (policy, *cut, str(total) if total else NONE)))
    return Table(
        f"{condition.title}: how many times as long as {REFERENCE}",
        ("policy", *(problem.name for problem in problems), "all tables"),
        [row for _, row in sorted(rows, key=lambda each: each[0])],
    )


def _rivals(cells: Cells) -> Table:
    present = {name for _, name, _ in cells}
    rows = [(policy.name, _version(policy), policy.fair) for policy in POLICIES if policy.name in present]
    return Table("Who takes part, and whether the comparison is fair to them", ("policy", "version", "fair?"), rows)


def _version(policy: Policy) -> str:
    return f"{policy.package} {version(policy.package)}"


def _present(cells: Cells, condition: Condition) -> list[str]:
    names = {name for known, name, _ in cells if known == condition}
    return [policy.name for policy in POLICIES if policy.name in names]


def _seeds(cells: Cells, condition: Condition) -> str:
    counts = [len(cell.runs) for key, cell in cells.items() if key[0] == condition]
    seeds = (
        f"{max(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)} (not all runs are made)"
    )
    return f"In R, the median full training of a table; {seeds} seeds; a run is cut off at {condition.cap:g} R."


def target_text(problems: Sequence[Problem]) -> str:
    """Says what counts as good on which table."""
    return ", ".join(
        f"{problem.name}: {problem.target:.4g} (the best {TOPS.get(problem.name, TOP):.0%} of {len(problem.table.u):,})"
        for problem in problems
    )
