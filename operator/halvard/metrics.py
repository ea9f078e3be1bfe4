"""What Prometheus may scrape, and the only importer of `prometheus_client`: no label by trial, Pod, node or parameter.

Everything about studies is computed from the cache when it is scraped, so the series of a deleted Study are gone.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable

from aiohttp import web
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
from halvard.queue import Key
from halvard.status import time_spent
from halvard.study import StudyStatus

FAST = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
SLOW = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
STUDY = ("namespace", "study")

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
        self.pushes = Counter("halvard_pushes", "Pushes of reports by result.", ["result"], registry=registry)
        self.dropped = Counter(
            "halvard_reports_dropped",
            "Reports that changed nothing: invalid (a line that is none), repeated (a step reported before, or lower).",
            ["reason"],
            registry=registry,
        )
        self.pod_create_errors = Counter(
            "halvard_pod_create_errors", "Pods that the API server refused, by reason.", ["reason"], registry=registry
        )
        self.promotions = Counter(
            "halvard_promotions",
            "Promotions by mode: hot (the trial went on in its own Pod), cold (it had been paused).",
            ["mode"],
            registry=registry,
        )
        self.legs = Counter(
            "halvard_legs_started",
            "Pods created, by start: fresh (from nothing), resumed (from a checkpoint).",
            ["start"],
            registry=registry,
        )
        self.api_requests = Counter(
            "halvard_api_requests",
            "Requests to the API server; code 0: there was no answer.",
            ["verb", "resource", "code"],
            registry=registry,
        )
        self.leader = Gauge("halvard_leader", "1 while this process leads.", registry=registry)
        self._heard: dict[str, float] = {}
        Info("halvard_build", "The version that runs.", registry=registry).info({"version": __version__})
        ProcessCollector(registry=registry)
        registry.register(WatchAge(self._heard))
        registry.register(StudyCollector(cache))

    def heard(self, resource: str) -> None:
        """Notes that a watch or a list of the resource said something."""
        self._heard[resource] = time.monotonic()

    def api_request(self, verb: str, resource: str, code: int, _seconds: float) -> None:
        """Counts one request to the API server."""
        self.api_requests.labels(verb, resource, str(code)).inc()

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

    def __init__(self, cache: Cache) -> None:
        """Reads the cache at each scrape; its values are immutable, so another thread may."""
        self._cache = cache

    @override
    def collect(self) -> Iterable[Metric]:
        """Computes every series of every study."""
        studies = [(item.key, item.value.status) for item in self._cache.studies.everything()]
        yield from (trials_by_state(studies), *rungs(studies), best_objective(studies))
        yield from self._time_spent([key for key, _ in studies])

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


def spent(cache: Cache, study: Key) -> dict[tuple[int, str], tuple[float, float]]:
    """Returns seconds and GPU-seconds of a study's legs, by rung and outcome."""
    total: dict[tuple[int, str], tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    for item in cache.trials.of(study):
        for part in time_spent(item.value):
            seconds, gpu_seconds = total[part.rung, part.outcome]
            total[part.rung, part.outcome] = (seconds + part.seconds, gpu_seconds + part.gpu_seconds)
    return total


def application(metrics: Metrics, ready: Callable[[], bool]) -> web.Application:
    """Returns what the operator's plain-HTTP port serves: `/metrics`, `/healthz`, and `/readyz` (it leads and sees)."""

    async def scrape(_: web.Request) -> web.Response:
        return web.Response(body=await metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthy(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def is_ready(_: web.Request) -> web.Response:
        return web.Response(text="ok\n") if ready() else web.Response(text="not leading\n", status=503)

    app = web.Application()
    app.add_routes([web.get("/metrics", scrape), web.get("/healthz", healthy), web.get("/readyz", is_ready)])
    return app
