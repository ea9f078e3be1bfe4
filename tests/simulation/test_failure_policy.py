"""What a user says about exit codes, in whole studies: some are passed over, some end everything."""

from typing import Any

import pytest

from halvard.events import Fault
from simulation.world import World, check_invariants, study


def exited(code: int) -> Fault:
    return Fault("NonZeroExit", f"the trainer exited with code {code}", counted=True, exit_code=code)


def policy(*rules: tuple[str, str, list[int]]) -> dict[str, Any]:
    return {
        "rules": [
            {"action": action, "onExitCodes": {"operator": operator, "values": values}}
            for action, operator, values in rules
        ]
    }


def fails_first(code: int, trials: set[int]) -> Any:
    """These trials' first attempts end with the code at their first step."""
    return lambda trial, attempt, _step: exited(code) if trial in trials and attempt == 1 else None


def test_an_exit_code_that_is_ignored_changes_no_result() -> None:
    spec = {"parallelism": 1, "limits": {"trials": 12}}
    ignoring = study(**spec, failurePolicy=policy(("Ignore", "In", [42])))
    calm = World(study(**spec)).run()
    rough = World(ignoring, fault=fails_first(42, {0, 4})).run()
    check_invariants(rough)
    assert rough.values() == calm.values()
    assert (rough.study.status.trials.failed, rough.stored[4].status.faults) == (0, 1)
    assert "failurePolicy: Ignore" in " ".join(each.message for each in rough.faults)


@pytest.mark.parametrize(
    ("rules", "failed"),
    [
        ([("Ignore", "In", [42])], 0),
        ([("Ignore", "In", [41])], 1),
        ([("Ignore", "NotIn", [1, 2])], 0),
        ([("Ignore", "NotIn", [42])], 1),
        ([("FailTrial", "In", [42]), ("Ignore", "In", [42])], 1),
        ([("FailTrial", "In", [41]), ("Ignore", "NotIn", [41])], 0),
    ],
)
def test_the_first_rule_that_matches_decides_and_without_one_the_trial_fails(rules: Any, failed: int) -> None:
    world = World(study(failurePolicy=policy(*rules)), fault=fails_first(42, {1})).run()
    assert world.study.status.trials.failed == failed
    assert world.stored[1].status.exit_code == (42 if failed else None)


def test_an_exit_code_that_fails_the_study_ends_it_and_says_which_trial_it_was() -> None:
    world = World(study(failurePolicy=policy(("FailStudy", "In", [3]))), fault=fails_first(3, {2})).run()
    check_invariants(world)
    condition = next(each for each in world.study.status.conditions if each.type == "Failed")
    assert (world.study.status.state, condition.reason) == ("Failed", "FailurePolicy")
    assert condition.message == "s-0002 failed: NonZeroExit: the trainer exited with code 3 (failurePolicy: FailStudy)"


def test_it_does_so_wherever_the_operator_is_lost() -> None:
    def run(lose_at: frozenset[int] = frozenset()) -> World:
        spec = study(failurePolicy=policy(("FailStudy", "In", [3])))
        return World(spec, fault=fails_first(3, {2}), lose_at=lose_at).run()

    for action in range(1, run().applied + 1):
        world = run(frozenset({action}))
        failed = {trial for trial, stored in world.stored.items() if stored.status.state == "Failed"}
        assert (world.study.status.state, failed) == ("Failed", {2}), f"lost at action {action}"
