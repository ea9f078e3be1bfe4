"""A Study that its user edits at any moment, and Trials that somebody wrote to: nothing is lost, nothing crashes."""

import copy
import heapq
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from typing_extensions import override

from halvard.decide import decide
from halvard.events import Ended, Event, Fault, Reported, Started
from halvard.misfit import misfit
from halvard.plan import StartLeg
from halvard.progress import Progress
from halvard.status import study_status
from halvard.study import Study
from halvard.trial import Trial
from halvard_trainer.reports import Report
from history import History
from simulation.world import CRASHED, EVICTED, World, chance, check_lives, study

Change = dict[str, Any]


@dataclass
class EditedWorld(World):
    """A world whose Study is edited: `edits` are seconds since its start, and the fields that change then."""

    edits: list[tuple[float, Change]] = field(default_factory=list)

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        self.most, self.most_trials = self.study.spec.parallelism, self.study.spec.limits.trials or 0
        for seconds, change in self.edits:
            self.later(seconds, partial(self.edit, change))

    def edit(self, change: Change) -> list[Event]:
        spec = self.study.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
        edited = Study.model_validate({"name": "s", "uid": "u", "spec": {**spec, **change}}).spec
        self.study = self.study.model_copy(update={"spec": edited, "generation": self.study.generation + 1})
        self.most = max(self.most, edited.parallelism)
        if self.progress.outcome is None:
            self.most_trials = max(self.most_trials, edited.limits.trials or 0)
        self.progress.update_study(self.study)
        return []

    @override
    def recover(self) -> None:
        """A Pod that was deleted for an edit, its start not stored yet, and nobody saw it go: it leaves no trace."""
        for leg in [leg for leg in self.started if leg not in self.attempts and leg not in self.over]:
            trial = self.stored[leg[0]]
            if trial.attempt == leg[1] and trial.assigned and trial.status.state != "Running":
                self.started.remove(leg)
                self.pods = {uid: pod for uid, pod in self.pods.items() if (pod.trial, pod.attempt) != leg}
        super().recover()

    @override
    def history(self) -> History:
        limits = self.study.spec.limits.model_copy(update={"trials": self.most_trials})
        highest = self.study.model_copy(update={"spec": self.study.spec.model_copy(update={"limits": limits})})
        return replace(super().history(), study=highest, parallelism=self.most)


def template(number: int) -> Change:
    return {"spec": {"containers": [{"name": "trainer", "image": f"trainer:{number}"}]}}


LIMITS = st.fixed_dictionaries({"trials": st.integers(1, 25), "failedTrials": st.integers(0, 9)})
CHANGES = st.one_of(
    st.integers(0, 5).map(lambda number: {"parallelism": number}),
    st.booleans().map(lambda suspend: {"suspend": suspend}),
    st.integers(0, 3).map(lambda number: {"template": template(number)}),
    LIMITS.map(lambda limits: {"limits": limits}),
)


@settings(max_examples=120)
@given(
    edits=st.lists(st.tuples(st.floats(0, 60), CHANGES), max_size=12),
    seed=st.integers(0, 2**32),
    lose_at=st.frozensets(st.integers(1, 300), max_size=9),
    places=st.sampled_from([2.0, 1e9]),
)
def test_a_study_edited_at_any_moment_ends_and_its_history_is_sound(
    edits: list[tuple[float, Change]], seed: int, lose_at: frozenset[int], places: float
) -> None:
    def fault(trial: int, attempt: int, step: int) -> Fault | None:
        draw = chance(seed, "fault", trial, attempt, step).random()
        return EVICTED if draw < 0.05 else CRASHED if draw < 0.06 else None

    at_last = (61.0, {"parallelism": 2, "suspend": False})
    world = EditedWorld(
        study(limits={"trials": 12, "failedTrials": 9}),
        fault=fault,
        places=places,
        edits=[*edits, at_last],
        lose_at=lose_at,
    ).run()
    check_lives(world)
    assert world.study.status.state in ("Complete", "Failed")
    assert world.study.status.observed_generation == world.study.generation


@pytest.mark.parametrize("change", [{"parallelism": 0}, {"suspend": True}])
def test_a_study_that_may_run_nothing_keeps_all_that_it_has_found(change: Change) -> None:
    world = EditedWorld(study(), edits=[(4.0, change), (500.0, {"parallelism": 3, "suspend": False})])
    world.run()
    undisturbed = World(study()).run()
    assert set(world.values()) >= {(i, b) for i, b in undisturbed.values() if b == 1}
    assert all(trial.status.faults == 0 for trial in world.stored.values())
    paused = [action for action in world.actions if isinstance(action, StartLeg)]
    assert len(paused) > len(undisturbed.started)


# --- Trials that somebody wrote to --------------------------------------------------------------------------------

SCHEDULERS: list[Change] = [
    {"asha": {"minBudget": 1, "maxBudget": 9}},
    {"asha": {"minBudget": 1, "maxBudget": 9, "brackets": 2, "control": 0.5}},
    {"hyperband": {"minBudget": 1, "maxBudget": 9}},
    {"adaptive": {"minBudget": 1, "maxBudget": 9}},
    {"median": {"budget": 9}},
    {"patience": {"budget": 9, "patience": 2}},
    {"none": {"budget": 3}},
]
SAMPLERS = ["random", "sobol", "tpe", "gp", "auto"]
STATES = ["Pending", "Running", "Paused", "Complete", "Stopped", "Failed"]
INTEGERS = [-5, -1, 0, 1, 2, 3, 9, 27, 10**6, 2**53, 2**63 - 1]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every value inside is, and this one."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inside:
        yield from places(item, (*path, key))
    yield path


def meddle(manifest: Any, chances: st.DataObject) -> None:
    """Writes something else of the same type to one field, or takes it away, as the API server would let anybody."""
    *path, key = chances.draw(st.sampled_from([p for p in places(manifest) if p and p[0] in ("spec", "status")]))
    holder = manifest
    for part in path:
        holder = holder[part]
    value = holder[key]
    if isinstance(value, bool):
        holder[key] = not value
    elif isinstance(value, int):
        holder[key] = chances.draw(st.sampled_from(INTEGERS))
    elif isinstance(value, float):
        holder[key] = chances.draw(st.sampled_from([0.0, -1.0, 1e308, 5, 0.5]))
    elif isinstance(value, str):
        holder[key] = chances.draw(st.sampled_from(STATES if key == "state" else ["", "x", "2026-01-01T00:00:00Z"]))
    elif isinstance(value, list):
        holder[key] = chances.draw(st.sampled_from([[], value + value[:1], value[1:]]))
    elif key == "parameters":
        holder[key] = chances.draw(st.sampled_from([{}, {"x": "text"}, {"x": True}, {"x": 5.0}, {"x": 0.5, "z": 1}]))
    else:
        del holder[key]


def advance(world: World, turns: int) -> None:
    """Lets so many things happen."""
    world.turn([])
    for _ in range(turns):
        if world.timeline:
            world.now, _, happen = heapq.heappop(world.timeline)
            world.turn(happen())


def manifests(world: World) -> list[Any]:
    return [json.loads(trial.model_dump_json(by_alias=True, exclude_none=True)) for trial in world.stored.values()]


@settings(max_examples=150)
@given(
    scheduler=st.sampled_from(SCHEDULERS),
    sampler=st.sampled_from(SAMPLERS),
    turns=st.integers(1, 40),
    chances=st.data(),
)
def test_whatever_is_written_to_a_trial_is_found_wrong_or_decided_on_like_any_other(
    scheduler: Change, sampler: str, turns: int, chances: st.DataObject
) -> None:
    world = World(study(scheduler=scheduler, sampler={sampler: {}}, limits={"trials": 9}))
    advance(world, turns)
    stored = manifests(world)
    for _ in range(chances.draw(st.integers(1, 3))):
        meddle(chances.draw(st.sampled_from(stored)), chances)
    if chances.draw(st.booleans()):
        stored.append(copy.deepcopy(chances.draw(st.sampled_from(stored))) | {"name": "another"})
    try:
        trials = [Trial.model_validate(manifest) for manifest in stored]
    except ValidationError:
        return
    if misfit(world.study, trials):
        return
    try:
        progress = Progress(world.study, trials, dict.fromkeys(world.attempts, True))
    except ValueError as error:
        assert "trial" in str(error)  # noqa: PT017  # it says which
        return
    report = Report(9, {"loss": 0.5})
    for leg in list(world.attempts):
        events: list[Event] = [
            Started(*leg, world.now - 1, 1.0),
            Reported(*leg, world.now, report),
            Ended(*leg, world.now, EVICTED),
        ]
        decide(progress, events, world.now)
    study_status(progress, world.now)


@settings(max_examples=40)
@given(scheduler=st.sampled_from(SCHEDULERS), sampler=st.sampled_from(SAMPLERS), turns=st.integers(1, 60))
def test_nothing_is_found_wrong_with_trials_that_nobody_wrote_to(scheduler: Change, sampler: str, turns: int) -> None:
    world = World(study(scheduler=scheduler, sampler={sampler: {}}, limits={"trials": 9}))
    advance(world, turns)
    assert misfit(world.study, [Trial.model_validate(manifest) for manifest in manifests(world)]) == ""


@pytest.mark.parametrize("victim", [0, 3, 7])
@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=lambda scheduler: next(iter(scheduler)))
def test_a_trial_that_somebody_deletes_is_made_up_for_and_the_study_goes_on(scheduler: Change, victim: int) -> None:
    world = World(study(scheduler=scheduler, limits={"trials": 12}))
    while len(world.stored) < 8:
        advance(world, 1)
    del world.stored[victim]
    for known in (world.attempts, world.over):
        for leg in [leg for leg in known if leg[0] == victim]:
            del known[leg]
    world.progress = world.fold()
    world.turn([])
    while world.progress.outcome is None:
        if world.timeline and (world.wake is None or world.timeline[0][0] <= world.wake):
            world.now, _, happen = heapq.heappop(world.timeline)
            world.turn(happen())
        else:
            assert world.wake is not None, "the study stalled"
            world.now = max(world.now, world.wake)
            world.turn([])
    assert (world.progress.outcome.reason, len(world.stored)) == ("TrialsFinished", 12)
    assert max(world.stored) == (11 if victim == 7 else 12), "the last number is given again"
