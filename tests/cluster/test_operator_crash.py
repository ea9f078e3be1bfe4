"""The operator is killed at every single write, before its answer arrives, and nothing is any different."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cluster.scripted import Scene
from halvard.kube import Manifest

DYING = Path(__file__).with_name("dying.py")


@contextlib.asynccontextmanager
async def dying_operator(scene: Scene) -> AsyncIterator[Path]:
    """Runs operators, each until it dies; gives the file that says at which writes they did."""
    deaths = scene.directory / "deaths"
    environment = {**scene.environment(), "DEATHS": str(deaths)}
    process: asyncio.subprocess.Process | None = None

    async def again_and_again() -> None:
        nonlocal process
        while True:
            process = await asyncio.create_subprocess_exec(sys.executable, str(DYING), env=environment)
            await process.wait()

    keeping = asyncio.create_task(again_and_again())
    try:
        yield deaths
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])
        if process and process.returncode is None:
            process.kill()
            await process.wait()


def outcome(trial: Manifest) -> tuple[Any, ...]:
    """What a trial has come to, but for times and versions."""
    status = trial["status"]
    results = [(result["budget"], result["value"], result["step"]) for result in status["rungs"]]
    return trial["spec"]["budget"], status["state"], status["attempt"], status.get("faults", 0), results


async def test_dying_at_every_write_changes_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.scripted.PATIENCE", 300.0)  # every operator is started anew
    async with dying_operator(scene) as deaths:
        await scene.apply(limits={"trials": 3})
        await scene.leg(0, 0.5)
        await scene.leg(1, 0.1)
        await scene.leg(2, 0.6)
        await scene.leg(1, 0.05, attempt=2, step=3)
        await scene.condition("Complete", "True", "TrialsFinished")
        trials, pods = await scene.trials(), await scene.pods()
        died_at = deaths.read_text().splitlines()
    assert [outcome(trial) for trial in trials] == [
        (1, "Paused", 2, 0, [(1, 0.5, 1)]),
        (3, "Paused", 3, 0, [(1, 0.1, 1), (3, 0.05, 3)]),
        (1, "Paused", 2, 0, [(1, 0.6, 1)]),
    ]
    assert [pod["metadata"]["name"] for pod in pods] == [
        "search-0000-1",
        "search-0001-1",
        "search-0001-2",
        "search-0002-1",
    ]
    assert sum("/pods" in death for death in died_at) == 4
    assert sum("/trials" in death for death in died_at) == 8
