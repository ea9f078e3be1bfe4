"""An API server that fails in every way, clocks that jump, leaders that are paused: the short form of `make chaos`."""

from collections.abc import Awaitable, Callable

import pytest

from chaos import apiserver, leaders
from chaos.proxy import KINDS
from chaos.report import Report
from lab.control_plane import ControlPlane

Scenario = Callable[[ControlPlane, int], Awaitable[Report]]
SEED = 1
OTHERS = [
    (apiserver.clocks, "clock set"),
    (apiserver.given_up, apiserver.GIVEN_UP),
    (leaders.paused, "leader woke up"),
]


async def test_whatever_befalls_requests_and_watches_changes_nothing(control_plane: ControlPlane) -> None:
    found = await apiserver.every_kind(control_plane, SEED)
    assert found.violations == ()
    assert len(found.faults) > len(KINDS) / 2


@pytest.mark.parametrize(("scenario", "fault"), OTHERS)
async def test_nothing_is_any_different(control_plane: ControlPlane, scenario: Scenario, fault: str) -> None:
    found = await scenario(control_plane, SEED)
    assert found.violations == ()
    assert found.faults[fault] > 0
