"""How bad input is put into words; tests/cluster holds the same words against a real API server."""

from typing import Any

import numpy as np
import pytest

from halvard.invalid import FieldError, InvalidStudy, rule
from halvard.study import Study


def manifest(**changes: Any) -> dict[str, Any]:
    spec = {
        "objective": {"metric": "loss", "goal": "minimize"},
        "parameters": [{"name": "lr", "float": {"min": 1, "max": 2}}],
        "scheduler": {"asha": {"maxBudget": 9}},
        "limits": {"trials": 3},
        "template": {"spec": {"containers": [{"name": "trainer"}]}},
    }
    head = {"apiVersion": "halvard.dev/v1alpha1", "kind": "Study", "metadata": {"name": "one"}}
    return {**head, "spec": {**spec, **changes}}


def refused(document: dict[str, Any]) -> InvalidStudy:
    with pytest.raises(InvalidStudy) as invalid:
        Study.from_manifest(document)
    return invalid.value


def test_an_error_is_one_line_with_field_value_and_what_would_be_right() -> None:
    error = FieldError("spec.seed", "Required value")

    assert str(error) == "spec.seed: Required value"


def test_numbers_of_numpy_are_numbers() -> None:
    choices = [
        {"name": "width", "choice": list(np.array([64, 128]))},
        {"name": "norm", "choice": [np.True_, np.False_]},
    ]
    study = Study.from_manifest(manifest(parameters=choices))
    assert [parameter.choice for parameter in study.spec.parameters] == [(64, 128), (True, False)]


def test_everything_that_is_wrong_is_told_at_once() -> None:
    wrong = refused(manifest(paralelism=1, parallelism=-1, objective={"goal": "min"}, seed="7"))

    assert str(wrong).splitlines() == [
        'unknown field "spec.paralelism"',
        "spec.objective.metric: Required value",
        'spec.objective.goal: Unsupported value: "min": supported values: "minimize", "maximize"',
        "spec.parallelism: Invalid value: -1: spec.parallelism in body should be greater than or equal to 0",
        'spec.seed: Invalid value: "string": spec.seed in body must be of type integer: "string"',
    ]


def test_rules_that_span_fields_are_all_told_at_once() -> None:
    parameters = [{"name": "a", "float": {"min": 2, "max": 1, "step": 5, "scale": "log"}}]
    wrong = refused(manifest(parameters=parameters, limits={}, sampler={}))

    assert [(error.field, error.message.removeprefix('Invalid value: "object": ')) for error in wrong.errors] == [
        ("spec.parameters[0].float", "min must be less than max: min is 2, max is 1"),
        ("spec.parameters[0].float.step", "step cannot be combined with scale log: leave one of them out"),
        ("spec.parameters[0].float.step", "step must be no larger than max - min: step is 5, min is 2, max is 1"),
        ("spec.sampler", "exactly one of auto, random, sobol, grid, tpe, bohb and gp must be set"),
        ("spec.limits", "at least one of trials, gpuHours and duration must be set, or the study never ends"),
    ]


@pytest.mark.parametrize(
    ("value", "got"),
    [("7", "string"), (7.5, "number"), (True, "boolean"), ([7], "array"), ({"a": 7}, "object")],
)
def test_types_are_as_strict_as_the_api_servers(value: object, got: str) -> None:
    wrong = refused(manifest(seed=value))

    assert str(wrong) == f'spec.seed: Invalid value: "{got}": spec.seed in body must be of type integer: "{got}"'


def test_a_parameter_that_yaml_takes_for_a_boolean_is_refused_with_the_remedy() -> None:
    wrong = refused(manifest(parameters=[{"name": False, "int": {"min": 1, "max": 2}}]))

    assert str(wrong).startswith("spec.parameters[0].name: ")
    assert "unless they are quoted" in str(wrong)


@pytest.mark.parametrize("kind", ["float", "int"])
def test_a_range_that_is_no_mapping_is_named_itself(kind: str) -> None:
    wrong = refused(manifest(parameters=[{"name": "lr", kind: [1, 2]}]))

    assert [error.field for error in wrong.errors] == [f"spec.parameters[0].{kind}"]


def test_fields_have_the_names_of_the_custom_resource_and_no_others() -> None:
    wrong = refused(manifest(limits={"trials": 3, "failed_trials": 1}))

    assert str(wrong) == 'unknown field "spec.limits.failed_trials"'


def test_a_bound_is_told_in_full() -> None:
    assert str(refused(manifest(limits={"trials": 10**7}))).endswith("should be less than or equal to 1000000")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_target_that_is_not_finite_is_refused(value: float) -> None:
    wrong = refused(manifest(objective={"metric": "loss", "goal": "minimize", "target": value}))

    assert [error.field for error in wrong.errors] == ["spec.objective.target"]


@pytest.mark.parametrize("document", [{}, {"apiVersion": "v1", "kind": "Pod"}])
def test_something_else_than_a_study_is_refused(document: dict[str, Any]) -> None:
    api_version, kind = document.get("apiVersion"), document.get("kind")

    assert f'no matches for kind "{kind}" in version "{api_version}"' in str(refused(document))


def test_a_study_without_metadata_lacks_a_name() -> None:
    document = manifest()
    del document["metadata"]

    assert str(refused(document)) == "metadata.name: Required value"


def test_a_rule_keeps_the_words_of_its_field() -> None:
    made = rule("must be odd", field="step")(lambda value: value % 2 == 1)

    assert (made.field, made.message, made.holds(3), made.holds(4)) == ("step", "must be odd", True, False)
