"""Builds the Grafana dashboard: `python helm/dashboard.py > helm/halvard/files/dashboard.json`.

Studies' series are aggregated over the operator's Pods, so a new leader makes no new lines. Written for Grafana 10.1;
every later one takes it over by itself.
"""

import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from grafana_foundation_sdk.builders import bargauge, common, timeseries
from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, QueryVariable, Row
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
OPERATOR = 'job=~"$job"'
STUDY = f'{OPERATOR}, namespace=~"$namespace", study=~"$study"'
BY_STUDY = "{{namespace}}/{{study}}"
INSTANCE = "{{instance}}"

HEIGHT = 8

Panel = timeseries.Panel | bargauge.Panel
Unit = Literal["short", "s", "reqps", "bytes"]


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression, and how its series are called."""

    expr: str
    legend: str


def progress() -> Iterable[Panel]:
    """How far the studies are."""
    yield lines(
        "Best value so far",
        "The best value of the highest rung with a result. It may get worse when a higher rung has its first one.",
        Query(f"max by (namespace, study) (halvard_best_objective{{{STUDY}}})", BY_STUDY),
        width=12,
    )
    yield lines(
        "Trials by state",
        "Paused trials wait at a rung for a promotion; stopped ones were running when their study ended.",
        Query(f"sum by (state) (max by (namespace, study, state) (halvard_trials{{{STUDY}}}))", "{{state}}"),
        width=12,
        stacked=True,
    )
    yield bars(
        "Results by rung",
        "The funnel: how many trials have a result at each rung.",
        "sort_desc(sum by (rung) (max by (namespace, study, rung) (halvard_rung_results_total{" + STUDY + "})))",
        width=6,
    )
    yield bars(
        "Promotions by rung",
        "How many trials went on from each rung.",
        "sort_desc(sum by (rung) (max by (namespace, study, rung) (halvard_rung_promotions_total{" + STUDY + "})))",
        width=6,
    )
    yield lines(
        "Promotions by mode",
        "Hot: the trial went on in its own Pod. Cold: it had been paused, and starts in a new one.",
        Query(f"sum by (mode) (increase(halvard_promotions_total{{{OPERATOR}}}[$__rate_interval]))", "{{mode}}"),
        width=6,
        stacked=True,
    )
    yield lines(
        "Time since the last report",
        "Of studies with a running trainer; 0 for all others.",
        Query(
            f"(time() - max by (namespace, study) (halvard_study_last_report_timestamp_seconds{{{STUDY}}}))"
            f' * on (namespace, study) (max by (namespace, study) (halvard_pods{{{STUDY}, phase="running"}}) > bool 0)',
            BY_STUDY,
        ),
        unit="s",
        width=6,
    )


def gpus() -> Iterable[Panel]:
    """Where the GPUs go."""
    by_outcome = f"max by (namespace, study, rung, outcome) (halvard_gpu_seconds{{{STUDY}}}) / 3600"
    yield lines(
        "GPU-hours by outcome",
        "What became of the trials they went to: promoted, complete, paused, failed; lost: taken by faults.",
        Query(f"sum by (outcome) ({by_outcome})", "{{outcome}}"),
        width=12,
        stacked=True,
    )
    yield bars(
        "GPU-hours by rung",
        "Rung 0: without a result.",
        f"sort_desc(sum by (rung) ({by_outcome}))",
        width=12,
    )
    held = f'max by (namespace, study, phase) (halvard_gpus{{{STUDY}, phase=~"starting|running"}})'
    yield lines(
        "GPUs in use",
        "Starting: on a node, the trainer does not run yet (its image is pulled, say).",
        Query(f"sum by (phase) ({held})", "{{phase}}"),
        width=6,
        stacked=True,
    )
    yield lines(
        "GPUs waiting",
        "Asked for by Pods without a node; at most 4 Pods of a study wait.",
        Query(f'max by (namespace, study) (halvard_gpus{{{STUDY}, phase="pending"}})', BY_STUDY),
        width=6,
        stacked=True,
    )
    yield lines(
        "Time in queue",
        "Age of each study's oldest Pod without a node.",
        Query(f"max by (namespace, study) (halvard_oldest_pending_pod_seconds{{{STUDY}}})", BY_STUDY),
        unit="s",
        width=6,
    )
    yield lines(
        "Studies by condition",
        "Conditions that are true, with their reason; QuotaExhausted is a queue.",
        Query(
            "count by (condition, reason) (max by (namespace, study, condition, reason) "
            f"(halvard_study_condition{{{STUDY}}}))",
            "{{condition}}: {{reason}}",
        ),
        width=6,
        stacked=True,
    )


def operator() -> Iterable[Panel]:
    """How the operator itself is."""
    yield lines(
        "Decision latency", "Time to decide one turn of a study.", *quantiles("halvard_decision_duration"), unit="s"
    )
    yield lines(
        "Report lag",
        "From the arrival of a pushed report to when all that follows from it was stored.",
        *quantiles("halvard_report_lag"),
        unit="s",
    )
    yield lines(
        "Pushes by result",
        "Refused are invalid, unauthorized, too_large, rate_limited; superseded: of an attempt that is over.",
        rate("halvard_pushes_total", "result"),
        unit="reqps",
        stacked=True,
    )
    yield lines(
        "API requests by code",
        "Requests to the API server; code 0: no answer.",
        rate("halvard_api_requests_total", "code"),
        unit="reqps",
        stacked=True,
    )
    yield lines(
        "Faults by reason",
        "Attempts without a result. Infrastructure: the leg runs again. Configuration: the trial failed.",
        Query(
            f"sum by (class, reason) (increase(halvard_faults_total{{{OPERATOR}}}[$__rate_interval]))",
            "{{class}}: {{reason}}",
        ),
        stacked=True,
    )
    yield lines(
        "Watch age",
        "Since the leader last heard of a resource; up to 300 s where nothing happens.",
        Query(f"max by (resource) (halvard_watch_age_seconds{{{OPERATOR}}})", "{{resource}}"),
        unit="s",
    )
    yield lines(
        "Leader", "1: leads. 0: stands by.", Query(f"max by (job, instance) (halvard_leader{{{OPERATOR}}})", INSTANCE)
    )
    own = f"and on (job, instance) halvard_build_info{{{OPERATOR}}}"
    yield lines(
        "Memory",
        "Resident memory of each operator.",
        Query(f"process_resident_memory_bytes{{{OPERATOR}}} {own}", INSTANCE),
        unit="bytes",
    )
    yield lines(
        "CPU",
        "Cores that each operator keeps busy.",
        Query(f"rate(process_cpu_seconds_total{{{OPERATOR}}}[$__rate_interval]) {own}", INSTANCE),
    )


def rate(metric: str, label: str) -> Query:
    """Returns the rate of a counter by one label."""
    return Query(f"sum by ({label}) (rate({metric}{{{OPERATOR}}}[$__rate_interval]))", f"{{{{{label}}}}}")


def quantiles(histogram: str) -> Sequence[Query]:
    """Returns the median and the 99th percentile of a histogram of seconds."""
    buckets = f"sum by (le) (rate({histogram}_seconds_bucket{{{OPERATOR}}}[$__rate_interval]))"
    return [Query(f"histogram_quantile({q}, {buckets})", name) for q, name in ((0.5, "p50"), (0.99, "p99"))]


def lines(
    title: str, description: str, *queries: Query, unit: Unit = "short", width: int = 8, stacked: bool = False
) -> timeseries.Panel:
    """Returns values over time."""
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .datasource(SOURCE)
        .legend(legend.show_legend(True))  # noqa: FBT003  # a builder's setter
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
        .fill_opacity(30 if stacked else 0)
        .stacking(common.StackingConfig().group("A").mode(StackingMode.NORMAL if stacked else StackingMode.NONE))
        .height(HEIGHT)
        .span(width)
    )
    for letter, query in zip("ABC", queries, strict=False):
        target = Dataquery().ref_id(letter).datasource(SOURCE).expr(query.expr).legend_format(query.legend).range()
        panel.with_target(target)
    return panel


def bars(title: str, description: str, expr: str, *, width: int) -> bargauge.Panel:
    """Returns what is the case now, one bar a rung."""
    return (
        bargauge.Panel()
        .title(title)
        .description(description)
        .unit("short")
        .datasource(SOURCE)
        .orientation(VizOrientation.HORIZONTAL)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .height(HEIGHT)
        .span(width)
        .with_target(Dataquery().ref_id("A").datasource(SOURCE).expr(expr).legend_format("rung {{rung}}").instant())
    )


def variable(name: str, query: str) -> QueryVariable:
    """Returns a choice among a label's values."""
    return (
        QueryVariable(name)
        .label(name.title())
        .datasource(SOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)  # noqa: FBT003  # a builder's setter
        .include_all(True)  # noqa: FBT003  # a builder's setter
        .all_value(".+")
        .current(VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def dashboard() -> Dashboard:
    """Returns the whole of it."""
    made = (
        Dashboard("Halvard")
        .uid("halvard")
        .description("Studies, the GPUs they use, and the operator that runs them.")
        .tags(["halvard"])
        .readonly()
        .time("now-6h", "now")
        .refresh("1m")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(variable("job", "label_values(halvard_build_info, job)"))
        .with_variable(variable("namespace", f"label_values(halvard_trials{{{OPERATOR}}}, namespace)"))
        .with_variable(variable("study", f'label_values(halvard_trials{{{OPERATOR}, namespace=~"$namespace"}}, study)'))
    )
    number = itertools.count(1)
    for title, panels in ROWS.items():
        made.with_row(Row(title).id(next(number)))
        for panel in panels():
            made.with_panel(panel.id(next(number)))
    return made


ROWS: Mapping[str, Callable[[], Iterable[Panel]]] = {"Progress": progress, "GPUs": gpus, "Operator": operator}

if __name__ == "__main__":
    print(json.dumps(dashboard().build(), cls=JSONEncoder, indent=2, ensure_ascii=False))
