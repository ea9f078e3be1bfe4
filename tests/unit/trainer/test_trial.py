"""The library a training script uses, against real files."""

import json
import math
import os
import resource
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from halvard_trainer import Trial, files, keeping
from unit.trainer.waiting import eventually


class Leg:
    """A trial's environment in a directory of its own, and what comes of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {
            "HALVARD_PARAMETERS": '{"lr": 0.1, "layers": 3}',
            "HALVARD_BUDGET": "3",
            "HALVARD_START": "0",
            "HALVARD_SEED": "7",
            "HALVARD_STUDY": "digits",
            "HALVARD_TRIAL": "digits-0001",
            "HALVARD_REPORTS": str(directory / "reports.jsonl"),
            "HALVARD_VERDICT": str(directory / "verdict.json"),
            "HALVARD_VERDICT_TIMEOUT": "0",
            "HALVARD_TERMINATION_LOG": str(directory / "termination-log"),
        }

    def trial(self, **changes: object) -> Trial:
        """Return the trial, with HALVARD_<NAME> changed."""
        changed = {f"HALVARD_{name.upper()}": str(value) for name, value in changes.items()}
        return Trial({**self.environment, **changed})

    def verdict(self, **verdict: object) -> None:
        files.replace(self.directory / "verdict.json", json.dumps(verdict))  # at once, as the sidecar does

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.directory / "reports.jsonl").read_text().splitlines()]

    @property
    def message(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads((self.directory / "termination-log").read_text())
        return value


@pytest.fixture
def leg(tmp_path: Path) -> Leg:
    return Leg(tmp_path)


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


def save_file(path: Path) -> None:
    path.write_text("weights")


def save_directory(path: Path) -> None:
    (path / "inner").mkdir(parents=True)
    (path / "inner" / "weights").write_text("weights")


def test_the_environment_says_what_to_train(leg: Leg, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in leg.environment.items():
        monkeypatch.setenv(name, value)
    trial = Trial.from_environment()
    assert (trial.parameters, trial.seed, trial.study, trial.name) == (
        {"lr": 0.1, "layers": 3},
        7,
        "digits",
        "digits-0001",
    )
    assert (trial.start, trial.budget, trial.resume_from, trial.checkpoint_dir) == (0, 3, None, None)


@pytest.mark.parametrize(
    "name", ["PARAMETERS", "BUDGET", "START", "SEED", "STUDY", "TRIAL", "REPORTS", "VERDICT", "VERDICT_TIMEOUT"]
)
def test_a_missing_variable_is_named(leg: Leg, name: str) -> None:
    with pytest.raises(RuntimeError, match=f"HALVARD_{name} is not set"):
        leg.trial(**{name: ""})


@pytest.mark.parametrize(
    ("name", "value"), [("BUDGET", "many"), ("PARAMETERS", "[1]"), ("PARAMETERS", "{"), ("VERDICT_TIMEOUT", "soon")]
)
def test_a_wrong_variable_is_named_with_its_value(leg: Leg, name: str, value: str) -> None:
    with pytest.raises(
        RuntimeError, match=rf"HALVARD_{name}: must be a .*, not '{value}'".replace("[", r"\[").replace("{", r"\{")
    ):
        leg.trial(**{name: value})


def test_steps_go_from_the_start_to_the_budget(leg: Leg) -> None:
    assert list(leg.trial(start=1, budget=4).steps()) == [2, 3, 4]


def test_a_trial_with_nothing_left_trains_one_more_step_so_that_it_reports(leg: Leg) -> None:
    assert list(leg.trial(start=5, budget=3).steps()) == [6]


def test_a_report_is_one_json_line(leg: Leg) -> None:
    trial = leg.trial()
    for step in trial.steps():
        trial.report(val_loss=step / 4, accuracy=1)
    assert leg.lines == [{"step": step, "val_loss": step / 4, "accuracy": 1.0} for step in (1, 2, 3)]


def test_a_report_that_found_no_room_is_an_error_and_does_not_spoil_the_next(leg: Leg) -> None:
    steps, trial = [], leg.trial()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for step in trial.steps():
        try:
            if step == 2:  # a disk with room for half of it
                resource.setrlimit(resource.RLIMIT_FSIZE, (40, before[1]))
            trial.report(loss=0.5)
            steps.append(step)
        except OSError:
            assert step == 2
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, ignored)
    assert [line["step"] for line in leg.lines] == steps == [1, 3]


def test_nan_and_infinity_are_reported(leg: Leg) -> None:
    (leg.directory / "termination-log").touch()
    trial = leg.trial(budget=1)
    for _ in trial.steps():
        trial.report(loss=math.nan, other=math.inf)
    assert math.isnan(leg.lines[0]["loss"])
    assert leg.lines[0]["other"] == math.inf
    assert leg.message == {"step": 1, "metrics": {"loss": "NaN", "other": "Infinity"}}


def test_a_metric_that_is_no_number_is_refused_where_it_is_reported(leg: Leg) -> None:
    trial = leg.trial()
    next(trial.steps())
    with pytest.raises(ValueError, match="metric 'loss': must be a number"):
        trial.report(loss="low")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["../other", "a/b"])
def test_a_checkpoint_elsewhere_is_refused(leg: Leg, name: str) -> None:
    trial = leg.trial()
    next(trial.steps())
    with pytest.raises(ValueError, match="checkpoint: must be a plain name"):
        trial.report(loss=1.0, checkpoint=name)


def test_a_report_outside_of_the_steps_is_refused(leg: Leg) -> None:
    with pytest.raises(RuntimeError, match=r"inside `for step in trial.steps"):
        leg.trial().report(loss=1.0)


def test_a_trial_promoted_at_its_budget_trains_on(leg: Leg) -> None:
    trial = leg.trial(budget=2, verdict_timeout=60)
    reached = []
    for step in trial.steps():
        trial.report(loss=1.0)
        reached.append(step)
        if step == 2:
            leg.verdict(step=2, budget=4)
        if step == 4:
            leg.verdict(step=4, stop="paused at rung 4")
    assert reached == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "verdict", [{"step": 2, "budget": 5}, {"step": 2, "stop": "paused"}], ids=["promotion", "stop"]
)
def test_it_waits_for_the_verdict(leg: Leg, verdict: dict[str, object]) -> None:
    trial = leg.trial(budget=2, verdict_timeout=60)
    steps = trial.steps()
    last: list[int] = []

    def train() -> None:
        for step in steps:
            last.append(step)
            trial.report(loss=1.0)
            if step == 5:
                leg.verdict(step=5, stop="done")

    thread = threading.Thread(target=train)
    thread.start()
    eventually(lambda: last == [1, 2])
    leg.verdict(**verdict)
    thread.join(60)
    assert not thread.is_alive()
    assert last == ([1, 2, 3, 4, 5] if "budget" in verdict else [1, 2])


def test_the_verdict_on_an_earlier_step_is_not_taken_for_the_answer(
    leg: Leg, capfd: pytest.CaptureFixture[str]
) -> None:
    trial = leg.trial(budget=2)
    leg.verdict(step=1, budget=2)
    assert list(trial.steps()) == [1, 2]
    assert "no verdict on step 2" in capfd.readouterr().err


def test_a_stop_ends_the_trial_before_its_budget(leg: Leg, capfd: pytest.CaptureFixture[str]) -> None:
    trial = leg.trial(budget=9)
    reached = []
    for step in trial.steps():
        reached.append(step)
        leg.verdict(step=step, stop="the study has ended")
    assert reached == [1]
    assert "stopped: the study has ended" in capfd.readouterr().err


@pytest.mark.parametrize("save", [save_file, save_directory])
def test_checkpoints_are_saved_and_only_the_last_two_stay(
    leg: Leg, checkpoints: Path, save: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "READ_WITHIN", 0.0)
    trial = leg.trial(budget=4, checkpoint_dir=checkpoints)
    for _ in trial.steps():
        trial.report(loss=1.0, checkpoint=save)
    assert sorted(path.name for path in checkpoints.iterdir()) == ["step-3", "step-3.sums", "step-4", "step-4.sums"]
    assert [line["checkpoint"] for line in leg.lines] == ["step-1", "step-2", "step-3", "step-4"]


@pytest.mark.parametrize("save", [save_file, save_directory])
def test_a_checkpoint_saved_twice_at_one_step_is_the_second_one(leg: Leg, checkpoints: Path, save: Any) -> None:
    trial = leg.trial(checkpoint_dir=checkpoints)
    next(trial.steps())
    trial.report(loss=1.0, checkpoint=save)
    trial.report(loss=1.0, checkpoint=save_file)
    assert (checkpoints / "step-1").read_text() == "weights"


def test_a_checkpoint_that_broke_off_leaves_nothing_that_looks_whole(leg: Leg, checkpoints: Path) -> None:
    def breaks_off(path: Path) -> None:
        path.write_text("half")
        raise OSError("disk full")

    trial = leg.trial(checkpoint_dir=checkpoints)
    next(trial.steps())
    with pytest.raises(OSError, match="disk full"):
        trial.report(loss=1.0, checkpoint=breaks_off)
    assert [path.name for path in checkpoints.iterdir()] == ["step-1.tmp"]
    trial.report(loss=1.0, checkpoint=save_directory)
    assert sorted(path.name for path in checkpoints.iterdir()) == ["step-1", "step-1.sums"]


def test_a_function_that_saves_nothing_is_told_so(leg: Leg, checkpoints: Path) -> None:
    trial = leg.trial(checkpoint_dir=checkpoints)
    next(trial.steps())
    with pytest.raises(FileNotFoundError, match=r"saved nothing at .*step-1\.tmp"):
        trial.report(loss=1.0, checkpoint=lambda path: save_file(path.with_suffix(".npz")))


def test_a_study_without_checkpoints_saves_none(leg: Leg) -> None:
    trial = leg.trial(budget=1)
    for _ in trial.steps():
        trial.report(loss=1.0, checkpoint=save_file)
    assert leg.lines == [{"step": 1, "loss": 1.0}]


def test_the_name_of_something_already_saved_is_reported_as_it_is(leg: Leg) -> None:
    trial = leg.trial(budget=1)
    for _ in trial.steps():
        trial.report(loss=1.0, checkpoint="epoch-1.pt")
    assert leg.lines[0]["checkpoint"] == "epoch-1.pt"


@pytest.mark.parametrize("save", [save_file, save_directory])
def test_it_resumes_from_the_checkpoint_named(leg: Leg, checkpoints: Path, save: Any) -> None:
    checkpoints.mkdir()
    save(checkpoints / "step-3")
    trial = leg.trial(start=3, budget=9, resume_from=checkpoints / "step-3")
    assert (trial.resume_from, trial.start) == (checkpoints / "step-3", 3)
    assert next(trial.steps()) == 4


def test_where_its_checkpoint_is_damaged_it_goes_on_from_the_one_before_and_tells_what_it_starts(
    leg: Leg, checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = leg.trial(checkpoint_dir=checkpoints)
    for _ in before.steps():
        before.report(loss=1.0, checkpoint=save_file)
    (checkpoints / "step-3").write_text("weigh")
    again = {"HALVARD_START": "3", "HALVARD_BUDGET": "9", "HALVARD_RESUME_FROM": str(checkpoints / "step-3")}
    for name, value in (leg.environment | again).items():
        monkeypatch.setenv(name, value)
    trial = Trial.from_environment()
    assert (trial.resume_from, trial.start, next(trial.steps())) == (checkpoints / "step-2", 2, 3)
    assert (os.environ["HALVARD_RESUME_FROM"], os.environ["HALVARD_START"]) == (str(checkpoints / "step-2"), "2")


@pytest.mark.parametrize("pod", ["", "zombie"], ids=["on one machine", "in a Pod"])
def test_whoever_is_not_believed_any_more_neither_removes_what_was_acknowledged_nor_is_gone_on_from(
    leg: Leg, tmp_path: Path, pod: str
) -> None:
    theirs, ours = tmp_path / "attempt-1-aaaa", tmp_path / "attempt-2-bbbb"
    in_a_pod = {"pod": pod} if pod else {}
    zombie = leg.trial(budget=9, checkpoint_dir=theirs, **in_a_pod)
    for step in zombie.steps():
        if step == 4 and pod:
            files.replace(leg.directory / files.ACKNOWLEDGED, '{"step": 3}')  # then its node was cut off
        zombie.report(loss=1.0, checkpoint=save_file)
    acknowledged = theirs / "step-3"
    trial = leg.trial(start=3, budget=5, resume_from=acknowledged, checkpoint_dir=ours)
    assert (trial.resume_from, trial.start) == (acknowledged, 3)
    for _ in trial.steps():
        trial.report(loss=1.0, checkpoint=save_file)

    for damaged in (ours / "step-5", ours / "step-4", acknowledged):
        damaged.write_text("weigh")
    last = leg.trial(start=5, budget=9, resume_from=ours / "step-5")
    assert (last.resume_from, last.start) == (theirs / "step-2", 2)


def test_the_termination_message_is_the_first_report_at_the_budget_that_has_no_answer(leg: Leg) -> None:
    log = leg.directory / "termination-log"
    log.touch()
    trial = leg.trial(budget=2)
    messages = []
    for step in trial.steps():
        trial.report(loss=step)
        trial.report(loss=step + 0.5)
        messages.append((step, log.read_text() and leg.message["metrics"]["loss"]))
        if step == 2:
            leg.verdict(step=2, budget=4)
    assert messages == [(1, ""), (2, 2.0), (3, ""), (4, 4.0)]  # where it is empty, the end of the log takes its place


def test_the_termination_message_stays_below_a_kibibyte(leg: Leg) -> None:
    (leg.directory / "termination-log").touch()
    trial = leg.trial(budget=1)
    next(trial.steps())
    many: dict[str, Any] = {f"metric_{i}_{'x' * 60}": i for i in range(60)}
    trial.report(loss=0.5, **many)
    assert (leg.directory / "termination-log").stat().st_size <= 1024
    assert leg.message["metrics"]["loss"] == 0.5


def test_outside_a_pod_there_is_no_termination_message(leg: Leg) -> None:
    trial = leg.trial(budget=1)
    next(trial.steps())
    trial.report(loss=0.5)
    assert not (leg.directory / "termination-log").exists()
