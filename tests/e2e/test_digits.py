"""The example as a newcomer runs it: real training in real Pods, and its answer read with kubectl."""

from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

from e2e.studies import Studies, eventually, show
from lab.audit import Write, of_trial, tally, writes
from lab.cluster import OPERATOR, Cluster
from lab.images import DIGITS

STUDY = Path(__file__).parents[2] / "examples" / "digits" / "study.yaml"
TRIALS = 60


@pytest.fixture(scope="module")
def digits(shared: Studies) -> Studies:
    """The finished study, and its tables of halfway and of the end."""
    shared.kubectl("apply", "-f", "-", input=STUDY.read_text().replace(DIGITS, shared.cluster.trainer_image))
    shared.kubectl("patch", "study/digits", "--type=merge", '--patch={"spec": {"parallelism": 4}}')
    eventually(lambda: shared.study("digits").get("highestRung", 0) >= 9)
    show("during", shared.kubectl("get", "studies,trials"))
    shared.wait_complete("digits")
    show("after", shared.kubectl("get", "studies,trials"))
    show("study", shared.kubectl("describe", "study", "digits"))
    return shared


def test_the_study_is_complete_and_every_trial_has_a_result(digits: Studies) -> None:
    status = digits.study("digits")
    assert digits.condition("Complete", "digits")["reason"] == "TrialsFinished"
    assert (status["state"], status["trials"]["total"], status["trials"]["failed"]) == ("Complete", TRIALS, 0)
    assert {trial["status"]["rungs"][0]["budget"] for trial in digits.every("trials")} == {1}


def test_the_best_trial_is_the_best_of_the_highest_rung(digits: Studies) -> None:
    best = digits.study("digits")["best"]
    finished = {
        trial["metadata"]["name"]: trial["status"]["rungs"][-1]["value"]
        for trial in digits.every("trials")
        if trial["status"]["state"] == "Complete"
    }
    assert (best["budget"], best["trial"]) == (27, min(finished, key=lambda name: finished[name]))
    assert best["value"] == finished[best["trial"]] < 0.2  # a network that guesses has ln 10 = 2.3


def test_the_rungs_of_the_study_count_its_trials(digits: Studies) -> None:
    trials = digits.every("trials")
    results = Counter(rung["budget"] for trial in trials for rung in trial["status"]["rungs"])
    promoted = Counter(
        rung["budget"]
        for trial in trials
        for rung in trial["status"]["rungs"]
        if trial["spec"]["budget"] > rung["budget"]
    )
    rungs = digits.study("digits")["rungs"]
    assert {rung["budget"]: (rung["completed"], rung["promoted"]) for rung in rungs} == {
        budget: (results[budget], promoted[budget]) for budget in (1, 3, 9, 27)
    }


def test_gpu_hours_are_those_of_the_trials(digits: Studies) -> None:
    seconds = sum(
        trial["status"].get("lost", {}).get("gpuSeconds", 0)
        + sum(rung["gpuSeconds"] for rung in trial["status"]["rungs"])
        for trial in digits.every("trials")
    )
    assert seconds > 0
    assert digits.study("digits")["gpuHours"]["total"] == pytest.approx(seconds / 3600, abs=1e-4)


def test_a_promoted_trial_tells_why(digits: Studies) -> None:
    best = digits.study("digits")["best"]["trial"]
    described = digits.kubectl("describe", "trial", best)
    show("promoted trial", described)
    trial = digits.get("trial", best)
    at_9 = next(rung["value"] for rung in trial["status"]["rungs"] if rung["budget"] == 9)
    assert f"promoted: value {at_9:g} is place " in described
    assert "at rung 9;" in described
    assert "(cut-off " in described
    assert "finished the full budget of 27" in described


def test_every_leg_is_counted(digits: Studies) -> None:
    hot, cold = promotions(digits)
    assert hot + cold == sum(rung["promoted"] for rung in digits.study("digits")["rungs"])
    assert digits.metric("halvard_legs_started_total") == TRIALS + cold


def test_every_leg_has_one_pod(digits: Studies, lab: Cluster) -> None:
    made = [write for write in writes(lab.audit, digits.namespace) if not write.by_a_kubelet]
    created = [write.name for write in made if (write.verb, write.resource) == ("create", "pods")]
    show("what it took", "\n".join(took(digits, made)))
    assert len(created) == len(set(created)) == digits.metric("halvard_legs_started_total")


def promotions(studies: Studies) -> tuple[float, float]:
    """How many there were: hot and cold."""
    hot, cold = (studies.metric("halvard_promotions_total", mode=mode) for mode in ("hot", "cold"))
    return hot, cold


def took(studies: Studies, made: list[Write]) -> Iterator[str]:
    """Promotions, Pods and writes in a few lines."""
    hot, cold = promotions(studies)
    pods = studies.metric("halvard_legs_started_total")
    yield f"promotions: {hot:.0f} hot, {cold:.0f} cold"
    yield f"Pods: {pods:.0f} for {TRIALS} trials, {pods / TRIALS:.2f} a trial"
    own = [write for write in made if write.user == OPERATOR]
    yield f"writes but the kubelets': {len(made) / TRIALS:.1f} a trial, {len(own) / TRIALS:.1f} of them the operator's"
    yield tally(made)
    climbed = [trial["metadata"]["name"] for trial in studies.every("trials") if len(trial["status"]["rungs"]) == 3]
    theirs = [of_trial(own, name) for name in climbed]
    yield f"the operator's for {len(climbed)} trials with three rungs: {sum(map(len, theirs)) / len(climbed):.1f} each"
    yield tally(chain.from_iterable(theirs))
