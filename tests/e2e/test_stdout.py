"""A program that knows nothing of Halvard: it prints, and its output is all there is."""

import pytest

from e2e.studies import Studies, study, template

PROGRAM = """
trap 'echo "epoch 2: loss=0.5"; exit' TERM
echo "learning rate $0, $1 epochs"
for epoch in $(seq 1 $1); do
  echo "epoch $epoch: loss=$0$epoch"
  [ "$0" != waits ] || { sleep 1000 & wait; }
done
echo done
"""
COMMAND = ["sh", "-c", PROGRAM, "$(HALVARD_PARAM_X)", "$(HALVARD_BUDGET)"]
COLLECTOR = {"stdout": {"pattern": r"epoch (?P<step>\d+): loss=(?P<loss>[\d.]+)"}}
VALUES = [1, 2, 3]  # the first epochs end with losses of 11, 21 and 31


@pytest.fixture(scope="module")
def printed(shared: Studies) -> Studies:
    """A finished study of which trial 0 was promoted."""
    shared.apply(study(template(shared.cluster, COMMAND), VALUES, collector=COLLECTOR, parallelism=3))
    shared.wait_complete()
    return shared


def test_its_results_are_what_it_printed(printed: Studies) -> None:
    rungs = [[(r["budget"], r["value"]) for r in trial["status"]["rungs"]] for trial in printed.every("trials")]
    assert rungs == [[(1, 11), (3, 13)], [(1, 21)], [(1, 31)]]


def test_promoted_it_starts_over_with_more_to_do(printed: Studies) -> None:
    assert printed.pods_of(0) == ["search-0000-1", "search-0000-2"]
    printed.wait("pod/search-0000-2", "jsonpath={.status.phase}=Succeeded")
    assert printed.logs("search-0000-2").splitlines() == [
        "learning rate 1, 3 epochs",
        "epoch 1: loss=11",
        "epoch 2: loss=12",
        "epoch 3: loss=13",
        "done",
    ]


def test_sigterm_reaches_it_and_its_last_words_count(studies: Studies) -> None:
    has_begun = {"exec": {"command": ["grep", "--quiet", "learning rate", "/halvard/stdout"]}, "periodSeconds": 1}
    trainer = template(studies.cluster, COMMAND, readinessProbe=has_begun)
    ladder = {"asha": {"minBudget": 2, "maxBudget": 4, "reductionFactor": 2}}
    studies.apply(study(trainer, ["waits"], collector=COLLECTOR, scheduler=ladder))
    studies.wait("pod/search-0000-1", "condition=Ready")
    studies.kubectl("delete", "pod", "search-0000-1", "--wait=false")
    studies.wait_complete()
    status = studies.trial(0)["status"]
    assert [(rung["budget"], rung["value"]) for rung in status["rungs"]] == [(2, 0.5)]
    assert (status["state"], status["faults"]) == ("Paused", 0)
