"""What people are told, and what a study came to."""

from datetime import UTC, datetime
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from halvard.local.display import Log, Running, Screen, View, clock, rungs
from halvard.local.narrate import Line, Narrator
from halvard.local.process import Leg
from halvard.local.summary import Costs, costs, summary
from halvard.plan import Announce, SaveSpec, SaveStatus, StartLeg
from halvard.study import Study, StudySpec
from halvard.study_status import Agreement, BestTrial, Condition, RankAgreement, RungStatus, StudyStatus, TrialCounts
from halvard.trial import Lost, RungResult, SavedCheckpoint, Trial, TrialSpec, TrialStatus

STUDY = Study(
    name="digits",
    spec=StudySpec.model_validate(
        {
            "objective": {"metric": "loss", "goal": "minimize"},
            "parameters": [{"name": "lr", "float": {"min": 0.0, "max": 1.0}}],
            "scheduler": {"asha": {"maxBudget": 9}},
            "limits": {"trials": 9},
            "template": {"spec": {"containers": [{"name": "trainer", "image": "registry.example.com/digits:1"}]}},
        }
    ),
)


def result(budget: int, value: float | None = 0.25, seconds: float = 2.0) -> RungResult:
    return RungResult(budget=budget, value=value, step=budget, seconds=seconds, at=datetime(2026, 1, 1, tzinfo=UTC))


def trial(index: int = 0, *, budget: int = 1, decision: str = "", **status: Any) -> Trial:
    spec = TrialSpec(index=index, budget=budget, parameters={"lr": 0.012345}, decision=decision)
    return Trial(name=f"digits-{index:04}", spec=spec, status=TrialStatus(**status))


def test_a_new_trial_is_told_with_its_configuration() -> None:
    expected = [Line("digits-0000", "started", "up to budget 1: lr=0.01235")]
    assert expected == Narrator(STUDY).lines(StartLeg(trial(), None))


def test_a_resumed_leg_tells_where_it_goes_on() -> None:
    leg = StartLeg(trial(budget=3, rungs=(result(1),)), SavedCheckpoint(name="step-1", step=1, attempt=1))
    assert [Line("digits-0000", "resumed", "up to budget 3 from step 1")] == Narrator(STUDY).lines(leg)


@pytest.mark.parametrize(("hot", "how"), [(True, "hot"), (False, "to be resumed")])
def test_a_promotion_tells_how_and_why(hot: bool, how: str) -> None:  # noqa: FBT001  # a table of cases
    promoted = trial(budget=3, decision="promoted: value 0.25 is place 1 of 3", rungs=(result(1),))
    expected = [Line("digits-0000", "promoted", f"1 → 3, {how}: value 0.25 is place 1 of 3")]
    assert expected == Narrator(STUDY).lines(SaveSpec(promoted, hot=hot))


def test_a_result_and_a_pause_are_two_lines_told_once() -> None:
    paused = SaveStatus(trial(state="Paused", message="paused: place 2 of 2", attempt=2, rungs=(result(1),)))
    narrator = Narrator(STUDY)
    expected = [
        Line("digits-0000", "result", "loss 0.25 at budget 1, after 2.0 s"),
        Line("digits-0000", "paused", "place 2 of 2"),
    ]
    assert [expected, []] == [narrator.lines(paused), narrator.lines(paused)]


def test_a_second_pause_is_told_too() -> None:
    first = trial(state="Paused", message="paused: place 2 of 2", attempt=2, rungs=(result(1),))
    second = trial(state="Paused", message="paused: place 3 of 3", attempt=3, rungs=(result(1), result(3)))
    lines = Narrator(STUDY, [first]).lines(SaveStatus(second))
    assert [line.what for line in lines] == ["result", "paused"]


def test_a_leg_that_runs_again_and_a_failure_are_told_with_their_reason() -> None:
    narrator = Narrator(STUDY)
    again = SaveStatus(trial(state="Pending", message="RunnerKilled: it was killed", attempt=2))
    failed = SaveStatus(trial(state="Failed", message="NonZeroExit: exit code 1", attempt=2))
    expected = [
        Line("digits-0000", "again", "RunnerKilled: it was killed"),
        Line("digits-0000", "failed", "NonZeroExit: exit code 1"),
    ]
    assert expected == [*narrator.lines(again), *narrator.lines(failed)]


def test_what_the_trial_tells_itself_is_not_announced_as_well() -> None:
    narrator = Narrator(STUDY)
    assert narrator.lines(Announce("Warning", "TrialFailed", "digits-0000: exit code 1")) == []
    assert narrator.lines(Announce("Normal", "Started", "it has started")) == [Line("", "study", "it has started")]


def test_full_training_is_estimated_from_each_trials_own_pace() -> None:
    slow = trial(0, rungs=(result(1, seconds=4.0),))
    fast = trial(1, rungs=(result(1, seconds=1.0), result(3, seconds=5.0)), lost=Lost(seconds=10.0))
    failed = trial(2, lost=Lost(seconds=3.0))
    assert Costs(spent=4 + 6 + 10 + 3, full=4 * 9 + 2 * 9 + 3) == costs([slow, fast, failed], 9)


def test_the_closing_words_count_hot_promotions_and_resumed_legs() -> None:
    legs = [Leg(0, [1, 3, 9], 0.0), Leg(0, [1], 0.0), Leg(1, [3], 0.0)]
    said = dict(summary(STUDY, StudyStatus(state="Complete"), [], legs, 9))
    assert said["promotions"] == "2 hot (the process went on), 1 legs resumed from a checkpoint"
    assert said["best"] == "no trial has a result"


def test_the_closing_words_tell_whether_early_results_foretold_later_ones() -> None:
    better = RankAgreement(trials=20, tau=0.5, low=0.24, high=0.694)
    told = (
        Agreement(budget=3, trials=40, tau=0.71, low=0.6, high=0.8, better=better),
        Agreement(budget=9, trials=12, tau=-0.1, low=-0.4, high=0.25),
    )
    status = StudyStatus(rungs=(RungStatus(budget=1, agreement=told), RungStatus(budget=3)))
    said = dict(summary(STUDY, status, [], [], 9))
    assert said["  1 and 3"] == (
        "tau 0.71 (0.60 to 0.80) over 40 trials, among the better half of them 0.50 (0.24 to 0.69)"
    )
    assert said["  1 and 9"] == "tau -0.10 (-0.40 to 0.25) over 12 trials: it may be chance"
    assert "early results" in said
    assert "late bloomers" not in said
    assert "early results" not in dict(summary(STUDY, StudyStatus(), [], [], 9))


@pytest.mark.parametrize("raised", [True, False])
def test_the_closing_words_have_the_alarm_while_it_is_raised(raised: bool) -> None:  # noqa: FBT001  # a table of cases
    condition = Condition(
        type="LateBloomers",
        status="True" if raised else "False",
        reason="EarlyResultsMislead",
        message="of two trials, …",
        last_transition_time=datetime(2026, 1, 1, tzinfo=UTC),
    )
    said = dict(summary(STUDY, StudyStatus(conditions=(condition,)), [], [], 9))
    assert said.get("late bloomers") == ("of two trials, …" if raised else None)


def test_the_ladder_shows_what_is_not_finite_or_failed_only_where_something_is() -> None:
    text = StringIO()
    console = Console(file=text, width=100)
    console.print(rungs(StudyStatus(rungs=(RungStatus(budget=1, completed=7, not_finite=2), RungStatus(budget=3)))))
    console.print(rungs(StudyStatus(rungs=(RungStatus(budget=1, completed=7, failed=1),))))
    lines = [line.split() for line in text.getvalue().splitlines()]
    assert lines == [
        ["rung", "completed", "promoted", "running", "not", "finite"],
        ["3", "·", "·", "·", "·"],
        ["1", "7", "·", "·", "2"],
        ["rung", "completed", "promoted", "running", "failed"],
        ["1", "7", "·", "·", "1"],
    ]


def test_the_screen_shows_rungs_running_trials_the_best_and_the_latest_decision() -> None:
    best = BestTrial(trial="digits-0003", value=0.125, budget=3, parameters={"lr": 0.5})
    ladder = (RungStatus(budget=1, completed=7, promoted=2), RungStatus(budget=3, completed=1, running=1))
    status = StudyStatus(state="Running", trials=TrialCounts(total=8, running=1, paused=7), best=best, rungs=ladder)
    objective = STUDY.spec.objective.model_copy(update={"metric": "[/red]loss"})
    going = STUDY.model_copy(update={"spec": STUDY.spec.model_copy(update={"objective": objective})})
    view = View(going, status, (Running(trial(5, budget=3), 2, 0.5, ("1",)),), waiting=2)
    text = StringIO()
    with Screen(Console(file=text, force_terminal=True, width=120, color_system=None)) as screen:
        screen.tell(Line("digits-0004", "paused", "place 2 of 2"))
        screen.show(lambda: view)

    lines = [" ".join(line.split()) for line in text.getvalue().splitlines()]
    assert "digits minimize [/red]loss trials 8/9: 1 running, 7 paused, 0 complete, 0 failed 0:00" in lines[0]
    assert "best 0.125 at budget 3 digits-0003 lr=0.5" in lines
    assert list(dict.fromkeys(line for line in lines if "·" in line)) == ["3 1 · 1", "1 7 2 ·"]
    assert any(line.startswith("digits-0005 2/3") and line.endswith("0.5 GPU 1") for line in lines)
    assert "2 waiting for a GPU" in lines
    assert "digits-0004 paused place 2 of 2" in lines


def test_the_log_is_a_line_for_each_thing_however_long() -> None:
    text = StringIO()
    with Log(Console(file=text, width=40)) as log:
        log.tell(Line("digits-0004", "paused", "x" * 100))
    assert text.getvalue().count("\n") == 1


@pytest.mark.parametrize(("seconds", "expected"), [(0, "0:00"), (61.9, "1:01"), (3600, "1:00:00"), (90061, "25:01:01")])
def test_a_span_of_time_is_read_as_on_a_clock(seconds: float, expected: str) -> None:
    assert expected == clock(seconds)
