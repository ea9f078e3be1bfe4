"""Tables on the terminal, in docs/benchmarks.md between their markers, and every measurement as JSON lines."""

import importlib.metadata
import json
import os
import platform
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Group
from rich.table import Table as RichTable

from benchmarks.results import Table

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
RAW = ROOT / "build" / "bench"
PACKAGES = ("halvard", "kopf", "kubernetes", "aiohttp", "pydantic")
SETTLED = 0.3  # load a core below which nothing else counts as running


def circumstances(packages: Sequence[str] = PACKAGES) -> str:
    """Returns when, with what and on what this is measured, and whether the machine was busy before it began."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores, load = os.cpu_count() or 1, os.getloadavg()[0]
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)
    machine = f"{cores} cores, {memory:.0f} GiB of memory, {platform.system()}"
    busy = "nothing else ran" if load / cores < SETTLED else f"others were using the machine (load {load:.1f} before)"
    return f"{datetime.now(UTC):%Y-%m-%d}, {machine}; {busy}. Python {platform.python_version()}, {versions}."


def for_terminal(table: Table) -> Group:
    """Returns the table as rich prints it."""
    shown = RichTable(title=table.title, title_justify="left")
    for column in table.columns:
        shown.add_column(column)
    for row in table.rows:
        shown.add_row(*row)
    return Group(shown, table.note)


def keep(name: str, tables: Sequence[Table], circumstances: str) -> Path:
    """Writes one JSON object a series, its rounds as lists, and returns the file."""
    RAW.mkdir(parents=True, exist_ok=True)
    path = RAW / f"{name}-{time.strftime('%Y%m%dT%H%M%S')}.jsonl"
    with path.open("w") as file:
        for table in tables:
            for series, rounds in table.raw.items():
                record = {"table": table.title, "series": series, "rounds": rounds, "circumstances": circumstances}
                file.write(json.dumps(record) + "\n")
    return path.relative_to(ROOT)


def write(name: str, tables: Sequence[Table], circumstances: str) -> None:
    """Replaces what stands between this benchmark's markers on the page; raises ValueError where they are missing."""
    text = PAGE.read_text()
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    if begin not in text or end not in text:
        raise ValueError(f"{PAGE.name} has no {begin.strip()} ... {end}")
    body = "\n".join([f"Measured {circumstances}\n", *map(_markdown, tables)])
    pattern = re.escape(begin) + ".*?" + re.escape(end)
    PAGE.write_text(re.sub(pattern, lambda _: begin + body + end, text, flags=re.DOTALL))


def _markdown(table: Table) -> str:
    lines = [table.columns, tuple("---" for _ in table.columns), *table.rows]
    rows = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    note = f"\n{table.note}\n" if table.note else ""
    return f"### {table.title}\n\n{rows}\n{note}"
