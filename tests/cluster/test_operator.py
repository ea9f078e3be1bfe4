"""The operator against a real API server: a study from its trials' Pods to its end."""

from cluster.scripted import Scene, eventually
from halvard.kube import Manifest


async def test_a_study_gets_trials_and_each_trial_a_pod_of_its_own(scene: Scene) -> None:
    async with scene.operator():
        await scene.apply(parallelism=3)
        pods = [await scene.pod(index) for index in range(3)]
        trials = await scene.trials()
    study = await scene.study()
    assert [trial["metadata"]["name"] for trial in trials] == [f"search-{index:04d}" for index in range(3)]
    assert {trial["metadata"]["ownerReferences"][0]["uid"] for trial in trials} == {study["metadata"]["uid"]}
    owners = [pod["metadata"]["ownerReferences"][0]["uid"] for pod in pods]
    assert owners == [trial["metadata"]["uid"] for trial in trials]


async def test_a_trial_that_must_wait_is_paused_and_the_next_one_starts(scene: Scene) -> None:
    async with scene.operator():
        await scene.apply()
        verdict = await scene.leg(0, 0.5)
        await scene.pod(1)
        trial = await scene.trial(0)
    assert verdict["stop"].startswith("paused")
    assert (trial["status"]["state"], trial["status"]["attempt"]) == ("Paused", 2)
    assert trial["status"]["rungs"][0]["value"] == 0.5


async def test_the_best_of_a_rung_goes_on_in_its_own_pod(scene: Scene) -> None:
    async with scene.operator():
        await scene.apply()
        await scene.leg(0, 0.5)
        await scene.leg(1, 0.6)
        assert await scene.leg(2, 0.1) == {"budget": 3, "stored": 1}
        trial = await scene.trial(2)
        pods = await scene.pods()
    assert (trial["spec"]["budget"], trial["status"]["attempt"]) == (3, 1)
    assert [pod["metadata"]["name"] for pod in pods] == ["search-0000-1", "search-0001-1", "search-0002-1"]


async def test_a_paused_trial_that_is_promoted_runs_again_in_a_new_pod(scene: Scene) -> None:
    async with scene.operator():
        await scene.apply()
        await scene.leg(0, 0.5)
        await scene.leg(1, 0.1)
        await scene.leg(2, 0.6)
        pod = await scene.pod(1, attempt=2)
        trial = await scene.trial(1)
    trainer = next(container for container in pod["spec"]["containers"] if container["name"] == "trainer")
    environment = {variable["name"]: variable.get("value") for variable in trainer["env"]}
    assert trial["spec"]["budget"] == 3
    assert environment["HALVARD_BUDGET"] == "3"


async def test_a_study_runs_to_complete_and_says_what_was_best(scene: Scene) -> None:
    async with scene.operator():
        await scene.apply(limits={"trials": 3})
        await scene.leg(0, 0.5)
        await scene.leg(1, 0.6)
        assert await scene.leg(2, 0.1) == {"budget": 3, "stored": 1}
        _, verdict = await scene.push(await scene.pod(2), 3, 0.05)
        await scene.condition("Complete", "True", "TrialsFinished")
        status = (await scene.study())["status"]
    assert "stop" in verdict
    assert (status["state"], status["best"]["trial"], status["best"]["value"]) == ("Complete", "search-0002", 0.05)
    assert status["trials"]["total"] == 3
    assert status["observedGeneration"] == 1


async def test_a_trial_is_stopped_at_a_report_as_the_answer_to_it_also_by_an_operator_that_has_just_started(
    scene: Scene,
) -> None:
    async with scene.operator():
        await scene.apply(scheduler={"median": {"budget": 9, "trials": 1}}, parallelism=2)
        first, second = await scene.pod(0), await scene.pod(1)
        for pod in (first, second):
            await scene.runs(pod)
        assert await scene.push(first, 1, 0.5) == (200, {"budget": 9, "stored": 1})
    async with scene.operator():
        status, verdict = await scene.push(second, 1, 0.6)
        stopped = (await scene.trial(1))["status"]
        await scene.pod(2)
        going = (await scene.trial(0))["status"]
    assert status == 200
    assert "0.6, is worse than 0.5, the median of the averages of 1 other trials" in verdict["stop"]
    assert (stopped["state"], stopped["message"]) == ("Stopped", verdict["stop"])
    assert stopped["curve"] == [{"step": 1, "value": 0.6}]
    assert (going["state"], going["curve"]) == ("Running", [{"step": 1, "value": 0.5}])


async def test_a_restart_changes_nothing(scene: Scene) -> None:
    async with scene.operator():
        await scene.apply(parallelism=2)
        for index in range(2):
            await scene.runs(await scene.pod(index))
        await scene.trial_in(0, "Running")
        await scene.trial_in(1, "Running")
        before = [await scene.trials(), await scene.pods()]
    async with scene.operator():
        await scene.change(parallelism=3)
        await scene.pod(2)
        after = [
            [item for item in items if "0002" not in item["metadata"]["name"]]
            for items in [await scene.trials(), await scene.pods()]
        ]
    assert after == before


async def test_a_suspended_study_runs_nothing_until_it_is_resumed(scene: Scene) -> None:
    async with scene.operator():
        await scene.apply()
        pod = await scene.pod(0)
        await scene.runs(pod)
        await scene.change(suspend=True)
        await scene.condition("Suspended", "True", "SuspendSet")
        await eventually(lambda: gone(scene, pod))
        await scene.change(suspend=False)
        await scene.condition("Suspended", "False", "SuspendCleared")
        await scene.pod(0, attempt=2)
        trial = await scene.trial(0)
    assert trial["status"].get("faults", 0) == 0


async def gone(scene: Scene, pod: Manifest) -> bool:
    """Whether the Pod was deleted (no kubelet confirms it, so an unscheduled one goes at once)."""
    return all(other["metadata"]["uid"] != pod["metadata"]["uid"] for other in await scene.pods())
