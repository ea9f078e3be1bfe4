"""What waits, what is pushed next, and what each answer means for it."""

import json

import pytest

from halvard_trainer.outbox import LONGEST_BODY, MOST_BYTES, MOST_WAITING, Acknowledged, Outbox, Waiting
from halvard_trainer.reports import Report


def outbox(budget: int = 3, objective: str = "loss", steps: int = 0) -> Outbox:
    box = Outbox(budget, objective, {})
    add(box, range(1, steps + 1))
    return box


def add(box: Outbox, steps: range, metric: str = "loss") -> None:
    for step in steps:
        box.add(Report(step, {metric: 0.5}), "reports", step * 10)


def steps(batch: tuple[Waiting, ...]) -> list[int]:
    return [each.report.step for each in batch]


def told(box: Outbox) -> int | None:
    report = box.telling()
    return report.step if report else None


def test_a_batch_ends_with_the_first_result() -> None:
    assert steps(outbox(steps=5).batch()) == [1, 2, 3]


def test_a_report_at_the_budget_without_the_objective_needs_no_decision() -> None:
    box = outbox()
    add(box, range(3, 5), metric="accuracy")
    assert not box.needs_decision
    add(box, range(5, 6))
    assert box.needs_decision


def test_without_an_objective_every_report_at_the_budget_needs_a_decision() -> None:
    box = outbox(objective="")
    add(box, range(3, 4), metric="accuracy")
    assert box.needs_decision


def test_a_higher_budget_is_a_verdict_on_the_last_report_and_each_rung_is_answered_itself() -> None:
    box = outbox(steps=10)
    assert box.answered(box.batch(), {"budget": 9}) == {"step": 3, "budget": 9}
    assert steps(box.batch()) == [4, 5, 6, 7, 8, 9]
    assert box.answered(box.batch(), {"budget": 27}) == {"step": 9, "budget": 27}
    assert steps(box.batch()) == [10]


def test_the_budget_it_knew_is_an_acknowledgement_and_no_verdict() -> None:
    box = outbox(steps=2)
    assert box.answered(box.batch(), {"budget": 3}) is None
    assert len(box) == 0
    assert box.acknowledged == {"reports": Acknowledged(20, 2)}


def test_a_stop_is_a_verdict_and_nothing_needs_a_decision_after_it() -> None:
    box = outbox(steps=5)
    assert box.answered(box.batch(), {"stop": "paused at rung 3"}) == {"step": 3, "stop": "paused at rung 3"}
    assert not box.needs_decision
    assert steps(box.batch()) == [4, 5]


@pytest.mark.parametrize("answer", [{}, {"budget": None}, {"budget": True}, {"budget": "9"}, {"stop": 3}])
def test_an_answer_that_says_nothing_acknowledges_nothing(answer: dict[str, object]) -> None:
    box = outbox(steps=3)
    with pytest.raises(ValueError, match="neither budget nor stop"):
        box.answered(box.batch(), answer)
    assert len(box) == 3


def test_a_refused_batch_is_halved_until_the_bad_report_is_found_and_only_that_one_goes() -> None:
    box = outbox(budget=99, steps=20)
    taken: list[int] = []
    dropped: list[int] = []
    while batch := box.batch():
        if 13 not in steps(batch):
            box.answered(batch, {"budget": 99})
            taken += steps(batch)
        elif refused := box.refused(batch):
            dropped.append(refused.step)
    assert dropped == [13]
    assert taken == [step for step in range(1, 21) if step != 13]


def test_the_termination_message_tells_the_first_result_without_a_decision_else_the_last_report() -> None:
    box = outbox()
    assert told(box) is None
    add(box, range(1, 3))
    assert told(box) == 2
    add(box, range(3, 6))
    assert told(box) == 3
    box.answered(box.batch(), {"budget": 9})
    assert told(box) == 5


def test_a_body_stays_below_its_limit() -> None:
    box = outbox(budget=1000)
    for step in range(1, 101):
        box.add(Report(step, {f"metric-{step}-{i}-" + "x" * 100: 1.0 for i in range(60)}), "reports", step)
    pushed: list[int] = []
    while batch := box.batch():
        body = box.body(batch, 1.5)
        assert len(body) <= LONGEST_BODY
        pushed += [report["step"] for report in json.loads(body)["reports"]]
        box.answered(batch, {"budget": 1000})
    assert pushed == list(range(1, 101))


def test_without_answers_progress_is_thinned_but_the_result_the_checkpoint_and_the_last_report_stay() -> None:
    box = outbox(budget=500)
    add(box, range(1, 500))
    add(box, range(500, 501))
    box.add(Report(501, {"loss": 0.5}, "step-501"), "reports", 5010)
    add(box, range(502, 10_000))
    assert told(box) == 500
    pushed: list[int] = []
    saved: list[str] = []
    while batch := box.batch():
        pushed += steps(batch)
        saved += [each.report.checkpoint for each in batch if each.report.checkpoint]
        box.answered(batch, {"budget": 20_000})
    assert pushed == sorted(pushed)
    assert pushed[-1] == 9_999
    assert 500 in pushed
    assert saved == ["step-501"]


@pytest.mark.parametrize("metrics", [{"loss": 0.5}, {f"metric-{i}-{'x' * 100}": 0.5 for i in range(64)}])
def test_what_waits_is_bounded_in_number_and_in_bytes(metrics: dict[str, float]) -> None:
    box = outbox(budget=1_000_000)
    for step in range(1, 3 * MOST_WAITING):
        box.add(Report(step, metrics), "reports", step)
        assert len(box) <= MOST_WAITING
    pushed = b""
    while batch := box.batch():
        pushed += box.body(batch, 1.5)
        box.answered(batch, {"budget": 1_000_000})
    assert len(pushed) < 1.1 * MOST_BYTES


def test_sources_are_acknowledged_each_for_itself() -> None:
    box = outbox(budget=99)
    box.add(Report(1, {"loss": 1.0}), "reports", 30)
    box.add(Report(7, {"loss": 1.0}), "stdout", 400)
    box.answered(box.batch(), {"budget": 99})
    assert box.acknowledged == {"reports": Acknowledged(30, 1), "stdout": Acknowledged(400, 7)}
