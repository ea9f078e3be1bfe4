"""Whose token it is, as a real API server sees it: TokenRequest, TokenReview, Pods that come and go."""

import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from counted import Counted
from halvard.endpoint import Answer, Endpoint
from halvard.identity import Identity, PodIdentity
from halvard.kube import PODS, Kube
from halvard.listener import Listener
from halvard.tls import load_or_create
from lab.control_plane import ControlPlane

AUDIENCE = "halvard.dev/reports"
POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "digits-0003-1"},
    "spec": {"containers": [{"name": "trainer", "image": "digits:1"}]},
}


@pytest.fixture
async def kube(control_plane: ControlPlane) -> AsyncIterator[Kube]:
    connected = await Kube.connect(control_plane.kubeconfig)
    yield connected
    await connected.close()


@pytest.fixture
async def uid(kube: Kube, namespace: str) -> str:
    """The uid of a Pod that runs nowhere, which is enough to have a token."""
    stored = await kube.create(PODS, namespace, POD)
    return str(stored["metadata"]["uid"])


def token_of(control_plane: ControlPlane, namespace: str, *, audience: str = AUDIENCE, bound_to: str = "") -> str:
    """A token of the namespace's service account, as the kubelet asks for one."""
    bound = ["--bound-object-kind=Pod", "--bound-object-name=digits-0003-1", f"--bound-object-uid={bound_to}"]
    audiences = [f"--audience={audience}"] if audience else []
    options = [*audiences, *(bound if bound_to else [])]
    return control_plane.kubectl("create", "token", "default", "-n", namespace, *options).stdout.strip()


async def test_a_pods_own_token_names_the_pod(
    control_plane: ControlPlane, kube: Kube, namespace: str, uid: str
) -> None:
    identify = Identity(kube.review_token, AUDIENCE)
    token = token_of(control_plane, namespace, bound_to=uid)
    assert await identify(token) == PodIdentity(namespace, "digits-0003-1", uid)


@pytest.mark.parametrize("audience", ["", "halvard.dev/other"])
async def test_a_token_for_another_audience_is_refused(
    control_plane: ControlPlane, kube: Kube, namespace: str, uid: str, audience: str
) -> None:
    token = token_of(control_plane, namespace, audience=audience, bound_to=uid)
    assert await Identity(kube.review_token, AUDIENCE)(token) is None


async def test_a_token_of_no_pod_is_refused(control_plane: ControlPlane, kube: Kube, namespace: str) -> None:
    assert await Identity(kube.review_token, AUDIENCE)(token_of(control_plane, namespace)) is None


async def test_an_administrators_own_token_is_refused(control_plane: ControlPlane, kube: Kube) -> None:
    assert await Identity(kube.review_token, AUDIENCE)(control_plane.tokens["admin"]) is None


@pytest.mark.parametrize("spoil", [str.swapcase, lambda token: token[:-4], lambda _: "garbage", lambda _: "a.b.c"])
async def test_a_token_that_was_tampered_with_is_refused(
    control_plane: ControlPlane, kube: Kube, namespace: str, uid: str, spoil: Any
) -> None:
    token = spoil(token_of(control_plane, namespace, bound_to=uid))
    assert await Identity(kube.review_token, AUDIENCE)(token) is None


async def test_a_deleted_pods_token_is_refused(
    control_plane: ControlPlane, kube: Kube, namespace: str, uid: str
) -> None:
    token = token_of(control_plane, namespace, bound_to=uid)
    control_plane.kubectl("delete", "pod", "digits-0003-1", "-n", namespace, "--now", "--wait")
    assert await Identity(kube.review_token, AUDIENCE)(token) is None


async def test_a_successor_of_the_same_name_is_another_pod(
    control_plane: ControlPlane, kube: Kube, namespace: str, uid: str
) -> None:
    token = token_of(control_plane, namespace, bound_to=uid)
    control_plane.kubectl("delete", "pod", "digits-0003-1", "-n", namespace, "--now", "--wait")
    await kube.create(PODS, namespace, POD)
    assert await Identity(kube.review_token, AUDIENCE)(token) is None


class Seen:
    """Takes reports, and remembers whose they were and what they said."""

    def __init__(self) -> None:
        self.pushes: list[tuple[PodIdentity, int, float]] = []

    async def push(self, pod: PodIdentity, reports: Any, elapsed: float) -> Answer:
        self.pushes.append((pod, reports[0].step, elapsed))
        return Answer(budget=1)


async def test_a_push_over_tls_with_a_pods_token_is_that_pods_report(
    control_plane: ControlPlane, kube: Kube, namespace: str, uid: str, tmp_path: Path
) -> None:
    seen = Seen()
    counted = Counted()
    tls = load_or_create(tmp_path, ["127.0.0.1"])
    application = Endpoint(Identity(kube.review_token, AUDIENCE), seen, counted).application()
    listener = Listener(application, counted.pushed, tls.server_context())
    await listener.start("127.0.0.1", 0)
    url = f"https://127.0.0.1:{listener.port}/v1/reports"
    push = {"reports": [{"step": 1, "metrics": {"loss": 1.0}}], "elapsed": 0.5}
    tokens = [token_of(control_plane, namespace, bound_to=uid), "garbage", token_of(control_plane, namespace)]
    statuses = []
    async with ClientSession() as session:
        for token in tokens:
            headers = {"Authorization": f"Bearer {token}"}
            trusted = ssl.create_default_context(cadata=tls.ca_pem)
            async with session.post(url, json=push, headers=headers, ssl=trusted) as response:
                statuses.append(response.status)
    await listener.close()
    assert statuses == [200, 401, 401]
    assert seen.pushes == [(PodIdentity(namespace, "digits-0003-1", uid), 1, 0.5)]
    assert counted.results == ["accepted", "unauthorized", "unauthorized"]
