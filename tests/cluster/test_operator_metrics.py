"""What the operator tells Prometheus of a study while it goes on."""

import time

from prometheus_client.parser import text_string_to_metric_families

from cluster.scripted import Scene, eventually

LAST_REPORT = "halvard_study_last_report_timestamp_seconds"


async def value(scene: Scene, name: str, **labels: str) -> float | None:
    """The one sample of that name with these labels."""
    found = [
        sample.value
        for family in text_string_to_metric_families(await scene.metrics())
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    return found[0] if found else None


async def becomes(scene: Scene, expected: float, name: str, **labels: str) -> None:
    async def look() -> bool:
        return await value(scene, name, **labels) == expected

    await eventually(look)


async def test_a_pod_and_its_gpu_are_pending_then_starting_then_running(scene: Scene) -> None:
    async with scene.operator():
        await scene.apply()
        pod = await scene.pod(0)
        await becomes(scene, 1, "halvard_pods", phase="pending", study="search")
        await scene.is_bound(pod)
        await becomes(scene, 1, "halvard_gpus", phase="starting", study="search")
        await scene.runs(pod)
        await becomes(scene, 1, "halvard_gpus", phase="running", study="search")
        assert await value(scene, "halvard_pods", phase="pending") == 0


async def test_a_fault_is_counted_by_its_class_and_reason(scene: Scene) -> None:
    async with scene.operator():
        await scene.apply(parallelism=2)
        lost, failing = await scene.pod(0), await scene.pod(1)
        for pod in (lost, failing):
            await scene.is_bound(pod)
            await scene.runs(pod)
        await scene.kubectl("delete", "pod", lost["metadata"]["name"], "--force", "--grace-period=0")
        await scene.ends(failing, code=1)
        await becomes(scene, 1, "halvard_faults_total", **{"class": "infrastructure"}, reason="PodVanished")
        await becomes(scene, 1, "halvard_faults_total", **{"class": "configuration"}, reason="NonZeroExit")


async def test_the_last_report_is_when_it_was_pushed_and_is_gone_with_the_study(scene: Scene) -> None:
    async with scene.operator():
        await scene.apply()
        pod = await scene.pod(0)
        met = await value(scene, LAST_REPORT, study="search")
        assert met is not None
        await scene.runs(pod)
        before = time.time()
        await scene.push(pod, 1, 0.5)
        reported = await value(scene, LAST_REPORT, study="search")
        assert reported is not None
        assert met < before <= reported <= time.time()
        await scene.kubectl("delete", "study", "search")

        async def gone() -> bool:
            return await value(scene, LAST_REPORT) is None

        await eventually(gone)
