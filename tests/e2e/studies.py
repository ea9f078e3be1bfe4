"""Studies of one namespace, handled by kubectl alone: what a user does, what a user sees, and the manifests for it."""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from prometheus_client.parser import text_string_to_metric_families

from lab.cluster import Cluster
from lab.existing import Existing

T = TypeVar("T")
Manifest = dict[str, Any]
PATIENCE = 600.0  # seconds; far more than anything takes, for a machine that has other things to do
CONFINED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
shown: dict[str, str] = {}
UNPRIVILEGED = {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}


class Operator(Protocol):
    """Whatever serves Studies: a process of this machine, or Pods of the cluster."""

    def metrics(self) -> str:
        """What `/metrics` of the one that leads says."""


class Studies:
    """A namespace of a cluster, and the operator that serves it."""

    def __init__(self, cluster: Cluster | Existing, namespace: str, operator: Operator) -> None:
        """Does nothing yet."""
        self.cluster = cluster
        self.namespace = namespace
        self.operator = operator

    def kubectl(self, *arguments: str, input: str = "") -> str:  # noqa: A002  # as in subprocess.run
        """What kubectl prints; raises ControlPlaneError with its words where it fails."""
        return self.cluster.kubectl(f"--namespace={self.namespace}", *arguments, input=input).stdout

    def apply(self, manifest: Manifest) -> None:
        """Applies a manifest as `kubectl apply -f` does."""
        self.kubectl("apply", "-f", "-", input=json.dumps(manifest))

    def change(self, **spec: Any) -> None:
        """Changes fields of the Study `search`, as `kubectl patch` does."""
        self.kubectl("patch", "study/search", "--type=merge", "--patch", json.dumps({"spec": spec}))

    def exec(self, pod: str, *command: str) -> None:
        """Runs a command in the trainer of a Pod."""
        self.kubectl("exec", pod, "--container=trainer", "--", *command)

    def logs(self, pod: str, container: str = "trainer") -> str:
        """What a container of a Pod has printed so far."""
        return self.kubectl("logs", pod, f"--container={container}")

    def get(self, kind: str, name: str) -> Manifest:
        """An object as the API server has it."""
        found: Manifest = json.loads(self.kubectl("get", kind, name, "--output=json"))
        return found

    def every(self, kind: str) -> list[Manifest]:
        """All objects of a kind, by name."""
        found: list[Manifest] = json.loads(self.kubectl("get", kind, "--output=json"))["items"]
        return found

    def study(self, name: str = "search") -> Manifest:
        """The status of a Study."""
        status: Manifest = self.get("study", name).get("status", {})
        return status

    def trial(self, index: int) -> Manifest:
        """A Trial of the Study `search`."""
        return self.get("trial", f"search-{index:04d}")

    def pods_of(self, trial: int) -> list[str]:
        """The names of the Pods that a trial of the Study `search` has had."""
        trial_label = f"--selector=halvard.dev/trial=search-{trial:04d}"
        return self.kubectl("get", "pods", trial_label, "--output=name").replace("pod/", "").split()

    def wait(self, what: str, condition: str) -> None:
        """Waits until an object (`pod/search-0000-1`) exists and meets a condition of `kubectl wait --for`."""
        timeout = f"--timeout={PATIENCE:.0f}s"
        self.kubectl("wait", "--for=create", what, timeout)
        self.kubectl("wait", f"--for={condition}", what, timeout)

    def wait_complete(self, name: str = "search") -> None:
        """Waits until a Study is Complete; says where it stands if it never is."""
        done = self.cluster.kubectl(
            f"--namespace={self.namespace}",
            *("wait", "--for=condition=Complete", f"study/{name}", f"--timeout={PATIENCE:.0f}s"),
            check=False,
        )
        assert done.returncode == 0, f"{done.stderr}{json.dumps(self.study(name), indent=1)}"

    def wait_degraded(self, reason: str) -> str:
        """Waits until the Study `search` is Degraded for this reason; the condition's message."""
        self.wait("study/search", "condition=Degraded")
        path = '{.status.conditions[?(@.type=="Degraded")].reason}'
        self.wait("study/search", f"jsonpath={path}={reason}")
        return self.condition("Degraded")["message"]

    def condition(self, kind: str, name: str = "search") -> dict[str, str]:
        """A condition of a Study."""
        found: dict[str, str] = next(c for c in self.study(name)["conditions"] if c["type"] == kind)
        return found

    def set_quota(self, gpus: int) -> None:
        """Lets the namespace have so many GPUs, once the quota is in force."""
        hard = {"requests.nvidia.com/gpu": str(gpus)}
        self.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "gpus"}, "spec": {"hard": hard}})
        path = "{.status.hard.requests\\.nvidia\\.com/gpu}"
        self.wait("resourcequota/gpus", f"jsonpath={path}={gpus}")

    def metric(self, name: str, **labels: str) -> float:
        """A sample of the operator's `/metrics`, 0 where there is none."""
        families = text_string_to_metric_families(self.operator.metrics())
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


def eventually(look: Callable[[], T]) -> T:
    """Looks until there is something to see and returns it; raises TimeoutError with what it saw last."""
    deadline = time.monotonic() + PATIENCE
    while not (found := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"still {found!r} after {PATIENCE:.0f} s")
        time.sleep(0.2)
    return found


def study(template: Manifest, values: Sequence[object], **spec: Any) -> Manifest:
    """A Study `search` for the least loss whose trials have one parameter `x` each: these values, in this order."""
    return {
        "apiVersion": "halvard.dev/v1alpha1",
        "kind": "Study",
        "metadata": {"name": "search"},
        "spec": {
            "objective": {"metric": "loss", "goal": "minimize"},
            "parameters": [{"name": "x", "choice": list(values)}],
            "sampler": {"grid": {}},
            "scheduler": {"asha": {"minBudget": 1, "maxBudget": 3, "reductionFactor": 3}},
            "parallelism": 1,
            "limits": {"trials": len(values)},
            "template": template,
            **spec,
        },
    }


def template(cluster: Cluster | Existing, command: Sequence[str], **trainer: Any) -> Manifest:
    """A Pod template under the restricted Pod Security Standard, of one container that asks for a GPU."""
    container = {
        "name": "trainer",
        "image": cluster.trainer_image,
        "command": list(command),
        "resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "128Mi", "nvidia.com/gpu": "1"}},
        "securityContext": CONFINED,
        **trainer,
    }
    spec = {"terminationGracePeriodSeconds": 5, "securityContext": UNPRIVILEGED, "containers": [container]}
    return {"spec": spec}


def python(script: str) -> list[str]:
    """The command that runs a Python script."""
    return ["python3", "-c", script]


def results(trials: Sequence[Mapping[str, Any]]) -> list[tuple[int, int, float | None]]:
    """Trial, budget and value of every result, in the order in which they came."""
    found = [
        (rung["at"], trial["spec"]["index"], rung["budget"], rung.get("value"))
        for trial in trials
        for rung in trial.get("status", {}).get("rungs", ())
    ]
    return [result[1:] for result in sorted(found, key=lambda result: result[0])]


def show(title: str, text: str) -> None:
    """Keeps what people want to see of a test run for its end, and as a file in `$E2E_OUTPUT` where that is set."""
    shown[title] = text
    if folder := os.environ.get("E2E_OUTPUT"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(folder, f"{title.replace(' ', '-')}.txt").write_text(text)
