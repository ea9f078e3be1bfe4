"""The chart's Prometheus rules by Debian's promtool, and the page that says what to do about them; needs no cluster."""

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.binaries import binary
from lab.panels import dashboard, queries
from lab.prometheus import RULES, program

ROOT = Path(__file__).parents[2]
CASES = sorted((Path(__file__).parent / "alerts").glob("*.yaml"))
PAGES = {name: (ROOT / "docs" / name).read_text() for name in ("metrics.md", "operate.md")}
GROUPS = yaml.safe_load(RULES.read_text())["groups"]
ALERTS: dict[str, dict[str, Any]] = {r["alert"]: r for g in GROUPS for r in g["rules"] if "alert" in r}
COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", PAGES["operate.md"], re.DOTALL) for line in block.splitlines()
]
each_alert = pytest.mark.parametrize("alert", ALERTS)


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run([program("promtool"), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def parsed(directory: Path, expressions: list[str]) -> None:
    """Has promtool parse them, as records."""
    rules = [{"record": f"query:number:{number}", "expr": expr} for number, expr in enumerate(expressions)]
    file = directory / "rules.json"
    file.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    promtool("check", "rules", file)


def test_the_rules_are_well_formed() -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_an_alert_fires_when_it_should_and_else_stays_silent(case: Path) -> None:
    promtool("test", "rules", case)


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_stays_silent() -> None:
    assert {case.stem for case in CASES} == set(ALERTS)
    for case in CASES:
        expected = [
            [bool(point["exp_alerts"]) for point in test["alert_rule_test"] if point["alertname"] == case.stem]
            for test in yaml.safe_load(case.read_text())["tests"]
        ]
        assert any(any(fires) for fires in expected), case.name
        assert any(fires and not any(fires) for fires in expected), case.name


@each_alert
def test_an_alert_says_how_bad_it_is_what_is_wrong_and_where_to_read_on(alert: str) -> None:
    rule = ALERTS[alert]
    assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    assert rule["annotations"]["runbook"] == f"docs/operate.md#{alert.lower()}"
    assert f"\n## {alert}\n" in PAGES["operate.md"]


def test_the_page_explains_no_other_alerts() -> None:
    assert set(re.findall(r"^## (Halvard\w+)$", PAGES["operate.md"], re.MULTILINE)) == set(ALERTS)


def test_rules_rest_on_documented_metrics_and_on_their_own_records() -> None:
    rules = [rule for group in GROUPS for rule in group["rules"]]
    records = {rule["record"] for rule in rules if "record" in rule}
    used = {name for rule in rules for name in re.findall(r"[\w:]*\bhalvard_[\w:]+", rule["expr"])}
    assert records <= used
    assert [name for name in used - records if f"`{name}`" not in PAGES["metrics.md"]] == []


def test_queries_of_the_dashboard_are_promql(tmp_path: Path) -> None:
    parsed(tmp_path, [expr for _, expr in queries(dashboard())])


@pytest.mark.parametrize("page", PAGES)
def test_queries_in_the_documentation_are_promql_on_documented_metrics(page: str, tmp_path: Path) -> None:
    blocks = re.findall(r"```promql\n(.*?)```", PAGES[page], re.DOTALL)
    assert len(blocks) >= 3
    parsed(tmp_path, blocks)
    names = {name for block in blocks for name in re.findall(r"\bhalvard_\w+", block)}
    assert [name for name in names if f"`{name}`" not in PAGES["metrics.md"]] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_what_kubectl_takes(command: str) -> None:
    kubectl, *arguments = shlex.split(command)
    assert kubectl == "kubectl"
    done = subprocess.run(
        [binary("kubectl"), *arguments, "--server=http://127.0.0.1:1"], capture_output=True, text=True, check=False
    )
    assert "connection to the server 127.0.0.1:1 was refused" in done.stderr  # so its words and flags were understood
