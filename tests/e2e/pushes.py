"""Pushes to the operator by hand: tokens such as Pods have them, and what is answered."""

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path

from e2e.studies import Manifest, Studies
from lab.operator_process import OperatorProcess

AUDIENCE = "halvard.dev/reports"
REPORT = '{"reports": [{"step": 1, "metrics": {"loss": 0.001}}], "elapsed": 1}'


def token(studies: Studies, pod: str, audience: str = AUDIENCE) -> str:
    """A token such as the kubelet projects into this Pod."""
    uid = studies.get("pod", pod)["metadata"]["uid"]
    bound = ("--bound-object-kind=Pod", f"--bound-object-name={pod}", f"--bound-object-uid={uid}")
    return studies.kubectl("create", "token", "default", f"--audience={audience}", *bound).strip()


def push(operator: OperatorProcess, token: str, body: str | Iterable[bytes] = REPORT) -> tuple[int, Manifest]:
    """Pushes to the operator as a sidecar does (in pieces of unknown number, unless a text); what was answered."""
    settings = operator.settings
    context = ssl.create_default_context(cafile=Path(settings["HALVARD_TLS_DIRECTORY"], "ca.crt"))
    request = urllib.request.Request(  # noqa: S310  # it is https
        f"{settings['HALVARD_COLLECTOR_URL']}/v1/reports",
        data=body.encode() if isinstance(body, str) else body,
        headers={"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})},
    )
    try:
        with urllib.request.urlopen(request, timeout=30, context=context) as answer:  # noqa: S310
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
