import json
from datetime import datetime
from typing import Any, get_args

import pytest
from prometheus_client.parser import text_string_to_metric_families

from halvard import __version__
from halvard.cache import Cache
from halvard.endpoint import Result
from halvard.events import Fault, Reported, Started
from halvard.faults import CONFIGURATION, INFRASTRUCTURE
from halvard.kube import Manifest
from halvard.metrics import Metrics, pods
from halvard_trainer.reports import Report
from podstatus import exited

DIGITS = ("team-a", "digits")
Samples = dict[tuple[str, str], float]


def condition(kind: str, status: str, reason: str) -> Manifest:
    at = "2026-03-01T10:00:00Z"
    return {"type": kind, "status": status, "reason": reason, "message": "in words", "lastTransitionTime": at}


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
            "conditions": [
                condition("Degraded", "True", "QuotaExhausted"),
                condition("Suspended", "False", "SuspendCleared"),
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


def pod(index: int, *, created: str = "10:00:00", node: str = "", trainer: Manifest | None = None) -> Manifest:
    """A Pod with two GPUs; `trainer`: the state of its container."""
    resources = {"limits": {"nvidia.com/gpu": "2"}}
    return {
        "metadata": {
            "name": f"digits-{index:04d}-1",
            "namespace": "team-a",
            "uid": f"p{index}",
            "resourceVersion": "9",
            "creationTimestamp": f"2026-03-01T{created}Z",
            "labels": {"halvard.dev/study": "digits", "halvard.dev/trial": f"digits-{index:04d}"},
        },
        "spec": {"nodeName": node, "containers": [{"name": "trainer", "resources": resources}]},
        "status": {"containerStatuses": [{"name": "trainer", "state": trainer or {}}]},
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


def with_pods() -> Cache:
    cache = filled()
    running = {"running": {"startedAt": "2026-03-01T10:00:00Z"}}
    cache.pods.seen(pod(0, created="10:00:00"))
    cache.pods.seen(pod(1, created="10:04:00"))
    cache.pods.seen(pod(2, node="node-1"))
    for index in (3, 4, 5):
        cache.pods.seen(pod(index, node="node-1", trainer=running))
    cache.pods.seen(pod(6, node="node-1", trainer=exited(0)))
    return cache


async def test_pods_and_their_gpus_are_counted_by_phase_until_the_trainer_has_ended() -> None:
    samples = await scrape(Metrics(with_pods()))
    assert of(samples, "halvard_pods", "phase") == {"pending": 2, "starting": 1, "running": 3}
    assert of(samples, "halvard_gpus", "phase") == {"pending": 4, "starting": 2, "running": 6}


async def test_a_study_without_pods_has_its_series_at_zero() -> None:
    samples = await scrape(Metrics(filled()))
    assert of(samples, "halvard_pods", "phase") == {"pending": 0, "starting": 0, "running": 0}
    assert of(samples, "halvard_oldest_pending_pod_seconds", "study") == {"digits": 0}


def test_a_pod_on_a_node_that_is_lost_is_counted_no_more() -> None:
    cache = filled()
    lost = pod(0, node="node-1")
    lost["metadata"]["deletionTimestamp"] = "2026-03-01T10:05:00Z"
    lost["status"]["reason"] = "NodeLost"
    cache.pods.seen(lost)
    count, _, _ = pods(cache, [DIGITS], 0.0)
    assert {sample.value for sample in count.samples} == {0}


def test_the_oldest_pending_pod_is_the_one_created_first() -> None:
    now = datetime.fromisoformat("2026-03-01T10:10:00Z").timestamp()
    _, _, oldest = pods(with_pods(), [DIGITS], now)
    assert [sample.value for sample in oldest.samples] == [600.0]


def test_a_clock_that_is_behind_the_api_servers_makes_no_negative_age() -> None:
    _, _, oldest = pods(with_pods(), [DIGITS], 0.0)
    assert [sample.value for sample in oldest.samples] == [0.0]


async def test_conditions_are_shown_while_they_are_true() -> None:
    samples = await scrape(Metrics(filled()))
    assert of(samples, "halvard_study_condition", "condition", "reason") == {("Degraded", "QuotaExhausted"): 1}


def reported(at: float) -> Reported:
    return Reported(trial=0, attempt=1, at=at, report=Report(step=1, metrics={"loss": 0.5}))


async def last_report(metrics: Metrics) -> dict[Any, float]:
    return of(await scrape(metrics), "halvard_study_last_report_timestamp_seconds", "namespace", "study")


async def test_a_study_that_has_not_reported_counts_from_when_it_was_met() -> None:
    metrics = Metrics(filled())
    assert await last_report(metrics) == {}
    metrics.follow(DIGITS, 1000.0)
    metrics.turn(DIGITS, [Started(trial=0, attempt=1, at=1500.0)], [])
    assert await last_report(metrics) == {DIGITS: 1000.0}


async def test_the_last_report_is_the_latest_and_one_told_again_changes_nothing() -> None:
    metrics = Metrics(filled())
    metrics.follow(DIGITS, 1000.0)
    metrics.turn(DIGITS, [reported(1200.0), reported(1300.0), reported(1250.0)], [])
    metrics.turn(DIGITS, [reported(1200.0)], [])
    assert await last_report(metrics) == {DIGITS: 1300.0}
    metrics.forget(DIGITS)
    assert await last_report(metrics) == {}


async def test_faults_are_counted_by_class_and_reason_and_are_there_from_the_start() -> None:
    metrics = Metrics(filled())
    before = of(await scrape(metrics), "halvard_faults_total", "class", "reason")
    assert before == {
        **{("infrastructure", reason): 0 for reason in INFRASTRUCTURE},
        **{("configuration", reason): 0 for reason in CONFIGURATION},
    }
    metrics.follow(DIGITS, 1000.0)
    evicted, oom = Fault("Evicted", "low on disk", counted=False), Fault("OOMKilled", "2Gi", counted=True)
    metrics.turn(DIGITS, [], [evicted, oom, evicted])
    after = of(await scrape(metrics), "halvard_faults_total", "class", "reason")
    assert {key: value for key, value in after.items() if value} == {
        ("infrastructure", "Evicted"): 2,
        ("configuration", "OOMKilled"): 1,
    }


async def test_a_superseded_checkpoint_is_a_report_with_one() -> None:
    metrics = Metrics(Cache())
    metrics.superseded([Report(1, {"loss": 0.5}), Report(2, {"loss": 0.4}, "step-2"), Report(3, {"loss": 0.3})])
    samples = await scrape(metrics)
    assert of(samples, "halvard_reports_dropped_total", "reason")["superseded"] == 3
    assert of(samples, "halvard_checkpoints_superseded_total") == {(): 1}


@pytest.mark.parametrize(
    ("name", "label", "values"),
    [
        ("pushes", "result", get_args(Result)),
        ("reports_dropped", "reason", ("invalid", "repeated", "superseded")),
        ("promotions", "mode", ("hot", "cold")),
        ("legs_started", "start", ("fresh", "resumed")),
    ],
)
async def test_a_counter_is_at_zero_before_anything_was_counted(name: str, label: str, values: tuple[str, ...]) -> None:
    samples = await scrape(Metrics(Cache()))
    assert of(samples, f"halvard_{name}_total", label) == dict.fromkeys(values, 0)


async def test_the_series_of_a_deleted_study_are_gone() -> None:
    cache = with_pods()
    metrics = Metrics(cache)
    metrics.follow(DIGITS, 1000.0)
    assert any("digits" in labels for _, labels in await scrape(metrics))
    cache.studies.gone(study(11))
    assert not any("digits" in labels for _, labels in await scrape(metrics))


async def test_no_label_names_a_trial_a_pod_a_node_or_a_parameter() -> None:
    metrics = Metrics(with_pods())
    metrics.follow(DIGITS, 1000.0)
    metrics.api_request("create", "pods", 201, 0.01)
    metrics.pod_create_errors.labels("QuotaExhausted").inc()
    allowed = {"namespace", "study", "state", "rung", "outcome", "phase", "condition", "class", "result", "reason"}
    allowed |= {"mode", "start", "verb", "resource", "code", "le", "version"}
    assert {label for _, labels in await scrape(metrics) for label in json.loads(labels)} <= allowed


async def test_names_follow_the_rules_of_prometheus() -> None:
    metrics = Metrics(filled())
    metrics.heard("pods")
    families = list(text_string_to_metric_families((await metrics.text()).decode()))
    ours = [family for family in families if not family.name.startswith("process_")]
    assert all(family.name.startswith("halvard_") and family.documentation.endswith(".") for family in ours)
    timed = {f.name for f in ours if any(word in f.name for word in ("duration", "_age", "lag", "oldest", "last"))}
    assert timed == {
        "halvard_decision_duration_seconds",
        "halvard_report_lag_seconds",
        "halvard_watch_age_seconds",
        "halvard_oldest_pending_pod_seconds",
        "halvard_study_last_report_timestamp_seconds",
    }
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
