"""The sidecar, `python3 -m halvard_trainer.collector`: reads what the trainer reports and has it pushed.

The main thread reads files and writes the termination message, another one pushes. SIGTERM means that every trainer
container has ended: what is left is read, written to the termination message and pushed, and the exit code is 0.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from halvard_trainer import files
from halvard_trainer.outbox import Acknowledged, Outbox
from halvard_trainer.push import Endpoint, Pusher, read_spool
from halvard_trainer.reports import Pattern, Report, Tail, parse_line, termination_message

POLL = 0.05  # seconds between two looks at the files; the standard library has no inotify
TERMINATION_BYTES = 4096  # the kubelet keeps no more
COMPLAINTS = 20  # invalid lines that are printed; the rest are only counted


@dataclass(frozen=True)
class Settings:
    """The sidecar's environment. `drain`: seconds it may go on pushing after SIGTERM."""

    reports: Path
    verdict: Path
    spool: Path
    budget: int
    start: int
    url: str
    ca: str
    token: Path
    termination_log: Path
    objective: str
    stdout: Path | None
    pattern: str
    drain: int

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Return the settings; ValueError names the variable that is missing or wrong."""
        reader = _Reader(environment)
        pattern = environment.get("HALVARD_STDOUT_PATTERN", "")
        return cls(
            reports=Path(reader.text("HALVARD_REPORTS")),
            verdict=Path(reader.text("HALVARD_VERDICT")),
            spool=Path(reader.text("HALVARD_SPOOL")),
            budget=reader.number("HALVARD_BUDGET"),
            start=reader.number("HALVARD_START"),
            url=reader.text("HALVARD_COLLECTOR_URL"),
            ca=reader.text("HALVARD_COLLECTOR_CA"),
            token=Path(reader.text("HALVARD_TOKEN", "/var/run/secrets/halvard/token")),
            termination_log=Path(reader.text("HALVARD_TERMINATION_LOG", "/dev/termination-log")),
            objective=environment.get("HALVARD_OBJECTIVE", ""),
            stdout=Path(reader.text("HALVARD_STDOUT")) if pattern else None,
            pattern=pattern,
            drain=reader.number("HALVARD_DRAIN", "20"),
        )


@dataclass(frozen=True)
class Source:
    """A file that grows, and what makes reports of its lines."""

    name: str
    tail: Tail
    parse: Callable[[str], Report | None]


class Collector:
    """Sources, outbox and pusher; whoever holds `_changed` may touch the outbox."""

    def __init__(self, settings: Settings) -> None:
        """Go on from the spool where there is one; ValueError where a setting is no good."""
        budget, acknowledged = read_spool(settings.spool)
        self._settings = settings
        self._changed = threading.Condition()
        self._outbox = Outbox(max(budget, settings.budget), settings.objective, acknowledged)
        endpoint = Endpoint(settings.url, settings.ca, settings.token)
        self._pusher = Pusher(endpoint, self._outbox, self._changed, verdict=settings.verdict, spool=settings.spool)
        self._sources = _sources(settings, acknowledged)
        self._terminated = False
        self._message = ""

    def run(self) -> int:
        """Collect until SIGTERM, then drain; return the exit code."""
        signal.signal(signal.SIGTERM, self._on_sigterm)
        thread = threading.Thread(target=self._pusher.push, name="push", daemon=True)
        thread.start()
        while not self._terminated:
            self._gather(last=False)
            if not thread.is_alive():
                return 1  # its traceback is on stderr; started again by the kubelet, the sidecar goes on from the spool
            time.sleep(POLL)
        self._gather(last=True)
        self._pusher.finish()
        thread.join(self._settings.drain)
        with self._changed:
            _say(f"ended; {len(self._outbox)} reports not acknowledged, {self._outbox.invalid} lines not valid")
        return 0

    def _on_sigterm(self, *_: object) -> None:
        self._terminated = True  # no more than that: this thread may hold any lock just now

    def _gather(self, *, last: bool) -> None:
        for source in self._sources:
            for line in source.tail.lines(last=last):
                report = self._parse(source, line.text)
                if report:
                    with self._changed:
                        self._outbox.add(report, source.name, line.end)
        with self._changed:
            if len(self._outbox):
                self._changed.notify_all()
        self._tell()

    def _parse(self, source: Source, text: str) -> Report | None:
        try:
            return source.parse(text) if text.strip() else None
        except ValueError as error:
            self._outbox.invalid += 1  # only this thread writes it
            if self._outbox.invalid <= COMPLAINTS:
                _say(f"{source.name}: not a report: {error}: {text[:200]!r}")
            if self._outbox.invalid == COMPLAINTS:
                _say("further lines that are not valid are only counted")
            return None

    def _tell(self) -> None:
        with self._changed:
            report = self._outbox.telling()
        message = termination_message(report, TERMINATION_BYTES, self._settings.objective) if report else ""
        if message != self._message and files.overwrite(self._settings.termination_log, message):
            self._message = message


class _Reader:
    """Reads the environment and names what is wrong in it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def text(self, name: str, default: str = "") -> str:
        value = self._environment.get(name) or default
        if not value:
            raise ValueError(f"{name}: must be set")
        return value

    def number(self, name: str, default: str = "") -> int:
        value = self.text(name, default)
        if not value.isascii() or not value.isdigit():
            raise ValueError(f"{name}: must be a whole number, not {value!r}")
        return int(value)


def _sources(settings: Settings, acknowledged: Mapping[str, Acknowledged]) -> list[Source]:
    done = acknowledged.get("reports", Acknowledged())
    sources = [Source("reports", Tail(settings.reports, done.offset), parse_line)]
    if settings.stdout:
        done = acknowledged.get("stdout", Acknowledged(step=settings.start))
        pattern = Pattern(settings.pattern, done.step)
        sources.append(Source("stdout", Tail(settings.stdout, done.offset), pattern.parse))
    return sources


def _say(text: str) -> None:
    print(f"halvard: {text}", file=sys.stderr, flush=True)


def main() -> int:
    """Run the sidecar; return its exit code."""
    try:
        collector = Collector(Settings.from_environment(os.environ))
    except ValueError as error:
        _say(str(error))
        return 1
    return collector.run()


if __name__ == "__main__":
    sys.exit(main())
