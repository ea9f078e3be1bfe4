"""The Kubernetes API as raw JSON, and the only importer of `kubernetes`: a few verbs on any resource, four exceptions.

No models of the client library are built: they cost eleven times what `json.loads` does.
"""

import asyncio
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlencode

import aiohttp
import yaml
from kubernetes.aio import client, config

from halvard import __version__

Manifest = dict[str, Any]
"""One object of the API, as JSON gives it."""

PAGE = 500
PAGE_TRIES = 4
PAGE_PAUSE = 0.1  # seconds
OLD_LISTS = 20  # in a row, until versions are believed to be of stores that count for themselves
LONGEST_RETRY_AFTER = 60.0
FIELD_MANAGER = "halvard"
JSON_PATCH = "application/json-patch+json"
TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=5)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind as it stands in an URL; the core group is empty."""

    group: str
    version: str
    plural: str

    @property
    def api_version(self) -> str:
        """As manifests write it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Returns the path of the collection, of one object, or of a part of it."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        scope = f"/namespaces/{quote(namespace)}" if namespace else ""
        return root + scope + "".join(f"/{quote(part)}" for part in (self.plural, name, subresource) if part)


STUDIES = Resource("halvard.dev", "v1alpha1", "studies")
TRIALS = Resource("halvard.dev", "v1alpha1", "trials")
PODS = Resource("", "v1", "pods")
EVENTS = Resource("events.k8s.io", "v1", "events")
SERVICES = Resource("", "v1", "services")
ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "endpointslices")
LEASES = Resource("coordination.k8s.io", "v1", "leases")
TOKEN_REVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews")


class NoCluster(Exception):  # noqa: N818  # what is the case
    """It is not known which cluster to talk to; the text says what was looked for."""


class KubeError(Exception):
    """The API server did not do what was asked; the text is its own words."""

    retry_after = 0.0  # seconds that it asks to wait

    def __init__(self, message: str, code: int = 0) -> None:
        """`code` is the HTTP status, 0 where there was no answer."""
        super().__init__(message)
        self.code = code


class NotFound(KubeError):  # noqa: N818  # the API server's own word
    """There is no such object."""


class Conflict(KubeError):  # noqa: N818  # the API server's own word
    """The object was changed since it was read, or (`exists`) is already there."""

    def __init__(self, message: str, *, exists: bool) -> None:
        """`exists` tells the two apart."""
        super().__init__(message, HTTPStatus.CONFLICT)
        self.exists = exists


class Refused(KubeError):  # noqa: N818  # as the others
    """The request will not be taken as it is: not valid, or not allowed."""

    @property
    def quota(self) -> bool:
        """Whether a ResourceQuota is used up: a queue, not a mistake."""
        return "exceeded quota" in str(self)


class Unavailable(KubeError):  # noqa: N818  # as the others
    """The server could not answer now; whether the request was carried out is not known."""

    def __init__(self, message: str, code: int = 0, retry_after: float = 0.0) -> None:
        """`retry_after` is how many seconds the server asks to wait."""
        super().__init__(message, code)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list; all its pages show what there was at the same `version`."""

    items: list[Manifest]
    version: int


@dataclass(frozen=True, slots=True)
class Access:
    """Where the API server is and how to be believed there; paths of files, and a header for `Authorization`."""

    server: str
    ca: str | None
    certificate: str | None
    key: str | None
    insecure: bool
    authorization: str


Observer = Callable[[str, str, int, float], None]
"""Hears of every request: verb, resource, HTTP status (0: no answer), seconds."""


class Kube:
    """A connection to one API server."""

    def __init__(self, configuration: client.Configuration, observe: Observer) -> None:
        """Use `connect`."""
        configuration.connection_pool_maxsize = 64
        # Off, as in kopf: with it, every request starts a thread that looks for proxies in environment and ~/.netrc.
        configuration.client_session_kwargs = {"trust_env": False}
        self._configuration = configuration
        self._client = client.ApiClient(configuration)
        self._observe = observe
        self._newest = 0  # version that any answer had
        self._one_count = True  # whether versions of all resources can be compared
        self.may_write: Callable[[], bool] = lambda: True  # asked before every write but those of Leases

    @classmethod
    async def connect(cls, kubeconfig: Path | None, observe: Observer = lambda *_: None) -> Self:
        """Connects by the given kubeconfig, else from inside a Pod, else as kubectl would.

        Raises NoCluster where that cannot be read.
        """
        configuration = client.Configuration()
        try:
            if kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ:
                config.load_incluster_config(configuration)
            else:
                path = str(kubeconfig) if kubeconfig else None
                await config.load_kube_config(config_file=path, client_configuration=configuration)
        # TypeError: it is empty; UnicodeDecodeError: it is no text
        except (OSError, TypeError, UnicodeDecodeError, yaml.YAMLError, config.ConfigException) as error:
            where = kubeconfig or config.KUBE_CONFIG_DEFAULT_LOCATION
            raise NoCluster(f"no cluster to talk to: {where}: {error}; KUBECONFIG names the file that says") from error
        return cls(configuration, observe)

    async def close(self) -> None:
        """Closes every connection."""
        await self._client.close()

    async def access(self) -> Access:
        """Returns what another client of the same server needs; tokens are read again where they change."""
        settings = self._configuration
        return Access(
            server=settings.host,
            ca=settings.ssl_ca_cert,
            certificate=settings.cert_file,
            key=settings.key_file,
            insecure=not settings.verify_ssl,
            authorization=await settings.get_api_key_with_prefix("BearerToken", alias="authorization") or "",
        )

    async def get(self, resource: Resource, namespace: str, name: str) -> Manifest:
        """Returns one object; raises NotFound."""
        return await self._request("get", resource, resource.path(namespace, name))

    async def pages(self, resource: Resource, namespace: str = "", selector: str = "") -> AsyncIterator[Page]:
        """Yields all there is in the namespace (if empty: in all), read from the store itself, a page at a time.

        It is not older than any answer before it, that to our own Lease among them: what is decided next rests on it.
        """
        query = {"limit": str(PAGE), **({"labelSelector": selector} if selector else {})}
        token = ""
        while True:
            if token:
                answer = await self._page(resource, resource.path(namespace), {**query, "continue": token})
            else:
                answer = await self._first_page(resource, resource.path(namespace), query)
            yield Page(answer["items"], int(answer["metadata"]["resourceVersion"]))
            token = answer["metadata"].get("continue", "")
            if not token:
                return

    async def _first_page(self, resource: Resource, path: str, query: dict[str, str]) -> Manifest:
        """The first page of a list that is not old, asked for again where it is.

        Where lists stay old, they are believed from then on: Leases may be in an etcd of their own, whose versions say
        nothing of others (`docs/decisions/0024`).
        """
        for _ in range(OLD_LISTS if self._one_count else 0):
            newest = self._newest
            answer = await self._page(resource, path, query)
            if version_of(answer) >= newest:
                return answer
            log.warning("list %s: it is of version %d, and older than %d; again", path, version_of(answer), newest)
            await asyncio.sleep(PAGE_PAUSE)
        self._one_count = False
        return await self._page(resource, path, query)

    async def _page(self, resource: Resource, path: str, query: dict[str, str]) -> Manifest:
        """One page, asked for again where the server cannot answer now: else one failure would cost all of a list."""
        for _ in range(PAGE_TRIES - 1):
            try:
                return await self._request("list", resource, path, query=query)
            except Unavailable as error:
                if error.code == HTTPStatus.GONE:  # the list took too long; only from its beginning is there another
                    raise
                await asyncio.sleep(max(error.retry_after, PAGE_PAUSE))
        return await self._request("list", resource, path, query=query)

    async def create(self, resource: Resource, namespace: str, manifest: Manifest) -> Manifest:
        """Creates an object without unknown fields and returns it as stored; raises Conflict if the name is taken."""
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        return await self._request("create", resource, resource.path(namespace), query=query, body=manifest)

    async def replace(self, resource: Resource, namespace: str, name: str, manifest: Manifest) -> Manifest:
        """Replaces an object whose `metadata.resourceVersion` is still the stored one; raises Conflict otherwise."""
        path, query = resource.path(namespace, name), {"fieldManager": FIELD_MANAGER}
        return await self._request("update", resource, path, query=query, body=manifest)

    async def patch(
        self, resource: Resource, namespace: str, name: str, *, version: str, part: str, value: Manifest
    ) -> Manifest:
        """Stores `value` as the whole `spec` or `status` (`part`) of an object that still has the version.

        Raises Conflict where it has another one by now.

        It is a JSON patch: a merge patch would leave behind whatever key of a map the new value no longer has.
        """
        operations = [
            {"op": "replace", "path": "/metadata/resourceVersion", "value": version},
            {"op": "add", "path": f"/{part}", "value": value},
        ]
        path = resource.path(namespace, name, part if part == "status" else "")
        query = {"fieldManager": FIELD_MANAGER}
        return await self._request("patch", resource, path, query=query, body=operations, content_type=JSON_PATCH)

    async def delete(self, resource: Resource, namespace: str, name: str, uid: str) -> None:
        """Deletes the object that has the uid, in its own grace; raises NotFound, or Conflict for another uid."""
        body = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        await self._request("delete", resource, resource.path(namespace, name), body=body)

    async def review_token(self, token: str, audiences: Sequence[str]) -> Manifest:
        """Returns the `status` of a TokenReview: whose token it is, and for which of the audiences."""
        review = {
            "apiVersion": TOKEN_REVIEWS.api_version,
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": list(audiences)},
        }
        status: Manifest = (await self.create(TOKEN_REVIEWS, "", review))["status"]
        return status

    async def _request(
        self,
        verb: str,
        resource: Resource,
        path: str,
        *,
        query: dict[str, str] | None = None,
        body: object = None,
        content_type: str = "application/json",
    ) -> Manifest:
        if verb in WRITES and resource != LEASES and not self.may_write():
            raise Unavailable(f"{verb} {path}: not asked for, as somebody else may lead by now")
        begun = time.perf_counter()
        code = 0
        try:
            code, retry_after, data = await self._send(VERBS[verb], path, query, body, content_type)
            answer: Manifest = json.loads(data)
        except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
            raise Unavailable(f"{verb} {path}: {type(error).__name__} {error}".rstrip(), code) from error
        finally:
            self._observe(verb, resource.plural, code, time.perf_counter() - begun)
        if code >= HTTPStatus.BAD_REQUEST:
            raise failure(verb, code, answer, retry_after)
        if resource != EVENTS:  # many clusters keep them in an etcd of their own
            self._newest = max(self._newest, version_of(answer))
        return answer

    async def _send(
        self, method: str, path: str, query: dict[str, str] | None, body: object, content_type: str
    ) -> tuple[int, float, bytes]:
        headers = {"Accept": "application/json", "Content-Type": content_type, "User-Agent": f"halvard/{__version__}"}
        await self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = self._configuration.host + path + (f"?{urlencode(query)}" if query else "")
        response = await self._client.call_api(method, url, headers, body, _request_timeout=TIMEOUT)
        data: bytes = await response.read()
        return response.status, seconds(response.headers.get("Retry-After", "")), data


# 401 is a token that is just being replaced, 410 a list that took too long. Creating has no version to conflict with:
# that 409 is a ResourceQuota being written by two at once.
RETRIED = {401, 408, 409, 410, 429}
VERBS = {"get": "GET", "list": "GET", "create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE"}
WRITES = frozenset(VERBS) - {"get", "list"}


def version_of(answer: Manifest) -> int:
    """Returns the version of an object, or of a list; 0 where the answer is neither."""
    return int((answer.get("metadata") or {}).get("resourceVersion") or 0)


def failure(verb: str, code: int, status: Manifest, retry_after: float) -> KubeError:
    """Returns the exception that a failed request's `Status` stands for."""
    message = str(status.get("message", "")) or f"HTTP {code}"
    if code == HTTPStatus.NOT_FOUND and verb != "create":  # there, something else is missing
        return NotFound(message, code)
    if code == HTTPStatus.CONFLICT and status.get("reason") == "AlreadyExists":
        return Conflict(message, exists=True)
    if code == HTTPStatus.CONFLICT and verb != "create":
        return Conflict(message, exists=False)
    if code in RETRIED or code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Unavailable(message, code, retry_after)
    return Refused(message, code)


def seconds(header: str) -> float:
    """Returns a `Retry-After` in seconds, a minute at most, 0 where it says nothing of the kind."""
    return min(float(header), LONGEST_RETRY_AFTER) if header.isdecimal() else 0.0
