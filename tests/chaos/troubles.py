"""What can befall Studies on a whole cluster, one small function each: it begins, and gives back what ends it."""

import contextlib
import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from e2e.release import Release
from e2e.studies import Manifest, Studies
from lab.cluster import Cluster
from lab.machine import running_with

Undo = Callable[[], object]


class Missed(Exception):  # noqa: N818  # what happened, not a mistake
    """There was nothing that it could befall."""


@dataclass(frozen=True)
class Place:
    """Where it happens."""

    lab: Cluster
    release: Release
    studies: Studies

    def kubectl(self, *arguments: str, input: str = "") -> str:  # noqa: A002  # as in subprocess.run
        """What kubectl prints in the Studies' namespace; raises Missed where it fails: much is broken at times."""
        done = self.lab.kubectl(f"--namespace={self.studies.namespace}", *arguments, input=input, check=False)
        if done.returncode:
            raise Missed(done.stderr.strip())
        return done.stdout

    def a_pod(self, random: Random) -> str:
        """A Pod that runs a trial."""
        pods: list[Manifest] = json.loads(self.kubectl("get", "pods", "--output=json"))["items"]
        return one_of(random, [pod["metadata"]["name"] for pod in pods if pod["status"].get("phase") == "Running"])

    def a_study(self, random: Random) -> str:
        """A Study that goes on."""
        studies: list[Manifest] = json.loads(self.kubectl("get", "studies", "--output=json"))["items"]
        going = [study for study in studies if study.get("status", {}).get("state") not in ("Complete", "Failed")]
        return one_of(random, [study["metadata"]["name"] for study in going])

    def leader(self) -> str:
        """The operator's Pod that holds the Lease."""
        path = "--output=jsonpath={.spec.holderIdentity}"
        lease = ("get", f"lease/{self.release.name}", f"--namespace={self.release.namespace}", path)
        return self.lab.kubectl(*lease, check=False).stdout

    def change(self, study: str, **spec: object) -> None:
        """Edits a Study."""
        self.kubectl("patch", f"study/{study}", "--type=merge", "--patch", json.dumps({"spec": spec}))


def one_of(random: Random, found: list[str]) -> str:
    if not found:
        raise Missed("there is none")
    return random.choice(found)


def signalled(number: signal.Signals, *variables: str) -> None:
    """Sends a signal to the processes with these variables."""
    found = running_with(*variables)
    if not found:
        raise Missed(f"no process has {' '.join(variables)}")
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


# --- Pods


def pod_deleted(place: Place, random: Random) -> None:
    place.kubectl("delete", "pod", place.a_pod(random), "--wait=false")


def pod_deleted_at_once(place: Place, random: Random) -> None:
    place.kubectl("delete", "pod", place.a_pod(random), "--grace-period=0", "--force", "--wait=false")


def pod_evicted(place: Place, random: Random) -> None:
    name, namespace = place.a_pod(random), place.studies.namespace
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    path = f"/api/v1/namespaces/{namespace}/pods/{name}/eviction"
    place.kubectl("create", "--raw", path, "-f", "-", input=json.dumps(eviction))


def trainer_killed(place: Place, random: Random) -> None:
    signalled(signal.SIGKILL, f"HOSTNAME={place.a_pod(random)}", "HALVARD_CHECKPOINT_DIR=/halvard-checkpoints")


def sidecar_killed(place: Place, random: Random) -> None:
    signalled(signal.SIGKILL, f"HOSTNAME={place.a_pod(random)}", "HALVARD_SPOOL=/halvard/spool.json")


# --- the operator


def operator_killed(place: Place, _: Random) -> None:
    signalled(signal.SIGKILL, f"HALVARD_IDENTITY={place.leader()}")


def operator_paused(place: Place, _: Random) -> Undo:
    """For longer than its Lease lasts: the other one takes over, and this one wakes up as if it still led."""
    identity = f"HALVARD_IDENTITY={place.leader()}"
    signalled(signal.SIGSTOP, identity)

    def wake() -> None:
        with contextlib.suppress(Missed):  # its kubelet may have killed it
            signalled(signal.SIGCONT, identity)

    return wake


def operator_deleted(place: Place, _: Random) -> None:
    place.lab.kubectl("delete", "pod", place.leader(), f"--namespace={place.release.namespace}", "--wait=false")


# --- the cluster


def apiserver_restarted(place: Place, _: Random) -> None:
    place.lab.restart_apiserver()


def node_cut_off(place: Place, random: Random) -> Undo:
    """Its kubelet says nothing any more, while its containers run and report on; then the node is replaced."""
    node = random.choice(sorted(place.lab.nodes))
    place.lab.stop_kubelet(node)
    return lambda: place.lab.replace_node(node)


def quota_filled(place: Place, _: Random) -> Undo:
    hard = {"requests.nvidia.com/gpu": "1"}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "gpus"}, "spec": {"hard": hard}}
    place.kubectl("apply", "-f", "-", input=json.dumps(quota))
    return lambda: place.kubectl("delete", "resourcequota/gpus", "--ignore-not-found")


# --- users


def study_suspended(place: Place, random: Random) -> Undo:
    study = place.a_study(random)
    place.change(study, suspend=True)
    return lambda: place.change(study, suspend=False)


def parallelism_lowered(place: Place, random: Random) -> Undo:
    study = place.a_study(random)
    place.change(study, parallelism=1)
    return lambda: place.change(study, parallelism=4)


def template_changed(place: Place, random: Random) -> None:
    annotations = {"changed": str(random.random())}
    place.change(place.a_study(random), template={"metadata": {"annotations": annotations}})


@dataclass(frozen=True)
class Trouble:
    """A function of this module, how often it comes compared with others, and for how many seconds what it began lasts.

    What the function returns ends it. `survived`: whether the operator that leads still leads after it.
    """

    begin: Callable[[Place, Random], Undo | None]
    weight: int = 4
    lasts: float = 0.0
    survived: bool = True

    @property
    def name(self) -> str:
        """What happens, in words."""
        return self.begin.__name__.replace("_", " ")


TROUBLES = (
    Trouble(pod_deleted),
    Trouble(pod_deleted_at_once),
    Trouble(pod_evicted),
    Trouble(trainer_killed),
    Trouble(sidecar_killed),
    Trouble(operator_killed, 3, survived=False),
    Trouble(operator_paused, 1, lasts=20.0, survived=False),
    Trouble(operator_deleted, 1, survived=False),
    Trouble(apiserver_restarted, 1, survived=False),  # it is away for longer than a Lease may go without renewal
    Trouble(node_cut_off, 1, lasts=30.0, survived=False),  # perhaps the leader's
    Trouble(quota_filled, 1, lasts=15.0),
    Trouble(study_suspended, 1, lasts=10.0),
    Trouble(parallelism_lowered, 1, lasts=10.0),
    Trouble(template_changed, 2),
)
