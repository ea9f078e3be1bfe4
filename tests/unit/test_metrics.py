import json
from typing import Any

from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.parser import text_string_to_metric_families

from halvard import __version__
from halvard.cache import Cache
from halvard.kube import Manifest
from halvard.metrics import Metrics, application

Samples = dict[tuple[str, str], float]


def study(version: int) -> Manifest:
    return {
        "apiVersion": "halvard.dev/v1alpha1",
        "kind": "Study",
        "metadata": {"name": "digits", "namespace": "team-a", "uid": "s", "resourceVersion": str(version)},
        "spec": {
            "objective": {"metric": "loss", "goal": "minimize"},
            "parameters": [{"name": "lr", "float": {"min": 0.1, "max": 1.0}}],
            "scheduler": {"asha": {"maxBudget": 9}},
            "limits": {"trials": 10},
            "template": {"spec": {"containers": [{"name": "trainer", "image": "none"}]}},
        },
        "status": {
            "state": "Running",
            "trials": {"total": 5, "running": 2, "paused": 2, "failed": 1},
            "best": {"trial": "digits-0001", "value": 0.25, "budget": 3, "parameters": {"lr": 0.5}},
            "rungs": [
                {"budget": 1, "completed": 4, "promoted": 1, "running": 1},
                {"budget": 3, "completed": 1, "promoted": 0, "running": 0},
            ],
        },
    }


def trial(index: int, state: str, budget: int, results: dict[int, float], lost: float = 0.0) -> Manifest:
    at = "2026-03-01T10:00:00Z"
    rungs = [
        {"budget": rung, "value": 0.5, "step": rung, "seconds": seconds, "gpuSeconds": 2 * seconds, "at": at}
        for rung, seconds in results.items()
    ]
    metadata = {"name": f"digits-{index:04d}", "namespace": "team-a", "uid": f"t{index}", "resourceVersion": "9"}
    metadata |= {"labels": {"halvard.dev/study": "digits"}}  # type: ignore[dict-item]
    return {
        "apiVersion": "halvard.dev/v1alpha1",
        "kind": "Trial",
        "metadata": metadata,
        "spec": {"index": index, "budget": budget, "parameters": {"lr": 0.5}},
        "status": {"state": state, "rungs": rungs, "lost": {"seconds": lost, "gpuSeconds": 2 * lost}},
    }


def filled() -> Cache:
    cache = Cache()
    cache.studies.seen(study(10))
    cache.trials.seen(trial(0, "Running", 3, {1: 10.0}, lost=4.0))
    cache.trials.seen(trial(1, "Paused", 3, {1: 20.0, 3: 40.0}))
    cache.trials.seen(trial(2, "Failed", 1, {}, lost=7.0))
    return cache


async def scrape(metrics: Metrics) -> Samples:
    families = text_string_to_metric_families((await metrics.text()).decode())
    return {
        (sample.name, json.dumps(sample.labels, sort_keys=True)): sample.value
        for family in families
        for sample in family.samples
    }


def of(samples: Samples, name: str, *shown: str) -> dict[Any, float]:
    found = {}
    for (sample, labels), value in samples.items():
        if sample == name:
            values = tuple(json.loads(labels)[label] for label in shown)
            found[values[0] if len(values) == 1 else values] = value
    return found


async def test_trials_are_counted_by_state() -> None:
    samples = await scrape(Metrics(filled()))
    assert {state: count for state, count in of(samples, "halvard_trials", "state").items() if count} == {
        "running": 2,
        "paused": 2,
        "failed": 1,
    }


async def test_results_and_promotions_are_counted_by_rung() -> None:
    samples = await scrape(Metrics(filled()))
    assert of(samples, "halvard_rung_results_total", "rung") == {"1": 4, "3": 1}
    assert of(samples, "halvard_rung_promotions_total", "rung") == {"1": 1, "3": 0}
    assert of(samples, "halvard_best_objective", "namespace", "study") == {("team-a", "digits"): 0.25}


async def test_gpu_seconds_tell_rung_and_outcome_of_every_leg() -> None:
    samples = await scrape(Metrics(filled()))
    spent = {label: value for label, value in of(samples, "halvard_gpu_seconds", "rung", "outcome").items() if value}
    assert spent == {
        ("1", "promoted"): 60.0,
        ("3", "paused"): 80.0,
        ("0", "lost"): 8.0,
        ("0", "failed"): 14.0,
    }
    assert of(samples, "halvard_training_seconds", "rung", "outcome")["1", "promoted"] == 30.0


async def test_the_series_of_a_deleted_study_are_gone() -> None:
    cache = filled()
    metrics = Metrics(cache)
    assert any("digits" in labels for _, labels in await scrape(metrics))
    cache.studies.gone(study(11))
    assert not any("digits" in labels for _, labels in await scrape(metrics))


async def test_no_label_names_a_trial_a_pod_a_node_or_a_parameter() -> None:
    metrics = Metrics(filled())
    metrics.pushes.labels("accepted").inc()
    metrics.api_request("create", "pods", 201, 0.01)
    metrics.pod_create_errors.labels("QuotaExhausted").inc()
    allowed = {
        "namespace",
        "study",
        "state",
        "rung",
        "outcome",
        "result",
        "reason",
        "mode",
        "start",
        "verb",
        "resource",
    }
    allowed |= {"code", "le", "version"}
    assert {label for _, labels in await scrape(metrics) for label in json.loads(labels)} <= allowed


async def test_names_follow_the_rules_of_prometheus() -> None:
    metrics = Metrics(filled())
    metrics.heard("pods")
    families = list(text_string_to_metric_families((await metrics.text()).decode()))
    ours = [family for family in families if not family.name.startswith("process_")]
    assert all(family.name.startswith("halvard_") and family.documentation.endswith(".") for family in ours)
    timed = {family.name for family in ours if any(word in family.name for word in ("duration", "_age", "lag"))}
    assert timed == {"halvard_decision_duration_seconds", "halvard_report_lag_seconds", "halvard_watch_age_seconds"}
    assert {family.type for family in ours if family.name in {"halvard_pushes", "halvard_rung_results"}} == {"counter"}


async def test_requests_are_counted_by_verb_resource_and_code() -> None:
    metrics = Metrics(Cache())
    metrics.api_request("create", "pods", 201, 0.01)
    metrics.api_request("create", "pods", 403, 0.01)
    metrics.api_request("create", "pods", 201, 0.01)
    found = of(await scrape(metrics), "halvard_api_requests_total", "verb", "resource", "code")
    assert found == {("create", "pods", "201"): 2, ("create", "pods", "403"): 1}


async def test_the_version_and_the_leader_are_told() -> None:
    metrics = Metrics(Cache())
    metrics.leader.set(1)
    samples = await scrape(metrics)
    assert of(samples, "halvard_build_info", "version") == {__version__: 1}
    assert samples["halvard_leader", "{}"] == 1


async def test_a_scrape_over_http_parses_and_probes_say_whether_it_leads() -> None:
    leading = False
    async with TestClient(TestServer(application(Metrics(filled()), lambda: leading))) as client:
        answer = await client.get("/metrics")
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert any(f.name == "halvard_trials" for f in text_string_to_metric_families(await answer.text()))
        assert (await client.get("/healthz")).status == 200
        assert (await client.get("/readyz")).status == 503
        leading = True
        assert (await client.get("/readyz")).status == 200
