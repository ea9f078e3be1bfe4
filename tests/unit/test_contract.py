"""The environment of one leg."""

import json

from halvard.contract import VERDICT_TIMEOUT, environment, trial_seed
from halvard.model import Value
from halvard.study import Study, StudySpec
from halvard.trial import Trial, TrialSpec

STUDY = Study(
    name="digits",
    spec=StudySpec.model_validate(
        {
            "objective": {"metric": "loss", "goal": "minimize"},
            "parameters": [{"name": "lr", "float": {"min": 0.0, "max": 1.0}}],
            "scheduler": {"asha": {"maxBudget": 9}},
            "limits": {"trials": 9},
            "seed": 7,
            "template": {"spec": {"containers": [{"name": "trainer", "image": "registry.example.com/digits:1"}]}},
        }
    ),
)


def told(parameters: dict[str, Value], start: int = 0) -> dict[str, str]:
    trial = Trial(name="digits-0017", spec=TrialSpec(index=17, budget=9, parameters=parameters))
    return environment(STUDY, trial, start, reports="/r", verdict="/v", checkpoint_dir="/c", resume_from="/c/step-3")


def test_a_leg_is_told_everything_the_contract_names() -> None:
    parameters: dict[str, Value] = {"lr": 1e-05, "optimizer": "sgd", "weight-decay": 0.5, "layers": 3, "nesterov": True}
    expected = {
        "HALVARD_STUDY": "digits",
        "HALVARD_TRIAL": "digits-0017",
        "HALVARD_SEED": str(trial_seed(7, 17)),
        "HALVARD_BUDGET": "9",
        "HALVARD_START": "3",
        "HALVARD_CHECKPOINT_DIR": "/c",
        "HALVARD_RESUME_FROM": "/c/step-3",
        "HALVARD_REPORTS": "/r",
        "HALVARD_VERDICT": "/v",
        "HALVARD_VERDICT_TIMEOUT": str(VERDICT_TIMEOUT),
        "HALVARD_PARAMETERS": json.dumps(parameters),
        "HALVARD_PARAM_LR": "1e-05",
        "HALVARD_PARAM_OPTIMIZER": "sgd",
        "HALVARD_PARAM_WEIGHT_DECAY": "0.5",
        "HALVARD_PARAM_LAYERS": "3",
        "HALVARD_PARAM_NESTEROV": "true",
    }
    assert expected == told(parameters, start=3)


def test_a_parameter_that_is_inactive_has_no_variable() -> None:
    assert "HALVARD_PARAM_MOMENTUM" not in told({"lr": 0.1})


def test_every_trial_of_a_study_has_a_seed_of_its_own() -> None:
    seeds = [trial_seed(study_seed, index) for study_seed in range(10) for index in range(1000)]
    assert len(set(seeds)) == len(seeds)


def test_the_seed_of_a_trial_never_changes() -> None:
    assert [trial_seed(7, 0), trial_seed(7, 17), trial_seed(-1, 0)] == [431379789, 1227080543, 3147893850]
