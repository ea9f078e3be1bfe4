"""For every test: a busy machine is slow, and that is no failure; what the history checker may be told not to mind."""

import pytest
from hypothesis import HealthCheck, settings

from history.after import UNSOUND

settings.register_profile("halvard", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("halvard")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", UNSOUND)
