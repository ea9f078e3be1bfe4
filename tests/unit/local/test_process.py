"""What an attempt leaves, and what is made of it."""

import json
import signal
from pathlib import Path

import pytest

from halvard.events import Ended, Fault, Reported, Started
from halvard.local.leftovers import LOST, last_events
from halvard.local.process import Files, Leg, Reports, fault
from halvard.trial import Trial, TrialSpec, TrialStatus
from halvard_trainer.reports import Report

NOTHING = "reported no loss at step 9 or beyond"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_a_killed_attempt_names_the_signal_and_the_usual_suspect(files: Files) -> None:
    expected = Fault(
        "Killed", "killed by SIGKILL, perhaps by the kernel because memory ran out", counted=True, exit_code=137
    )
    assert expected == fault(-signal.SIGKILL, files.log, NOTHING)


def test_another_signal_names_only_itself(files: Files) -> None:
    assert Fault("Killed", "killed by SIGSEGV", counted=True, exit_code=139) == fault(
        -signal.SIGSEGV, files.log, NOTHING
    )


def test_exit_code_0_says_what_was_not_reported(files: Files) -> None:
    message = "the trainer exited with code 0 but reported no loss at step 9 or beyond"
    assert Fault("MetricsUnavailable", message, counted=True) == fault(0, files.log, NOTHING)


def test_another_exit_code_quotes_the_last_whole_lines(files: Files) -> None:
    files.log.write_text("".join(f"line {n} {'x' * 90}\n" for n in range(100)) + "ValueError: no such column\n")
    message = fault(1, files.log, NOTHING).message
    assert message.startswith("exit code 1. Its last words: line 97 ")
    assert message.endswith("\nValueError: no such column")


def test_a_line_that_is_no_report_is_passed_over_and_remembered(files: Files) -> None:
    lines = [
        '{"step": 1, "loss": 0.5}',
        "",
        "loss: 0.4",
        '{"step": 0}',
        '{"step": 2, "loss": NaN, "checkpoint": "x"}',
    ]
    files.reports.write_text("\n".join(lines) + "\n")
    reports = Reports(files, None, 0)

    first, second = reports.read()
    assert Report(1, {"loss": 0.5}) == first
    assert (second.step, second.checkpoint) == (2, "x")
    assert reports.refused.startswith("step: must be a whole number from 1")


def test_a_pattern_without_a_step_counts_on_from_where_the_leg_began(files: Files) -> None:
    files.log.write_text("loading\nloss 0.5\nloss 0.4\n")
    reports = Reports(files, r"loss (?P<loss>\S+)", 3)
    assert [Report(4, {"loss": 0.5}), Report(5, {"loss": 0.4})] == list(reports.read())


def test_an_attempt_that_is_gone_tells_what_was_not_stored_yet(files: Files) -> None:
    status = TrialStatus(state="Running", attempt=2, step=3)
    trial = Trial(name="study-0001", spec=TrialSpec(index=1, budget=9, parameters={}), status=status)
    Leg(start=1, budgets=[3], started=1000.0, devices=["0"]).save(files.leg)
    files.reports.write_text("".join(json.dumps({"step": n, "loss": 1 / n}) + "\n" for n in (2, 3, 4)))
    end = files.reports.stat().st_mtime

    expected = [
        Started(1, 2, at=1000.0, gpus=1),
        Reported(1, 2, at=end, report=Report(4, {"loss": 0.25})),
        Ended(1, 2, at=end, fault=LOST),
    ]
    assert expected == list(last_events(trial, files, None))
