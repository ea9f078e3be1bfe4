"""What an endpoint counted, kept to be looked at."""

import asyncio
from collections.abc import Sequence

from halvard.endpoint import Result
from halvard_trainer.reports import Report


class Counted:
    """`halvard.endpoint.Counters` for tests; `another` is set with every push."""

    def __init__(self) -> None:
        """Nothing was counted yet."""
        self.results: list[str] = []
        self.lines: list[int] = []
        self.reports: list[Report] = []
        self.another = asyncio.Event()

    def pushed(self, result: Result) -> None:
        """What came of a push."""
        self.results.append(result)
        self.another.set()

    def invalid(self, lines: int) -> None:
        """Lines that were no reports."""
        self.lines.append(lines)

    def superseded(self, reports: Sequence[Report]) -> None:
        """Reports of an attempt that is over."""
        self.reports.extend(reports)
