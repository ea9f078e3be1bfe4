"""The budgets and sizes of successive halving in exact integers: floating logarithms lose a rung at R = 243."""


def rungs(min_budget: int, max_budget: int, reduction_factor: int) -> tuple[int, ...]:
    """Returns the budgets min * eta^k below max, then max itself: exact integers, strictly increasing.

    Raises ValueError where the three make no ladder.
    """
    _check(min_budget, max_budget, reduction_factor)
    budgets = []
    budget = min_budget
    while budget < max_budget:
        budgets.append(budget)
        budget *= reduction_factor
    return (*budgets, max_budget)


def rungs_from_the_top(min_budget: int, max_budget: int, reduction_factor: int) -> tuple[int, ...]:
    """Returns Hyperband's budgets: max / eta^k, rounded down, from the lowest that is not below min up to max.

    Raises ValueError where the three make no ladder.
    """
    _check(min_budget, max_budget, reduction_factor)
    budgets = []
    budget = max_budget
    while budget >= min_budget:
        budgets.append(budget)
        budget //= reduction_factor
    return tuple(reversed(budgets))


def bracket_sizes(count: int, reduction_factor: int) -> tuple[int, ...]:
    """Returns how many trials begin in each of Hyperband's `count` brackets (s_max + 1), s_max first.

    That is n = ceil((s_max + 1) / (s + 1) * eta^s), Algorithm 1 of JMLR 18 (2018); bracket s has s + 1 rungs.
    """
    return tuple(-(-count * reduction_factor**s // (s + 1)) for s in reversed(range(count)))


def _check(min_budget: int, max_budget: int, reduction_factor: int) -> None:
    if min_budget < 1:
        raise ValueError(f"minBudget is {min_budget}: it must be at least 1")
    if max_budget < min_budget:
        raise ValueError(f"maxBudget is {max_budget}: it must be at least minBudget ({min_budget})")
    if reduction_factor < 2:  # noqa: PLR2004  # with 1 no budget would ever be reached
        raise ValueError(f"reductionFactor is {reduction_factor}: it must be at least 2")
