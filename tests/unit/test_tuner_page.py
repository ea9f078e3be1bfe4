"""The examples of docs/tuner.md and docs/simulate.md are run as they stand on the page, and the tables are complete."""

import json
import re
from itertools import count
from pathlib import Path

import pytest

from halvard.study import Sampler, Scheduler

ROOT = Path(__file__).parents[2]
TUNER = (ROOT / "docs/tuner.md").read_text()
SIMULATE = (ROOT / "docs/simulate.md").read_text()


def examples(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page, re.DOTALL)


def run(example: str, capsys: pytest.CaptureFixture[str]) -> str:
    exec(compile(example, "page", "exec"), {"__name__": "page"})  # noqa: S102  # the pages are ours
    return capsys.readouterr().out


def words(section: str) -> set[str]:
    return set(re.findall(r"^\| `(\w+)` \|", TUNER.split(f"## {section}\n")[1].split("\n## ")[0], re.MULTILINE))


def test_the_loop_trains_every_trial_and_tells_where_each_result_stands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    lines = run(examples(TUNER)[0], capsys).splitlines()
    assert re.fullmatch(r"0 value 1\.\d+ is place 1 of 1 at rung 1; none goes on yet", lines[0])
    assert {int(line.split()[0]) for line in lines} == set(range(60))
    assert any("at rung 27, the highest" in line for line in lines)


def test_the_stored_trials_are_all_that_a_restart_needs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example, stored = examples(TUNER)[1], []
    for name, text in (("stopped", example), ("straight", example.replace("search(legs=5)\n", ""))):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        run(text, capsys)
        trials = json.loads(Path("trials.json").read_text())
        stored.append([(t["spec"], [(r["budget"], r["value"]) for r in t["status"]["rungs"]]) for t in trials])
    assert stored[0] == stored[1]
    assert len(stored[0]) == 12


def test_a_restart_after_every_leg_decides_the_same_where_decisions_depend_on_seconds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example = examples(TUNER)[1].replace('{"asha": {"maxBudget": 9}}', '{"adaptive": {"maxBudget": 9}}')
    example = example.replace('"trials": 12', '"trials": 30').split("search(legs=5)")[0]
    stored = []
    for name, search in (("stopped", "for _ in range(50):\n    search(legs=1)\n"), ("straight", "search(legs=50)\n")):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        clock = count()
        with monkeypatch.context() as patch:
            patch.setattr("time.time", lambda clock=clock: next(clock) ** 1.5 / 7)
            run(example + search, capsys)
        stored.append(json.loads(Path("trials.json").read_text()))
    assert stored[0] == stored[1]
    assert any("s per unit" in trial["spec"]["decision"] for trial in stored[0])


def test_a_simulation_from_python_gives_its_cost_and_its_best(capsys: pytest.CaptureFixture[str]) -> None:
    [example] = examples(SIMULATE)
    assert re.match(r"\d+\.\d+ \{'promoted': .* Improvement\(at=", run(example, capsys))


def test_every_sampler_and_scheduler_says_what_it_is_for() -> None:
    assert words("Samplers") == set(Sampler.model_fields)
    assert words("Schedulers") == set(Scheduler.model_fields)
