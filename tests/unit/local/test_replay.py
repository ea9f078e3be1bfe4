"""`halvard replay` on the records of real runs, and on what kubectl writes."""

import json
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from halvard.cli import main

CONTROL = {"scheduler": {"asha": {"maxBudget": 9, "control": 0.25}}, "limits": {"trials": 12}, "parallelism": 2}


def replay(directory: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["replay", str(directory), *options])


@pytest.fixture
def records(finished: Any, tmp_path: Path) -> Path:
    """A copy of a finished study's directory of results, to tamper with."""
    return Path(shutil.copytree(finished.results, tmp_path / "records"))


def listed(finished: Any, *others: dict[str, Any]) -> dict[str, Any]:
    """The study's trials as `kubectl get trials` prints them."""
    items = [
        {**trial, "metadata": {**trial["metadata"], "labels": {"halvard.dev/study": "study"}}}
        for trial in finished.trials()
    ]
    return {"apiVersion": "v1", "kind": "List", "items": [*items, *others]}


def rewrite(path: Path, change: dict[str, Any]) -> None:
    """Changes the first result in a trial's record."""
    record = json.loads(path.read_text())
    record["status"]["rungs"][0] |= change
    path.write_text(json.dumps(record))


def edit(directory: Path, change: dict[str, Any]) -> None:
    """Changes fields of a trial's record."""
    path = directory / "trials" / "study-0002.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


def test_a_finished_run_is_replayed_with_the_same_decisions(finished: Any) -> None:
    done = replay(finished.results)
    assert (done.exit_code, done.stdout) == (0, "14 decisions replayed, all the same\n")


@pytest.mark.parametrize(("number", "after"), [(signal.SIGINT, 6), (signal.SIGKILL, 11)])
def test_a_run_that_was_interrupted_and_went_on_is_replayed(workshop: Any, number: signal.Signals, after: int) -> None:
    manifest = workshop.manifest(env={"SECONDS_A_STEP": "0.05", "EXIT_1": "2"}, **CONTROL)
    workshop.interrupt(manifest, number, after=after)
    done = replay(workshop.results)
    assert (done.exit_code, done.stdout.split(" ", 1)[1]) == (0, "decisions replayed, all the same\n")
    assert workshop.run(manifest).returncode == 0
    done = replay(workshop.results)
    assert (done.exit_code, done.stdout.split(" ", 1)[1]) == (0, "decisions replayed, all the same\n")
    assert any(result["control"] for trial in workshop.trials() for result in trial["status"].get("rungs", []))
    assert [trial["status"]["state"] for trial in workshop.trials()].count("Failed") == 1


def test_at_the_end_of_a_run_it_says_what_early_stopping_loses(workshop: Any) -> None:
    done = workshop.run(workshop.manifest(**CONTROL))
    told = re.findall(r"^early stopping +(.*)$", done.stdout, re.MULTILINE)
    assert told == [workshop.status()["control"]["message"]]
    assert re.match(r"\d+ times a trial was stopped early; ", told[0])


def test_every_decision_is_explained_in_order(finished: Any) -> None:
    lines = replay(finished.results, "--explain").stdout.splitlines()
    assert lines[0].split() == ["#", "trial", "until", "value", "why"]
    assert lines[-1] == "14 decisions replayed, all the same"
    rows = [line.split() for line in lines[1:-1]]
    assert len(rows) == 14
    assert rows[0][1:3] + rows[0][4:] == ["study-0000", "1", "new", "trial"]
    assert [int(row[0]) for row in rows] == sorted(int(row[0]) for row in rows)
    assert any("is place 1 of 3 at rung 1; the best goes on (cut-off" in line for line in lines)


@pytest.mark.parametrize("trial", ["3", "study-0003"])
def test_one_trial_alone_is_explained(finished: Any, trial: str) -> None:
    lines = replay(finished.results, "--explain", trial).stdout.splitlines()
    assert {line.split()[1] for line in lines[1:-1]} == {"study-0003"}


def test_the_trial_to_explain_must_exist(finished: Any) -> None:
    done = replay(finished.results, "--explain", "study-0099")
    assert (done.exit_code, done.stderr) == (2, "--explain study-0099: there is no such trial\n")


@pytest.mark.parametrize("write", [json.dumps, yaml.safe_dump])
def test_what_kubectl_writes_is_replayed(finished: Any, tmp_path: Path, write: Any) -> None:
    suffix = "json" if write is json.dumps else "yaml"
    study = yaml.safe_load((finished.results / "study.yaml").read_text())
    stranger = {"kind": "Trial", "metadata": {"name": "x", "labels": {"halvard.dev/study": "another"}}, "spec": {}}
    (tmp_path / f"study.{suffix}").write_text(write({"kind": "List", "items": [study]}))
    (tmp_path / f"trials.{suffix}").write_text(write(listed(finished, stranger)))
    done = replay(tmp_path)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "14 decisions replayed, all the same\n", "")


def test_a_changed_value_shows_where_the_decisions_part(records: Path) -> None:
    rewrite(records / "trials" / "study-0001.json", {"value": 0.001})
    done = replay(records)
    assert done.exit_code == 1
    first, recorded, now = done.stdout.splitlines()
    assert first.endswith(" decisions replayed the same, then one differs, number 7:")
    assert recorded.startswith("  recorded: trial ")
    assert now.startswith("  now:      trial 1 is to train until 3: promoted: value 0.001 is place 1 of 3 at rung 1")


@pytest.mark.parametrize("labels", [None, []])
def test_a_trial_without_labels_is_one_of_the_study(records: Path, labels: Any) -> None:
    edit(records, {"metadata": {"name": "study-0002", "labels": labels}})
    assert replay(records).exit_code == 0


def test_swapped_orders_show(records: Path) -> None:
    trials = [records / "trials" / f"study-000{index}.json" for index in (0, 5)]
    orders = [json.loads(path.read_text())["status"]["rungs"][0]["order"] for path in trials]
    for path, order in zip(trials, reversed(orders), strict=True):
        rewrite(path, {"order": order})
    done = replay(records)
    assert done.exit_code == 1
    assert "then one differs, number " in done.stdout


def test_a_missing_trial_is_said(records: Path) -> None:
    (records / "trials" / "study-0004.json").unlink()
    done = replay(records)
    assert (done.exit_code, done.stdout) == (2, "")
    assert ": a trial's record is missing, or not whole\n" in done.stderr


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda at: shutil.rmtree(at / "trials"), "holds neither trials.yaml nor trials.json: expected"),
        (lambda at: (at / "study.yaml").unlink(), "study.yaml: cannot be read: "),
        (lambda at: (at / "study.yaml").write_text("a: ["), "study.yaml: cannot be read: while parsing"),
        (lambda at: (at / "study.yaml").write_text("- a"), "study.yaml: expected objects with apiVersion"),
        (lambda at: (at / "study.yaml").write_text("kind: Job"), ": 0 Studies: expected the records of one"),
        (lambda at: (at / "trials" / "study-0002.json").write_text("{"), "study-0002.json: cannot be read: "),
        (
            lambda at: (at / "trials" / "study-0002.json").write_text('{"kind": "Trial", "metadata": {"name": "a"}}'),
            "study-0002.json: not a Trial as Halvard stores it",
        ),
        (lambda at: edit(at, {"metadata": None}), "study-0002.json: expected objects with apiVersion, kind, metadata"),
        (lambda at: edit(at, {"metadata": {}}), "study-0002.json: not a Trial as Halvard stores it: it has no name"),
        (lambda at: edit(at, {"items": None}), "study-0002.json: expected objects with apiVersion, kind, metadata"),
        (lambda at: (at / "trials" / "study-0002.json").write_text("[" * 100_000), "study-0002.json: cannot be read: "),
        (lambda at: [path.unlink() for path in (at / "trials").glob("*.json")], ": holds no trials of study"),
    ],
)
def test_records_that_cannot_be_read_are_refused(records: Path, damage: Any, said: str) -> None:
    damage(records)
    done = replay(records)
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr
