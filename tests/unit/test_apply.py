from halvard.apply import in_order_of_need
from halvard.plan import Action, Announce, CreateTrial, SaveSpec, SaveStatus, StartLeg, StopLeg
from halvard.trial import Trial, TrialSpec


def trial(index: int) -> Trial:
    return Trial(name=f"search-{index:04d}", spec=TrialSpec(index=index, budget=1, parameters={}))


def start(index: int) -> StartLeg:
    return StartLeg(trial(index), None)


def test_a_leg_waits_for_the_decision_on_its_own_trial_alone() -> None:
    plan: list[Action] = [CreateTrial(trial(0)), CreateTrial(trial(1)), start(1), start(0)]
    assert in_order_of_need(plan) == [CreateTrial(trial(0)), start(0), CreateTrial(trial(1)), start(1)]


def test_decisions_keep_their_order() -> None:
    plan: list[Action] = [
        SaveStatus(trial(0)),
        SaveSpec(trial(2), hot=False),
        SaveStatus(trial(1)),
        CreateTrial(trial(3)),
        start(2),
        start(3),
    ]
    ordered = in_order_of_need(plan)
    assert [action for action in ordered if not isinstance(action, StartLeg)] == plan[:4]
    assert ordered.index(start(2)) == 2


def test_a_leg_waits_for_the_latest_decision_on_its_trial() -> None:
    plan: list[Action] = [SaveStatus(trial(0)), SaveSpec(trial(0), hot=False), SaveStatus(trial(1)), start(0)]
    assert in_order_of_need(plan) == [
        SaveStatus(trial(0)),
        SaveSpec(trial(0), hot=False),
        start(0),
        SaveStatus(trial(1)),
    ]


def test_a_leg_comes_after_the_attempt_before_it_was_stopped() -> None:
    plan: list[Action] = [StopLeg(trial(0), 1, "stuck"), SaveStatus(trial(1)), start(0)]
    assert in_order_of_need(plan) == [StopLeg(trial(0), 1, "stuck"), start(0), SaveStatus(trial(1))]


def test_a_leg_without_a_decision_in_this_plan_waits_for_nothing() -> None:
    plan: list[Action] = [Announce("Normal", "Resumed", ""), SaveStatus(trial(1)), start(0)]
    assert in_order_of_need(plan) == [start(0), Announce("Normal", "Resumed", ""), SaveStatus(trial(1))]
