"""The operator against a real API server where Pods wait for a node: few at a time, however many trials may run."""

from dataclasses import replace

from cluster.scripted import Scene, eventually, template
from halvard.kube import Manifest


async def names(scene: Scene) -> list[str]:
    return [pod["metadata"]["name"] for pod in await scene.pods()]


async def has_taken_note(scene: Scene, **change: object) -> None:
    """Changes the Study, and waits until the operator says that it has seen the change and done what follows."""
    await scene.change(**change)
    generation = (await scene.study())["metadata"]["generation"]

    async def look() -> Manifest | None:
        study = await scene.study()
        return study if study.get("status", {}).get("observedGeneration") == generation else None

    await eventually(look)


async def test_at_most_four_pods_wait_for_a_node_however_large_parallelism_is(scene: Scene) -> None:
    async with scene.operator():
        await scene.apply(parallelism=50)
        await has_taken_note(scene, parallelism=500)
        assert await names(scene) == [f"search-{index:04d}-1" for index in range(4)]
        assert len(await scene.trials()) == 4


async def test_a_pod_that_is_given_a_node_makes_room_for_the_next(scene: Scene) -> None:
    async with scene.operator():
        await scene.apply(parallelism=50)
        await scene.is_bound(await scene.pod(0))
        await scene.is_bound(await scene.pod(3))
        await scene.pod(5)
        await has_taken_note(scene, parallelism=500)
        assert await names(scene) == [f"search-{index:04d}-1" for index in range(6)]


async def test_an_operator_that_starts_again_knows_how_many_wait(scene: Scene) -> None:
    async with scene.operator():
        await scene.apply(parallelism=50)
        await scene.is_bound(await scene.pod(1))
        await scene.pod(4)
    async with scene.operator():
        await has_taken_note(scene, parallelism=500)
        assert await names(scene) == [f"search-{index:04d}-1" for index in range(5)]


async def test_pods_that_wait_are_made_again_from_a_changed_template(scene: Scene) -> None:
    async with scene.operator():
        await scene.apply(parallelism=2)
        await scene.is_bound(await scene.pod(0))
        await scene.pod(1)
        await scene.change(template=template(nodeSelector={"zone": "b"}))
        pod = await scene.pod(1, attempt=2)
        trial = await scene.trial(1)
        assert await names(scene) == ["search-0000-1", "search-0001-2"]
    assert pod["spec"]["nodeSelector"] == {"zone": "b"}
    assert trial["status"].get("faults", 0) == 0


async def test_pods_that_waited_through_a_change_while_the_operator_was_down_are_made_again(scene: Scene) -> None:
    async with scene.operator():
        await scene.apply(parallelism=2)
        await scene.is_bound(await scene.pod(0))
        await scene.pod(1)
    await scene.change(template=template(nodeSelector={"zone": "b"}))
    # no watch tells of what is gone before the watch begins
    scene.settings = replace(scene.settings, relist_period=1.0)
    async with scene.operator():
        await scene.pod(1, attempt=2)
        assert await names(scene) == ["search-0000-1", "search-0001-2"]
