"""The history checker: silent about studies as they ran, and for each rule a history that breaks it, and no other."""

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halvard import lifecycle
from halvard.progress import Progress
from halvard.simulate.conditions import Conditions
from halvard.simulate.table import Table
from halvard.simulate.world import simulate
from halvard.status import study_status
from halvard.study_status import Condition, StudyStatus
from halvard.trial import CurvePoint, SavedCheckpoint, Trial, TrialSpec
from history import Accepted, History, Pod, assert_sound, check
from history.records import life
from simulation.world import CRASHED, EVICTED, World, chance
from simulation.world import study as world_study
from unit.simulate.conftest import arrays, history_of, make_study

TABLE = Table.from_arrays(arrays())
SCHEDULERS: dict[str, dict[str, Any]] = {
    "asha": {"asha": {"maxBudget": 9}},
    "brackets": {"asha": {"minBudget": 2, "maxBudget": 9, "reductionFactor": 2, "brackets": 3}},
    "grace": {"asha": {"maxBudget": 9, "grace": 3}},
    "control": {"asha": {"maxBudget": 9, "reductionFactor": 2, "brackets": 2, "control": 0.3}},
    "hyperband": {"hyperband": {"maxBudget": 9}},
    "adaptive": {"adaptive": {"maxBudget": 9}},
    "median": {"median": {"budget": 9, "trials": 2, "grace": 2}},
    "patience": {"patience": {"budget": 9, "patience": 2, "minDelta": 0.02, "interval": 2}},
    "none": {"none": {"budget": 9}},
}
SAMPLERS: list[dict[str, Any]] = [{"random": {}}, {"sobol": {}}, {"tpe": {}}, {"bohb": {}}, {"gp": {}}, {"auto": {}}]
GPUS = {"spec": {"containers": [{"name": "trainer", "resources": {"limits": {"nvidia.com/gpu": 2}}}]}}
ROUGH = Conditions(4, start_up=20.0, stragglers=0.5, dropped=0.2, lost_every=3600.0)


def simulated(scheduler: str = "asha", conditions: Conditions = ROUGH, **spec: Any) -> History:
    base = {"scheduler": SCHEDULERS[scheduler], "limits": {"trials": 20}, "template": GPUS}
    return history_of(simulate(make_study(**base | spec), TABLE, conditions))


def broken(history: History) -> set[str]:
    return {violation.rule for violation in check(history)}


# --- good ones


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(sorted(SCHEDULERS)),
    st.builds(
        Conditions,
        workers=st.integers(1, 12),
        stragglers=st.sampled_from([0.0, 1.0]),
        dropped=st.sampled_from([0.0, 0.3]),
        lost_every=st.sampled_from([math.inf, 2000.0]),
        checkpoints=st.booleans(),
        hot=st.booleans(),
        seed=st.integers(0, 99),
    ),
    st.sampled_from(["minimize", "maximize"]),
    st.integers(1, 25),
)
def test_nothing_is_found_in_what_the_simulator_leaves(
    scheduler: str, conditions: Conditions, goal: str, trials: int
) -> None:
    objective = {"metric": "loss", "goal": goal}
    assert_sound(simulated(scheduler, conditions, objective=objective, limits={"trials": trials}))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
@pytest.mark.parametrize("scheduler", ["control", "hyperband", "adaptive"])
def test_nothing_is_found_whatever_the_sampler(scheduler: str, sampler: dict[str, Any]) -> None:
    assert_sound(simulated(scheduler, sampler=sampler))


@pytest.mark.parametrize("limits", [{"duration": "10m"}, {"gpuHours": 0.5}, {"trials": 9}, {"trials": 1}])
def test_nothing_is_found_where_a_limit_ends_the_study(limits: dict[str, Any]) -> None:
    assert_sound(simulated(limits=limits))


# --- lives, orders and numbers


def changed(good: History, index: int, change: Callable[[Trial], Trial]) -> History:
    """The history with another trial in the place of one, and what the Study's status says after that."""
    trials = tuple(change(trial) if trial.index == index else trial for trial in good.trials)
    status = study_status(Progress(good.study, trials), datetime.now(UTC).timestamp())
    return replace(good, trials=trials, study=good.study.model_copy(update={"status": status}))


def with_status(**fields: Any) -> Callable[[Trial], Trial]:
    return lambda trial: trial.model_copy(update={"status": trial.status.model_copy(update=fields)})


def with_spec(**fields: Any) -> Callable[[Trial], Trial]:
    return lambda trial: trial.model_copy(update={"spec": trial.spec.model_copy(update=fields)})


def with_result(place: int, **fields: Any) -> Callable[[Trial], Trial]:
    def change(trial: Trial) -> Trial:
        rungs = list(trial.status.rungs)
        rungs[place] = rungs[place].model_copy(update=fields)
        return with_status(rungs=tuple(rungs))(trial)

    return change


def renumbered(good: History, order: Callable[[int], int]) -> History:
    """The history with other orders; 0 stays none."""

    def change(trial: Trial) -> Trial:
        rungs = tuple(
            r.model_copy(update={"order": order(r.order), "decided": order(r.decided)}) for r in trial.status.rungs
        )
        ended = order(trial.status.order) if trial.status.order else 0
        return with_status(rungs=rungs, order=ended)(with_spec(order=order(trial.spec.order))(trial))

    return replace(good, trials=tuple(map(change, good.trials)))


def swapped(good: History, one: int, other: int) -> History:
    return renumbered(good, lambda order: {one: other, other: one}.get(order, order))


def first(good: History, state: str) -> Trial:
    return next(trial for trial in good.trials if trial.status.state == state)


def test_a_place_that_is_left_out_or_given_twice_is_found() -> None:
    good = simulated()
    assert broken(renumbered(good, lambda order: order + (order > 10))) == {"orders"}
    assert broken(renumbered(good, lambda order: order - (order > 4))) == {
        "orders"
    }  # 4 and 5 are two trials' beginnings
    message = str(check(renumbered(good, lambda order: order + (order > 10)))[0])
    assert message.endswith("things happened; [11] are missing, [] given twice")


def test_a_result_from_before_its_decision_is_found() -> None:
    good = simulated()
    result = first(good, "Complete").status.rungs[-1]
    assert broken(swapped(good, result.decided, result.order)) == {"sequence"}


def test_a_rung_that_is_completed_twice_is_found() -> None:
    good = simulated()
    trial = first(good, "Complete")
    last = sum(1 + 2 * (len(t.status.rungs)) - 1 for t in good.trials)
    again = trial.status.rungs[-1].model_copy(update={"decided": last + 1, "order": last + 2})
    twice = tuple(with_status(rungs=(*t.status.rungs, again))(t) if t.index == trial.index else t for t in good.trials)
    assert broken(replace(good, trials=twice)) == {"once"}


def test_a_result_that_is_at_no_rung_or_short_of_it_is_found() -> None:
    good = simulated()
    index = first(good, "Complete").index
    for wrong in (with_result(1, budget=4, step=4), with_result(1, step=2)):
        trials = tuple(wrong(t) if t.index == index else t for t in good.trials)
        assert broken(replace(good, trials=trials)) == {"rungs"}


def test_a_trial_in_the_wrong_bracket_is_found() -> None:
    assert broken(changed(simulated("hyperband"), 3, with_spec(bracket=1))) == {"brackets"}


@pytest.mark.parametrize(
    ("was", "wrong"),
    [
        ("Complete", {"state": "Paused"}),
        ("Paused", {"state": "Complete"}),
        ("Paused", {"state": "Running"}),
        ("Paused", {"state": "Pending"}),
        ("Paused", {"order": 7}),
        ("Stopped", {"order": 0}),
    ],
)
def test_a_state_that_its_results_do_not_say_is_found(was: str, wrong: dict[str, Any]) -> None:
    good = simulated(limits={"duration": "20m"})
    found = broken(changed(good, first(good, was).index, with_status(**wrong)))
    assert "states" in found
    assert found <= {"states", "orders", "sequence"}  # an order too many, or too few, is missed as well


def test_trials_that_began_in_another_order_are_found() -> None:
    assert broken(swapped(simulated(), 1, 2)) == {"numbers"}


def test_a_trial_too_many_is_found() -> None:
    good = simulated()
    spec = good.study.spec.model_copy(update={"limits": good.study.spec.limits.model_copy(update={"trials": 19})})
    assert broken(replace(good, study=good.study.model_copy(update={"spec": spec}))) == {"limit"}


def test_more_at_a_time_than_may_be_are_found() -> None:
    assert broken(replace(simulated(), parallelism=3)) == {"parallelism"}


# --- who goes on


def story(told: str, **spec: Any) -> History:
    """A study so far, from what happened: `3` a new trial, `3>` a promotion, `3!` a control, `3=0.5` a result."""
    study = make_study(**{"parallelism": 100, "limits": {"trials": 1000}} | spec)
    ladder, trials = study.spec.scheduler.budgets, dict[int, Trial]()
    hyperband = study.spec.scheduler.hyperband is not None
    for order, word in enumerate(told.split(), start=1):
        index = int(word.rstrip(">!").split("=")[0])
        if "=" in word:
            value = float(word.split("=")[1])
            reported = with_status(state="Paused", step=trials[index].spec.budget)(trials[index])
            trials[index] = lifecycle.completed_rung(reported, value, 60.0, 0.0, at=0.0, order=order)
        elif index in trials:
            known = trials[index].spec
            goes_on = {"budget": ladder[ladder.index(known.budget) + 1], "order": order, "control": word[-1] == "!"}
            trials[index] = with_status(state="Pending")(with_spec(**goes_on)(trials[index]))
        else:
            begun = TrialSpec(index=index, budget=ladder[0], parameters={}, order=order)
            assert not hyperband or index < 9, "these are in the first bracket"
            trials[index] = lifecycle.new_trial("s", begun)
    return History(study, tuple(trials.values()))


THREE = "0 0=0.1 1 1=0.2 2 2=0.3"
NINE = " ".join(f"{index} {index}=0.{index + 1}" for index in range(9))
ASHA, HYPERBAND = {"asha": {"maxBudget": 9}}, {"hyperband": {"maxBudget": 9}}
GRACE, CONTROL = {"asha": {"maxBudget": 9, "grace": 3}}, {"asha": {"maxBudget": 9, "control": 0.5}}
ADAPTIVE = {"adaptive": {"maxBudget": 9}}
HALF_NINE = "0 0=0.1 1 1=0.2 2 2=0.3 0> 3 3=0.4 4 4=0.5 5 5=0.6 1> 6 6=0.7 7 7=0.8 8 8=0.9 2>"


@pytest.mark.parametrize(
    ("scheduler", "told"),
    [
        (ASHA, THREE + " 0> 3"),
        (ASHA, "0 1 2 2=0.1 1=0.2 0=0.1 0>"),
        (ASHA, "0 0=nan 1 1=0.2 2 2=inf 1> 3"),
        (ASHA, HALF_NINE + " 0=0.5 1=0.4 2=0.3 2> 9"),
        (GRACE, "0 0=0.5 0> 1 1=0.2 1> 2 2=nan 3"),
        (CONTROL, THREE + " 0> 3 3=0.4 4 4=0.5 5 5=0.05 4! 5> 6"),
        (CONTROL, THREE + " 0> 3 3=0.4 4 4=0.5 5 5=0.05 4! 5> 6 7 8 6=0.01 7=0.02 8=0.03 6>"),  # 1, 2, 3: too old
        (HYPERBAND, NINE + " 0> 1> 2> 0=1 1=2 2=3 0>"),
        (HYPERBAND, NINE + " 0> 0=1 1> 1=2 2> 2=0 2>"),
        (ADAPTIVE, "0 0=0.5 1 1=0.2 0>"),
    ],
)
def test_nothing_is_found_in_a_story_as_it_should_be(scheduler: dict[str, Any], told: str) -> None:
    assert_sound(story(told, scheduler=scheduler))


@pytest.mark.parametrize(
    ("rule", "scheduler", "told"),
    [
        ("merit", ASHA, THREE + " 1>"),  # another one is better
        ("merit", ASHA, "0 0=0.1 1 1=0.2 0>"),  # too few for one to go on
        ("merit", ASHA, "0 1 2 2=0.1 1=0.2 0=0.1 2>"),  # the lower index wins a tie
        ("merit", ASHA, "0 0=nan 1 1=nan 2 2=nan 0>"),  # not finite
        ("merit", ASHA, THREE + " 0> 1>"),  # one too many
        ("precedence", ASHA, THREE + " 3"),  # one was due
        ("precedence", ASHA, HALF_NINE + " 0=0.5 1=0.4 9 9=1.1 2=0.3 10 2>"),
        ("precedence", ASHA, HALF_NINE + " 0=0.5 1=0.4 9 9=0.05 9> 10 11 12 10=1 11=1 2=0.3 12=0.06 12>"),
        ("merit", GRACE, "0 0=nan 0>"),
        ("precedence", GRACE, "0 0=0.5 1"),
        ("control", ASHA, THREE + " 0> 3 3=0.4 4 4=0.5 5 5=0.05 4! 5>"),  # there are none
        ("control", CONTROL, THREE + " 1! 0>"),  # the first promotion is none
        ("control", CONTROL, THREE + " 0> 3 3=0.4 4 4=0.5 5 5=0.05 5!"),  # it was due
        ("control", CONTROL, THREE + " 0> 3 3=0.4 3!"),  # nobody was due
        ("control", CONTROL, THREE + " 0> 3 3=0.4 4 4=0.5 5 5=0.05 5>"),  # the second one is one
        ("control", CONTROL, THREE + " 0> 3 3=0.4 4 4=0.5 5 5=0.05 4! 5> 6 7 8 6=0.01 7=0.02 8=0.03 1!"),  # too old
        ("merit", HYPERBAND, NINE.rsplit(" ", 1)[0] + " 0>"),  # the last result of the rung is missing
        ("merit", HYPERBAND, NINE + " 0> 1> 2> 3>"),  # a fourth of nine
        ("merit", HYPERBAND, NINE + " 1>"),
        ("merit", HYPERBAND, NINE + " 0> 1> 2> 0=1 1=2 0>"),
        ("merit", ADAPTIVE, "0 0=0.5 0>"),
        ("merit", ADAPTIVE, "0 0=nan 1 1=0.2 0>"),
    ],
)
def test_who_went_on_out_of_turn_is_found(rule: str, scheduler: dict[str, Any], told: str) -> None:
    assert broken(story(told, scheduler=scheduler)) == {rule}


def test_without_a_forecast_adaptive_is_held_to_the_places_of_asha() -> None:
    told, why = THREE + " 1>", "promoted: value 0.2 is place 2 of 3 (as asha: 3 of 10 results)"
    good = story(told, scheduler=ADAPTIVE)
    assert check(good) == []
    trials = tuple(with_spec(decision=why)(t) if t.index == 1 else t for t in good.trials)
    assert broken(replace(good, trials=trials)) == {"merit"}


def test_a_trial_that_was_due_when_the_study_ended_is_found() -> None:
    assert broken(finished(story(THREE, limits={"trials": 3}))) == {"precedence"}
    assert broken(finished(story(THREE + " 0> 0=0.1", limits={"trials": 3}))) == set()


def finished(good: History) -> History:
    """The story's study has ended, as nothing was left to do."""
    condition = Condition(
        type="Complete", status="True", reason="TrialsFinished", message="", last_transition_time=datetime.now(UTC)
    )
    study = good.study.model_copy(update={"status": StudyStatus(conditions=(condition,))})
    return changed(replace(good, study=study), 0, lambda trial: trial)


# --- stopped at a report


def with_curve(*values: float | None, step: int = 1) -> Callable[[Trial], Trial]:
    points = tuple(CurvePoint(step * place, value) for place, value in enumerate(values, start=1))
    return with_status(curve=points)


@pytest.mark.parametrize(
    ("scheduler", "state", "curve"),
    [
        ("patience", "Stopped", with_curve(0.9, 0.5, step=2)),  # it got better
        ("patience", "Complete", with_curve(0.5, 0.6, 0.6, 0.6, step=2)),  # it did not
        ("patience", "Stopped", with_curve()),
        ("median", "Stopped", with_curve(0.9, -9.0)),  # the best of all
        ("median", "Stopped", with_curve(0.9)),  # before grace
        ("median", "Complete", with_curve(0.5, None, 0.5)),  # went on though not finite
        ("none", "Complete", with_status(message="stopped: it was late")),
    ],
)
def test_who_was_stopped_or_went_on_against_the_rule_is_found(
    scheduler: str, state: str, curve: Callable[[Trial], Trial]
) -> None:
    good = simulated(scheduler)
    assert broken(changed(good, first(good, state).index, curve)) == {"stopping"}


# --- Pods, reports, seconds


def podded(change: Callable[[Pod], Pod]) -> History:
    """A history with another Pod in the place of one: the last of a trial that had three."""
    good = simulated()
    pod = next(pod for pod in good.pods or () if pod.attempt == 3 == _trial(good, pod.trial).attempt)
    return replace(good, pods=tuple(change(each) if each == pod else each for each in good.pods or ()))


def _trial(good: History, index: int) -> Trial:
    return next(trial for trial in good.trials if trial.index == index)


def test_a_number_that_is_used_again_although_something_of_its_pod_counts_is_found() -> None:
    good = simulated()
    pods, reports = good.pods or (), good.accepted or ()
    pod = pods[0]
    assert pod.ended is not None

    def with_one_before(ended: float, *accepted: Accepted, checkpoint: str = "", **result: Any) -> set[str]:
        earlier = replace(pod, uid="earlier", began=pod.began - 9.0, ended=ended)
        saved = SavedCheckpoint(name="step-1", step=1, attempt=pod.attempt, pod=checkpoint)
        history = changed(good, pod.trial, with_status(checkpoint=saved))
        history = changed(history, pod.trial, with_result(0, **result))
        return broken(replace(history, pods=(earlier, *pods), accepted=(*accepted, *reports)))

    heard = Accepted(pod.trial, "earlier", step=0, at=pod.began - 8.0)
    assert with_one_before(pod.began - 9.0) == set()  # it vanished, and so did what was known of it
    assert with_one_before(pod.began - 9.0, checkpoint=pod.uid) == set()
    assert with_one_before(pod.began + 0.1, checkpoint="earlier") == {"attempts"}
    assert with_one_before(pod.began - 9.0, checkpoint="earlier") == {"attempts"}
    assert with_one_before(pod.began - 7.0, heard) == set()  # its time is lost with whoever knew of it
    result = _trial(good, pod.trial).status.rungs[0]
    assert with_one_before(pod.began - 7.0, replace(heard, step=result.step)) == set()  # the next one made it again
    assert with_one_before(pod.began - 7.0, replace(heard, at=pod.began)) == {"attempts", "reports"}
    stored = replace(heard, step=result.step, at=pod.began - 8.0)
    at = {"at": datetime.fromtimestamp(stored.at, UTC)}
    assert "attempts" in with_one_before(pod.began - 7.0, stored, **at)


def test_attempts_that_began_in_another_order_are_found() -> None:
    early = podded(lambda pod: replace(pod, began=0.0, ended=1.0))
    assert any("began before" in violation.message for violation in check(early))


def test_more_faults_than_attempts_are_found() -> None:
    good = simulated()
    trial = first(good, "Complete")
    assert broken(changed(good, trial.index, with_status(faults=trial.attempt))) == {"attempts"}


def test_two_attempts_that_are_believed_at_once_are_found() -> None:
    good = simulated()
    pods = good.pods or ()
    second = next(pod for pod in pods if pod.attempt == 2)
    place, old = next((i, pod) for i, pod in enumerate(pods) if (pod.trial, pod.attempt) == (second.trial, 1))
    endless = replace(old, ended=None)
    assert broken(replace(good, pods=(*pods[:place], endless, *pods[place + 1 :]))) == {"believed"}
    fenced = replace(endless, fenced=old.ended)  # it went on, and nobody believed it
    assert broken(replace(good, pods=(*pods[:place], fenced, *pods[place + 1 :]))) == set()


def test_where_the_order_is_known_no_clock_tells_who_was_believed_at_once() -> None:
    good = simulated()
    pods = good.pods or ()
    trial = next(pod.trial for pod in pods if pod.attempt == 2)

    def fenced(after: int) -> set[str]:
        own = {pod: replace(pod, created=10 * pod.attempt) for pod in pods if pod.trial == trial}
        own = {pod: replace(own[pod], superseded=after and own[pod].created + after) for pod in own}
        return broken(replace(good, pods=tuple(own.get(pod, pod) for pod in pods), precision=60.0))

    assert fenced(9) == set()
    assert fenced(11) == {"believed"}
    assert fenced(0) == {"believed"}


def test_seconds_that_no_pod_took_and_pods_whose_seconds_are_missing_are_found() -> None:
    assert broken(podded(lambda pod: replace(pod, ended=(pod.ended or 0.0) + 1.0))) == {"time"}
    assert broken(podded(lambda pod: replace(pod, began=pod.began + 1.0))) == {"time"}
    assert broken(podded(lambda pod: replace(pod, gpus=1.0))) == {"time"}
    good = simulated()
    assert broken(changed(good, first(good, "Paused").index, with_result(0, seconds=1.0))) == {"time"}


def test_where_reports_are_heard_of_late_only_seconds_too_many_are_found() -> None:
    good = simulated()
    result = first(good, "Paused").status.rungs[0]

    def taken(seconds: float) -> History:
        wrong = with_result(0, seconds=seconds, gpu_seconds=2 * seconds)
        return replace(changed(good, first(good, "Paused").index, wrong), late=True)

    assert broken(taken(result.seconds - 1.0)) == set()
    assert broken(replace(taken(result.seconds - 1.0), late=False)) == {"time"}
    assert broken(taken(result.seconds + 1.0)) == {"time"}
    later = [
        replace(pod, fenced=(pod.ended or 0.0) + 1.0) if pod.trial == first(good, "Paused").index else pod
        for pod in good.pods or ()
    ]  # its end was not heard of before it was not believed any more
    assert broken(replace(taken(result.seconds + 1.0), pods=tuple(later))) == set()
    assert broken(replace(taken(result.seconds + 1.0), pods=tuple(later), late=False)) == {"time"}


def test_a_pod_that_nobody_saw_end_may_have_taken_any_time() -> None:
    assert broken(podded(lambda pod: replace(pod, ended=None))) == set()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda report: replace(report, uid="a stranger"),
        lambda report: replace(report, trial=report.trial + 1),
        lambda report: replace(report, at=report.at + 1e6),
        lambda report: replace(report, at=-1.0),
        lambda report: replace(report, step=report.step + 1),
    ],
)
def test_a_report_that_was_not_for_the_pod_to_make_is_found(wrong: Callable[[Accepted], Accepted]) -> None:
    good = simulated()
    reports = good.accepted or ()
    assert broken(replace(good, accepted=(wrong(reports[0]), *reports[1:]))) == {"reports"}
    assert broken(replace(good, accepted=reports[1:])) == {"reports"}


def test_who_hears_late_that_a_pod_is_not_believed_may_take_its_report_but_not_store_it() -> None:
    good = simulated()
    reports = good.accepted or ()

    def taken(report: Accepted, *, late: bool) -> set[str]:
        return broken(replace(good, accepted=(report, *reports), late=late))

    too_late = replace(reports[0], at=reports[0].at + 1e6)
    assert taken(too_late, late=True) == set()
    assert taken(too_late, late=False) == {"reports"}
    assert taken(replace(too_late, uid="a stranger"), late=True) == {"reports"}
    stored = with_result(0, at=datetime.fromtimestamp(too_late.at, UTC), step=too_late.step)
    history = changed(good, too_late.trial, stored)
    assert "reports" in broken(replace(history, accepted=(too_late, *reports), late=True))


def test_a_result_that_another_pod_reported_than_the_one_it_is_stored_for_is_found() -> None:
    good = simulated()
    reports, pods = list(good.accepted or ()), good.pods or ()
    place, report, zombie = next(
        (place, report, pod)
        for place, report in enumerate(reports)
        for pod in pods
        if pod.trial == report.trial and pod.uid != report.uid and (pod.ended or 0.0) < report.at
    )
    reports[place] = replace(report, uid=zombie.uid)  # it came back, and was taken for the one that runs now
    assert broken(replace(good, accepted=tuple(reports))) == {"reports"}
    believed = tuple(replace(pod, ended=None) if pod == zombie else pod for pod in pods)
    ran_on = replace(good, pods=believed, accepted=tuple(reports))
    assert "reports" in broken(ran_on)
    assert "reports" not in broken(replace(ran_on, accepted=good.accepted))


def test_a_result_that_no_pod_was_there_to_report_is_found_without_any_log() -> None:
    good = replace(simulated(), accepted=None)
    trial = next(trial for trial in good.trials if trial.status.rungs)
    result = trial.status.rungs[0]
    later = result.at.timestamp() + 60.0
    pods = tuple(
        replace(pod, began=later, ended=later) if (pod.trial, pod.attempt) == (trial.index, result.attempt) else pod
        for pod in good.pods or ()
    )
    assert any("nobody could report" in violation.message for violation in check(replace(good, pods=pods)))


# --- faults, what was stored, and the status


@pytest.fixture(scope="module")
def rough() -> History:
    """A study in which trials failed and legs ran again, with every version of its Trials."""
    world = World(
        world_study(limits={"trials": 15, "failedTrials": 15}),
        fault=lambda trial, attempt, step: (
            CRASHED if trial % 4 == 3 else EVICTED if chance(2, trial, attempt, step).random() < 0.2 else None
        ),
    ).run()
    assert {trial.status.state for trial in world.stored.values()} >= {"Failed", "Complete", "Paused"}
    return world.history()


def test_a_trial_that_failed_for_the_infrastructure_is_found(rough: History) -> None:
    index = first(rough, "Failed").index
    wrong = changed(rough, index, with_status(message="Evicted: Evicted: The node was low on resource: memory."))
    assert broken(replace(wrong, versions=None)) == {"faults"}


def test_a_result_or_checkpoint_of_which_its_pod_sent_nothing_is_found(rough: History) -> None:
    sent, result = rough.sent or (), first(rough, "Complete").status.rungs[-1]
    mine = next(place for place, each in enumerate(sent) if (each.step, each.value) == (result.step, result.value))
    others = (*sent[:mine], replace(sent[mine], uid="a zombie"), *sent[mine + 1 :])
    assert check(rough) == []
    assert broken(replace(rough, sent=others)) == {"said"}
    checkpoints = (version.status.checkpoint for version in rough.versions or ())
    saved = next(checkpoint for checkpoint in checkpoints if checkpoint and checkpoint.step not in (1, 3, 9))
    others = tuple(each for each in sent if (each.uid, each.step) != (saved.pod, saved.step))
    assert broken(replace(rough, sent=others)) == {"said"}


def test_a_result_that_nobody_was_heard_to_report_is_found(rough: History) -> None:
    accepted = rough.accepted or ()
    assert broken(replace(rough, accepted=accepted[1:])) == {"reports"}
    assert broken(replace(rough, accepted=(replace(accepted[0], uid="a stranger"), *accepted))) == {"reports"}
    assert broken(replace(rough, accepted=None)) == set()


def test_a_value_that_a_fault_has_changed_is_found(rough: History) -> None:
    calm = tuple(with_result(0, value=9.0)(t) if t.index == first(rough, "Paused").index else t for t in rough.trials)
    assert broken(replace(rough, undisturbed=rough.trials)) == set()
    assert broken(replace(rough, undisturbed=calm)) == {"faults"}
    assert broken(replace(rough, undisturbed=rough.trials[:-1])) == {"faults"}


def test_what_is_stored_only_grows(rough: History) -> None:
    versions = rough.versions or ()
    place, latest = next((i, v) for i, v in enumerate(versions) if v.status.state == "Complete")
    lower = with_spec(budget=3)(latest)
    fewer = with_status(rungs=latest.status.rungs[:-1], state="Running")(latest)
    earlier = with_status(attempt=latest.attempt + 1)(latest)  # and the number goes back after that
    revived = with_status(message="again")(latest)
    for wrong in (lower, fewer, earlier, revived):
        assert broken(replace(rough, versions=(*versions[: place + 1], wrong, *versions[place:]))) == {"versions"}
    assert broken(replace(rough, versions=versions[:place])) == {"versions"}


def test_what_is_stored_before_what_it_rests_on_is_found(rough: History) -> None:
    versions = list(rough.versions or ())
    known, places = set[int](), list[int]()  # of versions with something new
    for place, version in enumerate(versions):
        if new := {event.order for event in life(version)} - known:
            known |= new
            places.append(place)
    one, other = next((a, b) for a, b in pairwise(places) if versions[a].index != versions[b].index and b == a + 1)
    versions[one], versions[other] = versions[other], versions[one]
    assert broken(replace(rough, versions=tuple(versions))) == {"prefix"}


def test_an_operator_that_writes_though_nothing_is_to_be_done_is_found(rough: History) -> None:
    assert check(replace(rough, quiet=())) == []
    assert broken(replace(rough, quiet=("PATCH trials/s-0001/status",))) == {"quiet"}


@pytest.mark.parametrize(
    "field", ["trials", "best", "highest_rung", "rungs", "training_hours", "gpu_hours", "search", "used"]
)
def test_a_status_that_the_trials_do_not_say_is_found(field: str, rough: History) -> None:
    status = rough.study.status
    stale = type(status)().model_copy(update={"state": status.state, "conditions": status.conditions})
    wrong = status.model_copy(update={field: getattr(stale, field)})
    assert broken(replace(rough, study=rough.study.model_copy(update={"status": wrong}))) == {"status"}


def test_a_status_that_a_restart_would_not_write_is_found(rough: History) -> None:
    status = rough.study.status.model_copy(update={"observed_generation": rough.study.generation + 1})
    assert broken(replace(rough, study=rough.study.model_copy(update={"status": status}))) == {"status"}


@pytest.mark.parametrize("state", ["Complete", "Failed"])
def test_a_state_that_no_condition_says_is_found(state: str, rough: History) -> None:
    wrong = rough.study.status.model_copy(update={"state": state})
    found = broken(replace(rough, study=rough.study.model_copy(update={"status": wrong})))
    assert found == (set() if rough.study.status.state == state else {"status"})


@pytest.mark.parametrize("change", [{"tau": 0.1234}, {"trials": 7}])
def test_an_agreement_that_the_values_do_not_have_is_found(change: dict[str, Any]) -> None:
    good = simulated("grace")
    rung = good.study.status.rungs[0]
    agreement = (rung.agreement[0].model_copy(update=change), *rung.agreement[1:])
    rungs = (rung.model_copy(update={"agreement": agreement}), *good.study.status.rungs[1:])
    status = good.study.status.model_copy(update={"rungs": rungs})
    assert broken(replace(good, study=good.study.model_copy(update={"status": status}))) == {"status"}


@pytest.mark.parametrize("field", ["not_finite", "failed"])
def test_a_count_of_a_rung_that_the_trials_do_not_say_is_found(field: str, rough: History) -> None:
    rung = rough.study.status.rungs[0]
    rungs = (rung.model_copy(update={field: getattr(rung, field) + 1}), *rough.study.status.rungs[1:])
    status = rough.study.status.model_copy(update={"rungs": rungs})
    assert broken(replace(rough, study=rough.study.model_copy(update={"status": status}))) == {"status"}


def test_a_study_that_goes_on_may_say_less_than_its_trials(rough: History) -> None:
    status = rough.study.status.model_copy(update={"state": "Running", "best": None})
    assert check(replace(rough, study=rough.study.model_copy(update={"status": status}))) == []


def test_what_rests_on_lives_that_make_no_sense_is_not_looked_at() -> None:
    good = simulated()
    twice = replace(renumbered(good, lambda order: order + (order > 10)), parallelism=1, quiet=("a write",))
    assert broken(twice) == {"orders"}


def test_a_study_that_has_not_begun_is_sound() -> None:
    assert check(History(make_study(), ())) == []
