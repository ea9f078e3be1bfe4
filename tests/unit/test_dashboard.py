"""The Grafana dashboard: the rules of grafana/dashboard-linter by their names, and what else it has to be."""

import itertools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.panels import DASHBOARD, Panel, dashboard, panels, queries

ROOT = Path(__file__).parents[2]
DOCUMENTED = (ROOT / "docs/metrics.md").read_text()
MADE = dashboard()
PANELS = {panel["title"]: panel for panel in panels(MADE)}
VARIABLES: dict[str, dict[str, Any]] = {variable["name"]: variable for variable in MADE["templating"]["list"]}
TARGETS = [(title, target["expr"]) for title, panel in PANELS.items() for target in panel["targets"]]
EXCLUDED = yaml.safe_load((DASHBOARD.parent / ".lint").read_text())["exclusions"]
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
UNITS = {"short", "s", "reqps", "bytes"}  # as Grafana calls them
each_panel = pytest.mark.parametrize("panel", PANELS.values(), ids=PANELS)
each_target = pytest.mark.parametrize(("title", "expr"), TARGETS, ids=[title for title, _ in TARGETS])


def test_template_datasource_rule() -> None:
    source = VARIABLES["datasource"]
    assert (source["type"], source["query"], source["label"]) == ("datasource", "prometheus", "Data source")


def test_template_job_rule() -> None:
    job = VARIABLES["job"]
    assert (job["type"], job["label"], job["multi"], job["allValue"]) == ("query", "Job", True, ".+")


@pytest.mark.parametrize("name", ["job", "namespace", "study"])
def test_template_label_promql_rule_and_template_on_time_change_reload_rule(name: str) -> None:
    variable = VARIABLES[name]
    assert re.fullmatch(rf"label_values\(halvard_\w+(\{{[^}}]*\}})?, {name}\)", variable["query"])
    assert (variable["datasource"], variable["refresh"]) == (SOURCE, 2)
    assert (variable["multi"], variable["includeAll"]) == (True, True)


@each_panel
def test_panel_datasource_rule(panel: Panel) -> None:
    assert [panel["datasource"], *(target["datasource"] for target in panel["targets"])] == [
        SOURCE for _ in [panel, *panel["targets"]]
    ]


@each_panel
def test_panel_title_description_rule(panel: Panel) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")


@each_panel
def test_panel_units_rule(panel: Panel) -> None:
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS


@each_panel
def test_panel_no_targets_rule(panel: Panel) -> None:
    letters = [target["refId"] for target in panel["targets"]]
    assert letters
    assert letters == list("ABC")[: len(letters)]


@each_target
def test_target_rate_interval_rule(title: str, expr: str) -> None:
    assert set(re.findall(r"\[([^]]*)\]", expr)) <= {"$__rate_interval"}


@each_target
def test_target_job_rule(title: str, expr: str) -> None:
    selectors = re.findall(r"\b(?:halvard|process)_\w+\b(\{job=~\"\$job\"[,}])?", expr)
    assert selectors
    assert all(selectors)


@each_target
def test_target_counter_agg_rule(title: str, expr: str) -> None:
    if title in {entry["panel"] for entry in EXCLUDED["target-counter-agg-rule"]["entries"]}:
        return
    assert len(re.findall(r"_total\b", expr)) == len(re.findall(r"(?:rate|increase)\(\w+_total\{[^}]*\}\[", expr))


def test_uneditable_rule() -> None:
    assert MADE["editable"] is False


def test_every_exclusion_of_a_rule_has_its_reason() -> None:
    assert [name for name, rule in EXCLUDED.items() if not rule["reason"]] == []
    named = {entry["panel"] for rule in EXCLUDED.values() for entry in rule.get("entries", ())}
    assert named <= set(PANELS)


def test_it_is_what_its_builder_makes() -> None:
    pytest.importorskip("grafana_foundation_sdk")
    made = subprocess.run([sys.executable, ROOT / "helm/dashboard.py"], capture_output=True, text=True, check=True)
    assert made.stdout == DASHBOARD.read_text()


def test_it_keeps_its_address() -> None:
    assert (MADE["uid"], MADE.get("id")) == ("halvard", None)


def test_progress_gpus_and_the_operator_have_a_row_each() -> None:
    assert [p["title"] for p in MADE["panels"] if p["type"] == "row"] == ["Progress", "GPUs", "Operator"]


def test_no_two_panels_have_the_same_id_or_title() -> None:
    ids = [panel["id"] for panel in MADE["panels"]]
    assert len(set(ids)) == len(ids)
    assert len(PANELS) == len(panels(MADE))


def test_no_two_panels_overlap() -> None:
    taken: list[tuple[int, int]] = []
    for panel in MADE["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        taken += itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"]))
    assert len(set(taken)) == len(taken)


@each_target
def test_every_metric_is_documented(title: str, expr: str) -> None:
    names = {re.sub(r"_bucket$", "", name) for name in re.findall(r"\b(?:halvard|process)_\w+", expr)}
    assert names
    assert [name for name in names if f"`{name}`" not in DOCUMENTED] == []


def test_queries_leave_no_variable() -> None:
    assert {title for title, _ in queries(MADE)} == set(PANELS)
    assert [expr for _, expr in queries(MADE) if "$" in expr] == []
