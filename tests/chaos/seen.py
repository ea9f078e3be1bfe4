"""What the API server stores of one namespace, as it happens: watched, and kept also of what was deleted since."""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator

import aiohttp

from halvard.cache import Cache
from halvard.handlers import watched
from halvard.kube import PODS, Manifest, Resource
from history.audit import Entry
from lab.control_plane import ControlPlane

PAUSE = 0.05  # seconds before a watch that broke off is taken up again
LONGEST_LINE = 2**20
VERBS = {"ADDED": "create", "MODIFIED": "patch", "DELETED": "delete"}


class Seen:
    """Everything that was stored in a namespace; `cache` is what an operator would know that is started now."""

    def __init__(self, control_plane: ControlPlane, namespace: str) -> None:
        """Watches nothing yet."""
        self._control_plane = control_plane
        self._namespace = namespace
        self.cache = Cache()
        self.changed = asyncio.Event()
        self.pods: dict[str, Manifest] = {}  # by uid, as they were last
        self.deleted: set[str] = set()
        self.stored: list[Entry] = []  # every state of every object, as far as `history` wants to know

    async def watch(self) -> None:
        """Watches for ever, also where the API server is away for a while."""
        async with asyncio.TaskGroup() as watches:
            for resource in watched(self.cache):
                watches.create_task(self._watch(resource))

    async def _watch(self, resource: Resource) -> None:
        store, version = watched(self.cache)[resource], ""
        while True:
            async for change in self._events(resource, version):
                manifest = change["object"]
                if change["type"] == "ERROR":
                    version = ""  # too old: whatever happened since then is not known
                    break
                version = manifest["metadata"]["resourceVersion"]
                if change["type"] == "DELETED":
                    self.deleted.add(manifest["metadata"]["uid"])
                    store.gone(manifest)
                else:
                    store.seen(manifest)
                if resource == PODS:
                    self.pods[manifest["metadata"]["uid"]] = manifest
                self.stored.append(entry(resource, change["type"], manifest))
                self.changed.set()
            await asyncio.sleep(PAUSE)

    async def _events(self, resource: Resource, version: str) -> AsyncIterator[Manifest]:
        """What changed after `version`, until the watch breaks off; without one, first everything there is."""
        control_plane = self._control_plane
        url = f"{control_plane.server}{resource.path(self._namespace)}"
        query = {"watch": "1"} | ({"resourceVersion": version} if version else {})
        headers = {"Authorization": f"Bearer {control_plane.tokens['admin']}"}
        context = ssl.create_default_context(cafile=str(control_plane.certificate))
        endless = aiohttp.ClientTimeout(total=None)
        try:
            async with (
                aiohttp.ClientSession(headers=headers, read_bufsize=LONGEST_LINE, timeout=endless) as session,
                session.get(url, params=query, ssl=context) as answer,
            ):
                answer.raise_for_status()
                async for line in answer.content:
                    yield json.loads(line)
        except (aiohttp.ClientError, OSError, ValueError):
            return  # it broke off, perhaps within a line


def entry(resource: Resource, kind: str, manifest: Manifest) -> Entry:
    """An event of a watch as a write that nobody is known to have made."""
    metadata = manifest["metadata"]
    return Entry(
        place=int(metadata["resourceVersion"]),
        at=time.time(),
        by="",
        agent="",
        verb=VERBS[kind],
        resource=resource.plural,
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        stored=manifest,
        changed=True,
    )
