"""Watches, and the only importer of `kopf`: what they say goes into the cache and the queue, and nowhere else.

Of kopf only `on.event` is used: everything else of it writes to the objects it handles, or costs more than linear time.
Its handlers are never retried, and it tells nobody of objects that vanished while a watch was broken: the queue
retries, and a re-list every few minutes (`halvard.operator`) finds those.
"""

import asyncio
import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import kopf
from typing_extensions import override

from halvard.cache import Cache, Cached, Store
from halvard.kube import PODS, STUDIES, TRIALS, Kube, Manifest, NotFound, Refused, Resource, Unavailable
from halvard.observe import PodView
from halvard.pods import LABEL_STUDY
from halvard.queue import Key

RETRY_SECONDS = 1.0

log = logging.getLogger(__name__)


def watched(cache: Cache) -> dict[Resource, Store[Any]]:
    """Returns every resource that is watched, with where it is kept."""
    return {STUDIES: cache.studies, TRIALS: cache.trials, PODS: cache.pods}


async def watch(
    kube: Kube, cache: Cache, changed: Callable[[Key], None], heard: Callable[[str], None], namespaces: Sequence[str]
) -> None:
    """Watches for ever, in these namespaces or in all (none given); ends on SIGTERM and SIGINT.

    `changed` hears which study there is news for, `heard` which resource was heard of.
    """
    cache.pods.ask = functools.partial(still_there, kube)
    registry = kopf.OperatorRegistry()
    kopf.on.login(id="login", registry=registry)(functools.partial(log_in, kube))
    for resource, store in watched(cache).items():
        group, version, plural = resource.group, resource.version, resource.plural
        handler = functools.partial(on_event, store, changed, functools.partial(heard, plural))
        kopf.on.event(group=group, version=version, plural=plural, id=plural, registry=registry)(handler)
    identity: Any = "halvard"  # for peering alone; kopf would look for this user's name, which a container may not have
    await kopf.operator(
        registry=registry,
        identity=identity,
        settings=settings(),
        standalone=True,  # kopf's peering is no leader election: two equals pause each other
        clusterwide=not namespaces,
        namespaces=namespaces,
    )


async def on_event(
    store: Store[Any], changed: Callable[[Key], None], heard: Callable[[], None], event: Any, **_: object
) -> None:
    """Takes one event of a watch over; its type is None where the object was there before the watch.

    A watch with a selector says DELETED also of what is not selected any more.
    """
    heard()
    manifest, deleted = event["object"], event["type"] == "DELETED"
    if deleted and (there := await find(store, manifest["metadata"]["uid"])):
        manifest, deleted = there, False
    study = store.gone(manifest) if deleted else store.seen(manifest)
    if study is not None:
        changed(study)


async def find(store: Store[Any], uid: str) -> Manifest | None:
    """Asks for what a watch says is gone until somebody knows: a handler is not called again."""
    while item := store.by_uid(uid):
        try:
            return await store.ask(item)
        except Unavailable as error:
            log.warning("%s; again in a moment", error)
            await asyncio.sleep(max(RETRY_SECONDS, error.retry_after))
    return None


async def still_there(kube: Kube, pod: Cached[PodView]) -> Manifest | None:
    """Returns a Pod that may run on, having lost the label that lists and the watch ask for; raises Unavailable."""
    if pod.value.drained:
        return None
    try:
        found = await kube.get(PODS, pod.namespace, pod.name)
    except (NotFound, Refused):
        return None
    return found if found["metadata"]["uid"] == pod.uid else None


async def log_in(kube: Kube, **_: object) -> kopf.ConnectionInfo:
    """Gives kopf the credentials of our own client; called again whenever they are not believed any more."""
    access = await kube.access()
    scheme, _space, token = access.authorization.rpartition(" ")
    return kopf.ConnectionInfo(
        server=access.server,
        ca_path=access.ca,
        insecure=access.insecure,
        scheme=scheme or None,
        token=token or None,
        certificate_path=access.certificate,
        private_key_path=access.key,
    )


class NoDiffs(kopf.DiffBaseStorage):
    """Compares nothing: `on.event` needs no diff, and making one copies every object several times."""

    @override
    def build(self, **_: object) -> kopf.BodyEssence:
        """An object without anything that could have changed."""
        return kopf.BodyEssence()

    @override
    def fetch(self, **_: object) -> None:
        """Nothing was stored."""

    @override
    def store(self, **_: object) -> None:
        """Nothing is to be stored."""


def settings() -> kopf.OperatorSettings:
    """Returns kopf's settings: no writes of its own, no cluster-wide discovery, little memory, no silent dead watch."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.queueing.idle_timeout = 0.1
    settings.watching.server_timeout = 600
    settings.watching.client_timeout = 660
    settings.watching.connect_timeout = 10
    settings.watching.chunk_size = 500
    settings.watching.label_selectors[lambda resource: resource.plural == PODS.plural] = LABEL_STUDY
    settings.persistence.diffbase_storage = NoDiffs()
    settings.process.ultimate_exiting_timeout = None
    return settings
