"""Studies that the API server takes, but whose Pods it refuses: a condition in its own words, and no trial is burnt."""

import copy
from typing import Any

import pytest

from e2e.studies import Manifest, Studies, python, study, template

TRAINER = """
from halvard_trainer import Trial
trial = Trial.from_environment()
for step in trial.steps():
    trial.report(loss=1 / step)
"""


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("imagePullPolicy", "Sometimes", 'spec.containers[0].imagePullPolicy: Unsupported value: "Sometimes"'),
        ("securityContext", {}, 'violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false'),
    ],
)
def test_a_template_whose_pods_are_refused_degrades_the_study_until_it_is_mended(
    studies: Studies, field: str, value: Any, words: str
) -> None:
    sound = study(template(studies.cluster, python(TRAINER)), ["a", "b"], parallelism=2)
    studies.apply(with_trainer(sound, field, value))
    assert words in studies.wait_degraded("PodRefused")
    assert studies.every("pods") == []
    studies.apply(sound)
    studies.wait_complete()
    assert studies.condition("Degraded")["status"] == "False"
    assert nothing_was_burnt(studies)


def test_a_study_that_only_the_operator_can_see_through_is_degraded_until_it_is_mended(studies: Studies) -> None:
    sound = study(template(studies.cluster, python(TRAINER)), ["a", "b"])
    broken = copy.deepcopy(sound)
    broken["spec"]["parameters"].append({"name": "momentum", "choice": [0.9], "when": {"x": ["c"]}})
    studies.apply(broken)
    message = studies.wait_degraded("InvalidSpec")
    assert message == 'spec.parameters[1].when.x: Invalid value: "c" is not a value of the parameter x'
    assert studies.every("trials") == []
    studies.apply(sound)
    studies.wait_complete()
    assert studies.condition("Degraded")["status"] == "False"
    assert nothing_was_burnt(studies)


def with_trainer(manifest: Manifest, field: str, value: Any) -> Manifest:
    """The Study with one field of its trainer changed."""
    changed = copy.deepcopy(manifest)
    changed["spec"]["template"]["spec"]["containers"][0][field] = value
    return changed


def nothing_was_burnt(studies: Studies) -> bool:
    """Whether every trial of the finished study came to a result, in one Pod, without a fault."""
    return all(
        len(trial["status"]["rungs"]) == 1
        and trial["status"]["faults"] == 0
        and len(studies.pods_of(trial["spec"]["index"])) == 1
        for trial in studies.every("trials")
    )
