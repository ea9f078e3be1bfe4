"""The Study a user writes: `crds/study.yaml` as frozen values, the only place that knows its field names.

Rules that span fields carry the same words here as the CEL rules of the CRD; `halvard.invalid` gives both one voice.
"""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from fractions import Fraction
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field

from halvard.failure_policy import FailurePolicy
from halvard.invalid import Check, FieldError, InvalidStudy, parse, rule
from halvard.model import LARGEST, Model, Name, Values
from halvard.model import Value as Value  # noqa: PLC0414  # one of this module's words
from halvard.scheduler_spec import Asha as Asha  # noqa: PLC0414  # words of this module, too
from halvard.scheduler_spec import FullBudget as FullBudget  # noqa: PLC0414
from halvard.scheduler_spec import Hyperband as Hyperband  # noqa: PLC0414
from halvard.scheduler_spec import Scheduler as Scheduler  # noqa: PLC0414
from halvard.study_status import StudyStatus
from halvard.template import checked_template

API_VERSION = "halvard.dev/v1alpha1"
MOST_TRIALS = 1_000_000
DURATION = "^([0-9]+h)?([0-9]+m)?([0-9]+s)?$"

Goal = Literal["minimize", "maximize"]
Scale = Literal["linear", "log"]


def sign_of(goal: Goal) -> int:
    """Returns what to multiply values by so that less is better: 1, or -1 where more is."""
    return 1 if goal == "minimize" else -1


class Objective(Model):
    """What is to be optimised; the study ends early once a rung's result reaches `target`."""

    metric: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1F\x7F]+$")]
    goal: Goal
    target: float | None = None

    @rule("metric must be another name than step and checkpoint, which every report has", field="metric")
    def _metric_is_no_field(self) -> bool:
        return self.metric not in ("step", "checkpoint")

    @property
    def sign(self) -> int:
        """What to multiply values by so that less is better."""
        return sign_of(self.goal)


class Range(Model):
    """Numbers in [min, max], drawn evenly on `scale`, on the grid min + k * step where there is a step."""

    min: float
    max: float
    scale: Scale = "linear"
    step: Annotated[float, Field(gt=0)] | None = None

    @rule("min must be less than max", tells=("min", "max"))
    def _ordered(self) -> bool:
        return self.min < self.max

    @rule("min must be greater than 0 where scale is log", field="min", tells=("min",))
    def _has_a_logarithm(self) -> bool:
        return self.scale != "log" or self.min > 0

    @rule("step cannot be combined with scale log: leave one of them out", field="step")
    def _steps_are_linear(self) -> bool:
        return self.step is None or self.scale != "log"

    @rule("step must be no larger than max - min", field="step", tells=("step", "min", "max"))
    def _step_fits(self) -> bool:
        return self.step is None or self.step <= self.max - self.min


class FloatRange(Range):
    """A real number."""


class IntRange(Range):
    """An integer; without a step, any of them."""

    min: Annotated[int, Field(ge=-LARGEST, le=LARGEST)]
    max: Annotated[int, Field(ge=-LARGEST, le=LARGEST)]
    step: Annotated[int, Field(ge=1)] | None = None


class Parameter(Model):
    """One axis of the search space; with `when`, it exists only while every parent named there has a value given."""

    name: Annotated[str, Field(max_length=63, pattern="^[A-Za-z_][A-Za-z0-9_]*$")]
    float: FloatRange | None = None
    int: IntRange | None = None
    choice: Values | None = None
    when: Annotated[Mapping[str, Values], Field(max_length=16)] = Field(default_factory=dict)

    @rule("exactly one of float, int and choice must be set")
    def _one_kind(self) -> bool:
        return sum(kind is not None for kind in (self.float, self.int, self.choice)) == 1

    def allows(self, value: Value) -> bool:
        """Whether the parameter can have this value."""
        if self.choice is not None:
            return (type(value), value) in ((type(choice), choice) for choice in self.choice)
        axis = self.float or self.int
        if axis is None or isinstance(value, str | bool) or not axis.min <= value <= axis.max:
            return False
        step = axis.step if self.float is not None else axis.step or 1
        # in the decimals the user wrote: 0.3 is three times 0.1
        return step is None or (Fraction(repr(value)) - Fraction(repr(axis.min))) % Fraction(repr(step)) == 0


class RandomSampler(Model):
    """Draws every parameter independently."""


class SobolSampler(Model):
    """Takes the points of a scrambled Sobol sequence, which fill the space evenly."""


class GridSampler(Model):
    """Goes through every combination in order, the last parameter fastest."""


class TpeSampler(Model):
    """Learns where good trials lie: the Tree-structured Parzen Estimator (Bergstra et al., NeurIPS 2011)."""


class BohbSampler(Model):
    """The model of BOHB (Falkner et al., ICML 2018): Parzen estimators of good and bad trials, with its constants."""


class GpSampler(Model):
    """A Gaussian process of the results; `acquisition` says what it looks for.

    Expected improvement, an upper confidence bound, or the probability of improvement.
    """

    acquisition: Literal["ei", "ucb", "pi"] = "ei"


class AutoSampler(Model):
    """Predicts the final value from everything that is known, and random where that is no help."""


class Sampler(Model):
    """Picks parameters: exactly one of the fields."""

    auto: AutoSampler | None = None
    random: RandomSampler | None = None
    sobol: SobolSampler | None = None
    grid: GridSampler | None = None
    tpe: TpeSampler | None = None
    bohb: BohbSampler | None = None
    gp: GpSampler | None = None

    @rule("exactly one of auto, random, sobol, grid, tpe, bohb and gp must be set")
    def _one_sampler(self) -> bool:
        kinds = (self.auto, self.random, self.sobol, self.grid, self.tpe, self.bohb, self.gp)
        return sum(kind is not None for kind in kinds) == 1


class Limits(Model):
    """What the whole study may use, and each trial may ask of it. `duration` is text such as `12h` or `1h30m`."""

    trials: Annotated[int, Field(ge=1, le=MOST_TRIALS)] | None = None
    gpu_hours: Annotated[float, Field(gt=0)] | None = None
    duration: Annotated[str, Field(min_length=2, max_length=32, pattern=DURATION)] | None = None
    failed_trials: Annotated[int, Field(ge=0, le=1_000_000)] = 20
    retries: Annotated[int, Field(ge=0, le=1_000_000)] = 10

    @rule("at least one of trials, gpuHours and duration must be set, or the study never ends")
    def _ends(self) -> bool:
        return not (self.trials is None and self.gpu_hours is None and self.duration is None)


class PersistentVolumeClaim(Model):
    """The claim that holds the checkpoints, in the study's namespace."""

    claim_name: Annotated[str, Field(min_length=1, max_length=253)]


class Checkpoint(Model):
    """Where checkpoints are kept between legs."""

    persistent_volume_claim: PersistentVolumeClaim


class Stdout(Model):
    """Reads reports from what the trainer prints: the named groups of `pattern` are the metrics (and `step`)."""

    pattern: Annotated[str, Field(min_length=1, max_length=1024)]

    @Check
    def _compiles(self) -> Iterator[tuple[str, str]]:
        try:
            re.compile(self.pattern)
        except re.error as error:
            yield "pattern", f"must be a Python regular expression: {error}"


class Collector(Model):
    """How reports leave a program that does not write `HALVARD_REPORTS`."""

    stdout: Stdout | None = None


class StudySpec(Model):
    """What the user asked for."""

    objective: Objective
    parameters: Annotated[tuple[Parameter, ...], Field(min_length=1, max_length=64)]
    sampler: Sampler = Sampler(auto=AutoSampler())
    initial_points: Annotated[
        tuple[Annotated[Mapping[str, Value], Field(max_length=64)], ...], Field(max_length=64, default_factory=tuple)
    ]
    scheduler: Scheduler
    parallelism: Annotated[int, Field(ge=0, le=100_000)] = 1
    limits: Limits
    seed: int = 0
    suspend: bool = False
    failure_policy: FailurePolicy | None = None
    checkpoint: Checkpoint | None = None
    collector: Collector = Field(default_factory=Collector)
    template: Annotated[dict[str, Any], AfterValidator(checked_template)]

    def with_trials(self, number: int) -> Self:
        """Returns it with this as the limit of trials."""
        return self.model_copy(update={"limits": self.limits.model_copy(update={"trials": number})})

    @rule("names must be unique, ignoring case: they become environment variables", field="parameters")
    def _names_differ(self) -> bool:
        return len({parameter.name.lower() for parameter in self.parameters}) == len(self.parameters)

    @rule("when must name parameters of the list", field="parameters")
    def _parents_exist(self) -> bool:
        return {parent for p in self.parameters for parent in p.when} <= {p.name for p in self.parameters}

    @rule("grid needs a step on every float parameter, or its values as a choice", field="sampler.grid")
    def _grid_has_steps(self) -> bool:
        return self.sampler.grid is None or all(p.float is None or p.float.step is not None for p in self.parameters)

    @rule(
        "pattern must have a group named as the metric of the objective: (?P<metric>...)",
        field="collector.stdout.pattern",
    )
    def _pattern_finds_the_metric(self) -> bool:
        return self.collector.stdout is None or f"(?P<{self.objective.metric}>" in self.collector.stdout.pattern

    @rule("one container must be named trainer", field="template.spec.containers")
    def _has_a_trainer(self) -> bool:
        return any(container["name"] == "trainer" for container in self.template["spec"]["containers"])

    @rule("trainer must have a command where its stdout is collected", field="template.spec.containers")
    def _trainer_has_a_command(self) -> bool:
        containers = self.template["spec"]["containers"]
        return self.collector.stdout is None or all(c["name"] != "trainer" or c.get("command") for c in containers)

    @Check
    def _parents_come_first_and_have_the_values(self) -> Iterator[tuple[str, str]]:
        parents = {parameter.name: (place, parameter) for place, parameter in enumerate(self.parameters)}
        conditions = [(place, *when) for place, p in enumerate(self.parameters) for when in p.when.items()]
        for place, name, values in conditions:
            parent_place, parent = parents.get(name, (-1, None))
            field = f"parameters[{place}].when.{name}"
            if parent_place >= place:
                yield field, f"{name} must stand earlier in the list than {self.parameters[place].name}"
            for value in values:
                if parent and not parent.allows(value):
                    yield field, f"{json.dumps(value)} is not a value of the parameter {name}"

    @Check
    def _conditions_agree_with_those_of_their_parents(self) -> Iterator[tuple[str, str]]:
        needs: dict[str, dict[str, list[Value]]] = {}  # of each ancestor, the values with which the parameter exists
        for place, parameter in enumerate(self.parameters):
            own = needs[parameter.name] = {}
            for parent, values in parameter.when.items():
                for name, allowed in (*needs.get(parent, {}).items(), (parent, values)):
                    typed = [(type(value) is bool, value) for value in allowed]
                    own[name] = [value for value in own.get(name, allowed) if (type(value) is bool, value) in typed]
            for name in (name for name, left in own.items() if not left):
                when = json.dumps(dict(parameter.when))
                why = f"never holds: with what its parents need, no value of {name} is left"
                yield f"parameters[{place}].when", f"{when} {why}"

    @Check
    def _initial_points_are_in_the_space(self) -> Iterator[tuple[str, str]]:
        parameters = {parameter.name: parameter for parameter in self.parameters}
        entries = [(place, point, name) for place, point in enumerate(self.initial_points) for name in point]
        for place, point, name in entries:
            field, value, parameter = f"initialPoints[{place}].{name}", point[name], parameters.get(name)
            if parameter is None:
                yield field, f"{json.dumps(value)}: there is no parameter {name}"
                continue
            if not parameter.allows(value):
                yield field, f"{json.dumps(value)} is not a value of the parameter {name}"
            for parent, allowed in parameter.when.items():
                if (type(point.get(parent)), point.get(parent)) not in [(type(each), each) for each in allowed]:
                    where = f"{parent} is given too, as one of {json.dumps(allowed)}"
                    yield field, f"{json.dumps(value)}: it exists only where {where}"


class Metadata(Model, extra="ignore"):
    """What Halvard reads of a Study's metadata."""

    name: Name
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    deletion_timestamp: datetime | None = None


class StudyManifest(Model):
    """A Study as YAML files and the API server hold it."""

    api_version: str
    kind: str
    metadata: Metadata
    spec: StudySpec
    status: StudyStatus = StudyStatus()


class Study(Model):
    """A Study and the identity the store gave it (`uid` is empty outside a cluster)."""

    name: str
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    deleting: bool = False
    spec: StudySpec
    status: StudyStatus = StudyStatus()

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any], extra: Literal["ignore"] | None = None) -> Self:
        """Returns the Study that a user wrote or the API server stored; raises InvalidStudy with all that is wrong.

        `extra`: whether to pass over fields that are not known.
        """
        api_version, kind = manifest.get("apiVersion"), manifest.get("kind")
        if (api_version, kind) != (API_VERSION, "Study"):
            wrong = FieldError("kind", f'no matches for kind "{kind}" in version "{api_version}"')
            raise InvalidStudy([wrong])
        read = parse(StudyManifest, {"metadata": {}, **manifest}, extra)
        metadata = read.metadata
        return cls(
            name=metadata.name,
            namespace=metadata.namespace,
            uid=metadata.uid,
            generation=metadata.generation,
            deleting=metadata.deletion_timestamp is not None,
            spec=read.spec,
            status=read.status,
        )
