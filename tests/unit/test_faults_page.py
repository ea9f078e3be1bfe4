"""docs/faults.md against the code, both ways: each rule in its order, each reason, and what each Pod is taken for."""

import re
from pathlib import Path

import pytest

from halvard import apply, faults, reconcile
from halvard.observe import observe
from podstatus import pod
from unit import test_faults

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/faults.md").read_text()


def rows(section: str) -> list[list[str]]:
    """The cells of a section's tables, without their heads."""
    text = PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return [row for row in cells if row[0] not in ("rule", "reason", "---")]


def names(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


RULES = [(*names(rule), *names(reason), counted) for rule, reason, counted, *_ in rows("The rules")]


def test_the_rules_stand_in_the_order_in_which_they_are_asked() -> None:
    in_order = list(dict.fromkeys(rule for rule, *_ in (row for row in RULES if len(row) == 3)))
    assert in_order == [check.__name__ for check in faults.CHECKS]


def test_each_rule_has_exactly_the_reasons_that_it_gives() -> None:
    given = set()
    for status, _, _ in (*test_faults.INFRASTRUCTURE.values(), *test_faults.CONFIGURATION.values()):
        ending = faults._ending(status)
        check, fault = next((check, fault) for check in faults.CHECKS if (fault := check(ending)))
        given.add((check.__name__, fault.reason, "yes" if fault.counted else "no"))
    of_no_pod = {(faults.POD_VANISHED, "no"), (faults.NODE_SUSPECT, "no"), (faults.RETRIES_EXHAUSTED, "yes")}
    assert set(RULES) - given == of_no_pod
    assert given <= set(RULES)


def test_every_reason_of_a_class_is_on_the_page_and_no_other() -> None:
    counted = {row[-2] for row in RULES if row[-1] == "yes"}
    not_counted = {row[-2] for row in RULES if row[-1] == "no"}
    assert (not_counted, counted) == (set(faults.INFRASTRUCTURE), set(faults.CONFIGURATION))


@pytest.mark.parametrize("word", faults._NODE_REASONS)
def test_every_reason_that_a_kubelet_may_give_stands_with_ours(word: str) -> None:
    [shown] = [
        row[3] for row in rows("The rules") if row[:2] == ["`ended_by_its_node`", f"`{faults._NODE_REASONS[word]}`"]
    ]
    assert word in names(shown)


def test_every_reason_for_which_a_pod_cannot_start_is_on_the_page_and_is_stuck() -> None:
    told = [reason for row in rows("Pods that cannot start") for reason in names(row[0])]
    assert len(told) == len(set(told))
    found = {}
    for reason in told:
        waiting = pod({"waiting": {"reason": reason, "message": "why"}}, phase="Pending")
        found[reason] = observe(waiting).stuck
    assert {stuck.reason for stuck in found.values() if stuck and not stuck.counted} == set(told)
    source = (ROOT / "operator/halvard/observe.py").read_text()
    assert set(re.findall(r'^        "(\w+)",', source, re.MULTILINE)) == set(told)


def test_every_refusal_is_on_the_page_and_no_other() -> None:
    told = [reason for row in rows("Pods and Trials that are refused") for reason in names(row[0])]
    of_pods = (
        apply.QUOTA_EXHAUSTED,
        apply.POD_REFUSED,
        apply.TEMPLATE_NOT_ALLOWED,
        apply.POD_NOT_CREATED,
        apply.POD_NOT_DELETED,
    )
    of_trials = (reconcile.TRIALS_DO_NOT_FIT, reconcile.TRIAL_REFUSED, reconcile.TRIAL_NOT_STORED)
    assert told == [*of_pods, reconcile.INVALID_SPEC, *of_trials]
    source = "".join((ROOT / "operator/halvard" / name).read_text() for name in ("apply.py", "reconcile.py"))
    assert set(told) == set(re.findall(r'^[A-Z_]+ = "([A-Z]\w+)"$', source, re.MULTILINE))
