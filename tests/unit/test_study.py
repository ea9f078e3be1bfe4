"""The Study as a value: what a manifest becomes, what only Python can check, and that the CRDs say the same."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from halvard.invalid import InvalidStudy, Rule
from halvard.ladder import rungs
from halvard.model import LARGEST
from halvard.scheduler_spec import MOST_RUNGS
from halvard.study import Parameter, Study, StudySpec
from halvard.study_status import StudyStatus
from halvard.template import PodTemplate
from halvard.trial import Trial, TrialSpec, TrialStatus

ROOT = Path(__file__).parents[2]
SAMPLE = yaml.safe_load((ROOT / "tests/cluster/wellformed/design.yaml").read_text())
Facts = dict[str, dict[str, Any]]


def sample(**spec: Any) -> dict[str, Any]:
    return {**copy.deepcopy(SAMPLE), "spec": {**copy.deepcopy(SAMPLE["spec"]), **spec}}


def errors(manifest: dict[str, Any]) -> str:
    with pytest.raises(InvalidStudy) as invalid:
        Study.from_manifest(manifest)
    return str(invalid.value)


# --- what a manifest becomes ------------------------------------------------------------------------------------------


def test_the_sample_study_of_the_design_is_read_as_written() -> None:
    study = Study.from_manifest(SAMPLE)

    assert study.name == "cifar-resnet"
    assert study.namespace == "default"
    assert [parameter.name for parameter in study.spec.parameters] == ["lr", "layers", "optimizer", "momentum"]
    assert study.spec.parameters[3].when == {"optimizer": ("sgd",)}
    assert study.spec.limits.gpu_hours == 100
    assert study.spec.template == SAMPLE["spec"]["template"]


def test_a_stored_study_brings_its_identity_and_status() -> None:
    stored = sample()
    metadata = {"uid": "u", "namespace": "ml", "generation": 3, "deletionTimestamp": "2026-01-01T00:00:00Z"}
    stored["metadata"] |= metadata | {"resourceVersion": "7", "managedFields": []}
    stored["status"] = {"state": "Running", "startTime": "2026-01-01T00:00:00Z", "trials": {"running": 2}}

    study = Study.from_manifest(stored)

    assert (study.uid, study.namespace, study.generation, study.deleting) == ("u", "ml", 3, True)
    assert (study.status.state, study.status.trials.running) == ("Running", 2)


def test_what_is_left_out_or_null_has_its_default() -> None:
    spec = Study.from_manifest(sample(parallelism=None, sampler=None, checkpoint=None)).spec

    assert spec.parallelism == 1
    assert spec.sampler.auto is not None
    assert spec.checkpoint is None


def test_a_whole_number_is_an_integer_however_it_is_written() -> None:
    spec = Study.from_manifest(sample(parallelism=8.0, parameters=[{"name": "x", "choice": [1.0, 2.5]}])).spec

    assert spec.parallelism == 8
    assert json.dumps(spec.parameters[0].choice) == "[1, 2.5]"


def test_a_trial_is_read_as_the_api_server_holds_it() -> None:
    results = [{"budget": 1, "value": 0.61, "step": 1, "seconds": 4.5, "at": "2026-01-01T00:00:00.5Z"}]
    stored = {
        "metadata": {"name": "a-0017", "uid": "u", "resourceVersion": "9"},
        "spec": {"index": 17, "budget": 3, "parameters": {"lr": 0.1, "layers": 4, "bias": True}},
        "status": {"state": "Running", "rungs": results},
    }

    trial = Trial.from_manifest(stored)

    assert (trial.name, trial.uid, trial.version, trial.index, trial.done) == ("a-0017", "u", "9", 17, 1)
    assert json.dumps(trial.spec.parameters) == '{"lr": 0.1, "layers": 4, "bias": true}'
    assert trial.assigned


# --- what only Python can check (the API server takes it; the operator says it in a condition) -----------------------


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        (
            [{"name": "a", "choice": [1], "when": {"b": [1]}}, {"name": "b", "choice": [1]}],
            "spec.parameters[0].when.b: Invalid value: b must stand earlier in the list than a",
        ),
        (
            [{"name": "a", "choice": [1], "when": {"a": [1]}}],
            "spec.parameters[0].when.a: Invalid value: a must stand earlier in the list than a",
        ),
        (
            [{"name": "a", "choice": ["x", True]}, {"name": "b", "choice": [1], "when": {"a": ["x", 1]}}],
            "spec.parameters[1].when.a: Invalid value: 1 is not a value of the parameter a",
        ),
        (
            [{"name": "a", "int": {"min": 1, "max": 3}}, {"name": "b", "choice": [1], "when": {"a": [4]}}],
            "spec.parameters[1].when.a: Invalid value: 4 is not a value of the parameter a",
        ),
        (
            [{"name": "a", "float": {"min": 1, "max": 3}}, {"name": "b", "choice": [1], "when": {"a": ["2"]}}],
            'spec.parameters[1].when.a: Invalid value: "2" is not a value of the parameter a',
        ),
        (
            [
                {"name": "a", "choice": [1, 2, True]},
                {"name": "b", "choice": ["u"], "when": {"a": [1, 2]}},
                {"name": "c", "choice": ["v"], "when": {"b": ["u"], "a": [2]}},
                {"name": "d", "choice": ["w"], "when": {"a": [True, 1], "c": ["v"]}},
            ],
            (
                'spec.parameters[3].when: Invalid value: {"a": [true, 1], "c": ["v"]} '
                "never holds: with what its parents need, no value of a is left"
            ),
        ),
    ],
)
def test_a_condition_that_can_never_hold_is_refused(parameters: list[dict[str, Any]], words: str) -> None:
    assert errors(sample(parameters=parameters)) == words


def test_a_value_that_is_no_scalar_is_refused() -> None:
    place = "spec.parameters[0].choice[0]"

    assert errors(sample(parameters=[{"name": "a", "choice": [{"x": 1}]}])) == (
        f'{place}: Invalid value: "object": {place} in body must be of type string,integer,number,boolean: "object"'
    )


def test_more_brackets_than_rungs_are_refused() -> None:
    scheduler = {"asha": {"minBudget": 2, "maxBudget": 27, "reductionFactor": 3, "brackets": 5}}

    assert errors(sample(scheduler=scheduler)) == (
        "spec.scheduler.asha.brackets: Invalid value: 5 must be no more than there are rungs, 4: 2, 6, 18, 27"
    )


def test_no_ladder_has_more_rungs_than_the_crd_allows_brackets() -> None:
    assert len(rungs(1, LARGEST, 2)) == MOST_RUNGS


@pytest.mark.parametrize(
    ("point", "words"),
    [
        ({"rate": 0.01}, "rate: Invalid value: 0.01: there is no parameter rate"),
        ({"lr": 0.5}, "lr: Invalid value: 0.5 is not a value of the parameter lr"),
        ({"lr": "0.01"}, 'lr: Invalid value: "0.01" is not a value of the parameter lr'),
        ({"layers": 2.5}, "layers: Invalid value: 2.5 is not a value of the parameter layers"),
        ({"optimizer": "lion"}, 'optimizer: Invalid value: "lion" is not a value of the parameter optimizer'),
        (
            {"lr": [0.1]},
            'lr: Invalid value: "array": spec.initialPoints[1].lr in body must be of type string,integer,number,',
        ),
        (
            {"optimizer": "adamw", "momentum": 0.5},
            'momentum: Invalid value: 0.5: it exists only where optimizer is given too, as one of ["sgd"]',
        ),
    ],
)
def test_an_initial_point_outside_the_space_is_refused_with_field_and_value(point: dict[str, Any], words: str) -> None:
    assert errors(sample(initialPoints=[{"layers": 3}, point])).startswith(f"spec.initialPoints[1].{words}")


def test_an_initial_point_may_be_whole_partial_or_empty() -> None:
    points = [{"lr": 0.1, "layers": 8, "optimizer": "sgd", "momentum": 0.5}, {"layers": 2}, {}]

    assert Study.from_manifest(sample(initialPoints=points)).spec.initial_points == tuple(points)


def test_a_value_between_the_steps_of_a_parameter_is_none_of_its_own() -> None:
    stepped = Parameter.model_validate({"name": "x", "float": {"min": 0.0, "max": 0.35, "step": 0.1}})

    tried = (-0.1, 0, 0.05, 0.1, 0.3, 0.30000000000000004, 0.35, 0.4)
    assert [value for value in tried if stepped.allows(value)] == [0, 0.1, 0.3]


def test_a_pattern_that_is_no_regular_expression_is_refused() -> None:
    collector = {"stdout": {"pattern": "(?P<val_loss>.+"}}

    assert errors(sample(collector=collector)) == (
        "spec.collector.stdout.pattern: Invalid value: must be a Python regular expression: "
        "missing ), unterminated subpattern at position 0"
    )


# --- the CRDs and the models say the same -----------------------------------------------------------------------------


def crd(kind: str) -> dict[str, Any]:
    document = yaml.safe_load((ROOT / f"crds/{kind}.yaml").read_text())
    properties: dict[str, Any] = document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    return properties


def children(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from ((f".{name}", inner) for name, inner in schema.get("properties", {}).items())
    for name, key in (("[]", "items"), (".*", "additionalProperties")):
        if isinstance(schema.get(key), dict):
            yield name, schema[key]


KEPT = (
    *("type", "enum", "format", "pattern", "minLength", "maxLength", "minItems", "maxItems", "maxProperties"),
    *("minimum", "maximum", "exclusiveMinimum", "default"),
)


def facts(schema: dict[str, Any], path: str = "") -> Facts:
    """What a CRD's schema says about each field below it, by path."""
    said = {key: schema[key] for key in KEPT if key in schema}
    if said.get("exclusiveMinimum") is True:
        said["exclusiveMinimum"] = said.pop("minimum")
    said["required"] = sorted(schema.get("required", []))
    found = {path: said}
    for name, inner in children(schema):
        found |= facts(inner, path + name)
    return found


def plain(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """A model's JSON schema in the form CRDs have: nothing by reference, no null, scalars of any type untyped."""
    schema = {**schema}
    if reference := schema.pop("$ref", None):
        schema = {**definitions[reference.removeprefix("#/$defs/")], **schema}
    alternatives = [inner for inner in schema.pop("anyOf", []) if inner != {"type": "null"}]
    if len(alternatives) == 1:
        schema = {**plain(alternatives[0], definitions), **schema}
    if "const" in schema:
        schema["enum"] = [schema.pop("const")]
    if schema.get("default", ...) is None:
        del schema["default"]
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            schema[key] = plain(schema[key], definitions)
    if "properties" in schema:
        schema["properties"] = {name: plain(inner, definitions) for name, inner in schema["properties"].items()}
    return schema


def model_facts(model: type[BaseModel]) -> Facts:
    schema = model.model_json_schema()
    return facts(plain(schema, schema.get("$defs", {})))


def without_defaults(found: Facts) -> Facts:
    return {path: {key: value for key, value in said.items() if key != "default"} for path, said in found.items()}


def test_the_crd_and_the_model_of_a_spec_are_the_same() -> None:
    expected = model_facts(StudySpec)
    expected |= {f".template{path}": said for path, said in model_facts(PodTemplate).items()}
    expected[".sampler"]["default"] = {"auto": {}}  # pydantic writes the absent grid as a null

    assert expected == facts(crd("study")["spec"])


@pytest.mark.parametrize(
    ("kind", "part", "model"),
    [("study", "status", StudyStatus), ("trial", "spec", TrialSpec), ("trial", "status", TrialStatus)],
)
def test_the_crd_and_the_model_of_what_halvard_writes_are_the_same(
    kind: str, part: str, model: type[BaseModel]
) -> None:
    assert without_defaults(model_facts(model)) == without_defaults(facts(crd(kind)[part]))


@pytest.mark.parametrize(
    ("kind", "part", "model"),
    [("study", "status", StudyStatus), ("trial", "spec", TrialSpec), ("trial", "status", TrialStatus)],
)
def test_a_default_in_the_crd_is_the_default_of_the_model(kind: str, part: str, model: type[BaseModel]) -> None:
    ours = model_facts(model)
    defaults = {path: said["default"] for path, said in facts(crd(kind)[part]).items() if path and "default" in said}

    assert defaults == {path: ours[path].get("default") for path in defaults}
    assert defaults


def cel_rules(schema: dict[str, Any], path: str = "") -> set[tuple[str, str]]:
    own = {(path + rule.get("fieldPath", ""), rule["message"]) for rule in schema.get("x-kubernetes-validations", ())}
    return own.union(*(cel_rules(inner, path + name) for name, inner in children(schema)))


def python_rules(model: type[BaseModel], path: str = "") -> set[tuple[str, str]]:
    rules = [value for kind in model.__mro__ for value in vars(kind).values() if isinstance(value, Rule)]
    found = {(f"{path}.{rule.field}".removesuffix("."), rule.message) for rule in rules}
    for name, field in model.model_fields.items():
        for inner, suffix in models_in(field.annotation):
            found |= python_rules(inner, f"{path}.{field.alias or name}{suffix}")
    return found


def models_in(annotation: Any, suffix: str = "") -> Iterator[tuple[type[BaseModel], str]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, suffix
    for inner in getattr(annotation, "__args__", ()):
        yield from models_in(inner, suffix + "[]" * (getattr(annotation, "__origin__", None) is tuple))


def test_every_rule_in_cel_is_a_rule_in_python_with_the_same_words_and_the_other_way_round() -> None:
    assert cel_rules(crd("study")["spec"]) == python_rules(StudySpec)


def test_every_field_of_a_study_is_described() -> None:
    def undescribed(schema: dict[str, Any], path: str) -> list[str]:
        missing = [] if "description" in schema or path.endswith(("[]", ".*")) else [path]
        return missing + [inner for name, child in children(schema) for inner in undescribed(child, path + name)]

    assert undescribed(crd("study")["spec"], "spec") == []
