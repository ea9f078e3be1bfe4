"""Pushes to the operator by hand: tokens such as Pods have them, and what is answered."""

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from e2e.studies import Manifest, Studies
from lab.operator_process import OperatorProcess

AUDIENCE = "halvard.dev/reports"
REPORT = '{"reports": [{"step": 1, "metrics": {"loss": 0.001}}], "elapsed": 1}'


@dataclass(frozen=True)
class Door:
    """Where an operator takes pushes, as Pods and this machine reach it, and the CA it is known by."""

    host: str
    port: int
    ca_pem: str


def door_of(operator: OperatorProcess) -> Door:
    """Where an operator on this machine takes pushes."""
    url = urlsplit(operator.settings["HALVARD_COLLECTOR_URL"])
    ca = Path(operator.settings["HALVARD_TLS_DIRECTORY"], "ca.crt")
    return Door(url.hostname or "", url.port or 0, ca.read_text())


def token(studies: Studies, pod: str, audience: str = AUDIENCE) -> str:
    """A token such as the kubelet projects into this Pod."""
    uid = studies.get("pod", pod)["metadata"]["uid"]
    bound = ("--bound-object-kind=Pod", f"--bound-object-name={pod}", f"--bound-object-uid={uid}")
    return studies.kubectl("create", "token", "default", f"--audience={audience}", *bound).strip()


def push(door: Door, token: str, body: str | Iterable[bytes] = REPORT) -> tuple[int, Manifest]:
    """Pushes to the operator as a sidecar does (in pieces of unknown number, unless a text); what was answered."""
    context = ssl.create_default_context(cadata=door.ca_pem)
    context.check_hostname = False  # this machine does not resolve a Service's name
    request = urllib.request.Request(  # it is https
        f"https://{door.host}:{door.port}/v1/reports",
        data=body.encode() if isinstance(body, str) else body,
        headers={"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})},
    )
    try:
        with urllib.request.urlopen(request, timeout=30, context=context) as answer:  # noqa: S310
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
