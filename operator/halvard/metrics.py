"""What Prometheus may scrape, and the only importer of `prometheus_client`: no label by trial, Pod, node or parameter.

Everything about studies is computed from the cache when it is scraped, so the series of a deleted Study are gone.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from typing_extensions import override

from halvard import __version__
from halvard.cache import Cache
from halvard.endpoint import Result
from halvard.events import Event, Fault, Reported
from halvard.faults import CONFIGURATION, INFRASTRUCTURE
from halvard.observe import PodView
from halvard.queue import Key
from halvard.status import time_spent
from halvard.study_status import StudyStatus
from halvard_trainer.reports import Report

FAST = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
SLOW = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
STUDY = ("namespace", "study")
CONTENT_TYPE = CONTENT_TYPE_LATEST

disable_created_metrics()  # a gauge beside every counter that says when it began: twice the series, and nobody asks


class Metrics:
    """The operator's own metrics, and a registry that adds those of the studies in the cache."""

    def __init__(self, cache: Cache) -> None:
        """Makes a registry of its own, so that several operators can live in one process."""
        registry = self.registry = CollectorRegistry()
        self.decision = Histogram(
            "halvard_decision_duration_seconds", "Time to decide one turn of a study.", buckets=FAST, registry=registry
        )
        self.report_lag = Histogram(
            "halvard_report_lag_seconds",
            "From the arrival of a pushed report to the moment when all that follows from it was stored.",
            buckets=SLOW,
            registry=registry,
        )
        self.pushes = self._counter("pushes", "Pushes of reports by result.", "result", get_args(Result))
        self.dropped = self._counter(
            "reports_dropped",
            "Reports that changed nothing: invalid (a line that is none), repeated (a step reported before, or lower), "
            "superseded (of an attempt that is over).",
            "reason",
            ("invalid", "repeated", "superseded"),
        )
        self._superseded_checkpoints = Counter(
            "halvard_checkpoints_superseded",
            "Checkpoints written by attempts that were over: nothing is resumed from them.",
            registry=registry,
        )
        self.pod_create_errors = self._counter(
            "pod_create_errors", "Pods that the API server refused, by reason.", "reason"
        )
        self.promotions = self._counter(
            "promotions",
            "Promotions by mode: hot (the trial went on in its own Pod), cold (it had been paused).",
            "mode",
            ("hot", "cold"),
        )
        self.legs = self._counter(
            "legs_started",
            "Pods created, by start: fresh (from nothing), resumed (from a checkpoint).",
            "start",
            ("fresh", "resumed"),
        )
        self._faults = Counter(
            "halvard_faults",
            "Attempts without a result by class: infrastructure (the leg runs again), configuration (the trial fails).",
            ["class", "reason"],
            registry=registry,
        )
        for reason in (*INFRASTRUCTURE, *CONFIGURATION):
            self._faults.labels("infrastructure" if reason in INFRASTRUCTURE else "configuration", reason)
        self.api_requests = Counter(
            "halvard_api_requests",
            "Requests to the API server; code 0: there was no answer.",
            ["verb", "resource", "code"],
            registry=registry,
        )
        self.leader = Gauge("halvard_leader", "1 while this process leads.", registry=registry)
        self._heard: dict[str, float] = {}
        self._last_reports: dict[Key, float] = {}
        Info("halvard_build", "The version that runs.", registry=registry).info({"version": __version__})
        ProcessCollector(registry=registry)
        registry.register(WatchAge(self._heard))
        registry.register(StudyCollector(cache, self._last_reports))

    def _counter(self, name: str, documentation: str, label: str, values: Iterable[str] = ()) -> Counter:
        """A counter whose series are there from the start: a first increase has to be seen as one."""
        counter = Counter(f"halvard_{name}", documentation, [label], registry=self.registry)
        for value in values:
            counter.labels(value)
        return counter

    def heard(self, resource: str) -> None:
        """Notes that a watch or a list of the resource said something."""
        self._heard[resource] = time.monotonic()

    def api_request(self, verb: str, resource: str, code: int, _seconds: float) -> None:
        """Counts one request to the API server."""
        self.api_requests.labels(verb, resource, str(code)).inc()

    def follow(self, study: Key, now: float) -> None:
        """Begins to wait for reports of a study: this process has just met it."""
        self._last_reports[study] = now

    def forget(self, study: Key) -> None:
        """Waits for no more reports of a study."""
        self._last_reports.pop(study, None)

    def pushed(self, result: Result) -> None:
        """A push was answered, or a connection ended before one came."""
        self.pushes.labels(result).inc()

    def invalid(self, lines: int) -> None:
        """So many lines in a Pod were no reports."""
        self.dropped.labels("invalid").inc(lines)

    def superseded(self, reports: Sequence[Report]) -> None:
        """An attempt that is over reported these."""
        self.dropped.labels("superseded").inc(len(reports))
        self._superseded_checkpoints.inc(sum(bool(report.checkpoint) for report in reports))

    def turn(self, study: Key, events: Iterable[Event], faults: Iterable[Fault]) -> None:
        """Takes over what one turn of a study has dealt with."""
        reports = (event.at for event in events if isinstance(event, Reported))
        self._last_reports[study] = max((self._last_reports[study], *reports))
        for fault in faults:
            self._faults.labels("configuration" if fault.counted else "infrastructure", fault.reason).inc()

    async def text(self) -> bytes:
        """Returns everything in Prometheus's format; computed beside the event loop, which has better things to do."""
        return await asyncio.to_thread(generate_latest, self.registry)


class WatchAge(Collector):
    """How long ago each resource was heard of."""

    def __init__(self, heard: dict[str, float]) -> None:
        """`heard`: the monotonic time of the last event or list, by resource."""
        self._heard = heard

    @override
    def collect(self) -> Iterable[Metric]:
        """Computes the ages now."""
        age = GaugeMetricFamily(
            "halvard_watch_age_seconds", "Since a watch or a re-list last said something.", labels=["resource"]
        )
        for resource, at in list(self._heard.items()):
            age.add_metric([resource], time.monotonic() - at)
        yield age


class StudyCollector(Collector):
    """What is known of the studies that exist."""

    def __init__(self, cache: Cache, last_reports: Mapping[Key, float]) -> None:
        """Reads both at each scrape; their values are immutable, so another thread may."""
        self._cache = cache
        self._last_reports = last_reports

    @override
    def collect(self) -> Iterable[Metric]:
        """Computes every series of every study."""
        studies = [(item.key, item.value.status) for item in self._cache.studies.everything()]
        keys = [key for key, _ in studies]
        yield from (trials_by_state(studies), *rungs(studies), best_objective(studies), conditions(studies))
        yield from self._time_spent(keys)
        yield from pods(self._cache, keys, time.time())
        yield last_reports(self._last_reports, keys)

    def _time_spent(self, studies: Iterable[Key]) -> Iterable[Metric]:
        by = "by rung (0: no result) and by what became of them: promoted, complete, paused, failed, lost."
        labels = [*STUDY, "rung", "outcome"]
        gpu = GaugeMetricFamily("halvard_gpu_seconds", f"GPU-seconds of trials {by}", labels=labels)
        training = GaugeMetricFamily("halvard_training_seconds", f"Seconds of training {by}", labels=labels)
        for study in studies:
            for (rung, outcome), (seconds, gpu_seconds) in spent(self._cache, study).items():
                training.add_metric([*study, str(rung), outcome], seconds)
                gpu.add_metric([*study, str(rung), outcome], gpu_seconds)
        return gpu, training


Studies = Iterable[tuple[Key, StudyStatus]]


def trials_by_state(studies: Studies) -> Metric:
    """Returns how many trials are in each state."""
    family = GaugeMetricFamily("halvard_trials", "Trials by state.", labels=[*STUDY, "state"])
    for key, status in studies:
        for state, count in status.trials:
            if state != "total":
                family.add_metric([*key, state], count)
    return family


def rungs(studies: Studies) -> tuple[Metric, Metric]:
    """Returns results and promotions of each rung."""
    labels = [*STUDY, "rung"]
    results = CounterMetricFamily("halvard_rung_results", "Results of trials by rung.", labels=labels)
    promotions = CounterMetricFamily(
        "halvard_rung_promotions", "Trials promoted, by the rung they left.", labels=labels
    )
    for key, status in studies:
        for rung in status.rungs:
            results.add_metric([*key, str(rung.budget)], rung.completed)
            promotions.add_metric([*key, str(rung.budget)], rung.promoted)
    return results, promotions


def best_objective(studies: Studies) -> Metric:
    """Returns the best values so far."""
    family = GaugeMetricFamily("halvard_best_objective", "The best value of the highest rung with one.", labels=STUDY)
    for key, status in studies:
        if status.best is not None:
            family.add_metric(key, status.best.value)
    return family


def conditions(studies: Studies) -> Metric:
    """Returns the conditions that are true."""
    family = GaugeMetricFamily(
        "halvard_study_condition", "1 while the condition is true.", labels=[*STUDY, "condition", "reason"]
    )
    for key, status in studies:
        for condition in status.conditions:
            if condition.status == "True":
                family.add_metric([*key, condition.type, condition.reason], 1)
    return family


def last_reports(last: Mapping[Key, float], studies: Iterable[Key]) -> Metric:
    """Returns when each study reported last."""
    family = GaugeMetricFamily(
        "halvard_study_last_report_timestamp_seconds",
        "When a trial of the study reported last; before the first report, when this process met the study.",
        labels=STUDY,
    )
    for key in studies:
        if key in last:
            family.add_metric(key, last[key])
    return family


def pods(cache: Cache, studies: Iterable[Key], now: float) -> tuple[Metric, Metric, Metric]:
    """Returns each study's Pods and their GPUs by phase, and how long the oldest pending Pod waits."""
    by = "by phase: pending (no node yet), starting (its trainer does not run yet), running."
    count = GaugeMetricFamily("halvard_pods", f"Pods of trials {by}", labels=[*STUDY, "phase"])
    gpus = GaugeMetricFamily("halvard_gpus", f"GPUs that Pods of trials ask for {by}", labels=[*STUDY, "phase"])
    oldest = GaugeMetricFamily(
        "halvard_oldest_pending_pod_seconds", "Age of the oldest Pod without a node; 0: there is none.", labels=STUDY
    )
    for study in studies:
        by_phase: dict[Phase | None, list[PodView]] = defaultdict(list)
        for item in cache.pods.of(study):
            by_phase[phase_of(item.value)].append(item.value)
        for phase in get_args(Phase):
            views = by_phase[phase]
            count.add_metric([*study, phase], len(views))
            gpus.add_metric([*study, phase], sum(view.gpus for view in views))
        oldest.add_metric(study, max([0.0, *(now - view.created_at for view in by_phase["pending"])]))
    return count, gpus, oldest


Phase = Literal["pending", "starting", "running"]


def phase_of(pod: PodView) -> Phase | None:
    """Returns how far a Pod has come; None where its trainer has ended, or its node is out of reach."""
    if pod.ended_at is not None or pod.lost:
        return None
    if pod.started_at is not None:
        return "running"
    return "starting" if pod.node else "pending"


def spent(cache: Cache, study: Key) -> dict[tuple[int, str], tuple[float, float]]:
    """Returns seconds and GPU-seconds of a study's legs, by rung and outcome."""
    total: dict[tuple[int, str], tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    for item in cache.trials.of(study):
        for part in time_spent(item.value):
            seconds, gpu_seconds = total[part.rung, part.outcome]
            total[part.rung, part.outcome] = (seconds + part.seconds, gpu_seconds + part.gpu_seconds)
    return total
