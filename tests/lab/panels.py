"""The Grafana dashboard as the tests read it: its panels, and their queries as Prometheus takes them."""

import json
import re
from pathlib import Path
from typing import Any

DASHBOARD = Path(__file__).parents[2] / "helm/halvard/files/dashboard.json"

Panel = dict[str, Any]


def dashboard() -> dict[str, Any]:
    """The dashboard's JSON."""
    read: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return read


def panels(dashboard: dict[str, Any]) -> list[Panel]:
    """All panels, without the rows that they stand in."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries(dashboard: dict[str, Any]) -> list[tuple[str, str]]:
    """Every panel's title with each of its queries, the variables set to everything and rates over a minute."""
    return [
        (panel["title"], re.sub(r"\$(job|namespace|study)\b", ".*", target["expr"]).replace("$__rate_interval", "1m"))
        for panel in panels(dashboard)
        for target in panel["targets"]
    ]
