"""Hostile neighbours: refused or slowed, each counted, while a well-behaved Study goes on and the operator answers."""

import base64
import json
import statistics
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from e2e import attacks
from e2e.pushes import Door, push, token
from e2e.release import Release
from e2e.studies import Studies, eventually, python, results, show, study, template
from lab.cluster import Cluster

MEMORY_LIMIT = 512 * 2**20  # bytes; the chart's
BUDGET = 100_000
# Reports for ever, and its result when it is told to.
TRAINER = f"""
import json, os, time
value, step = json.loads(os.environ["HALVARD_PARAMETERS"])["x"], 0
with open(os.environ["HALVARD_REPORTS"], "a") as reports:
    while step < {BUDGET}:
        step = {BUDGET} if os.path.exists("/halvard/enough") else step + 1
        print(json.dumps({{"step": step, "loss": value}}), file=reports, flush=True)
        time.sleep(0.2)
"""
LADDER = {"asha": {"minBudget": BUDGET, "maxBudget": 5 * BUDGET, "reductionFactor": 5}}
CUT_OFF = ("too_slow", "overloaded")


@dataclass
class Pulse:
    """Asks the operator how it is, ten times a second, and keeps what it says by what is going on."""

    probes: str
    latencies: dict[str, list[float]] = field(default_factory=lambda: {"nothing": []})  # seconds
    silences: int = 0
    memory: float = 0.0  # bytes, the most there was
    _ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Asks until `end`."""
        while not self._ended.wait(0.1):
            begun = time.perf_counter()
            try:
                self._ask()
            except OSError:
                self.silences += 1
            list(self.latencies.values())[-1].append(time.perf_counter() - begun)

    def end(self) -> None:
        """Stops asking."""
        self._ended.set()

    def _ask(self) -> None:
        with urllib.request.urlopen(f"{self.probes}/healthz", timeout=30) as answer:  # noqa: S310  # it is http
            assert answer.status == 200


@dataclass(frozen=True)
class Scene:
    """The operator in the cluster, a Study that behaves well, and how both are."""

    studies: Studies
    door: Door
    pulse: Pulse

    def counted(self, *kinds: str) -> float:
        """How many pushes were counted as one of these."""
        return sum(self.studies.metric("halvard_pushes_total", result=kind) for kind in kinds)

    def during(
        self, attack: str, work: Callable[[], Mapping[str, int]], *kinds: str
    ) -> tuple[Mapping[str, int], float]:
        """Lets an attack go on and waits until the Study is heard of again; what came of it, and what was counted."""
        before, accepted_before = self.counted(*kinds), self.counted("accepted")
        self.pulse.latencies[attack] = []
        ended = work()
        accepted = self.counted("accepted")
        eventually(lambda: self.counted("accepted") > accepted)
        self.pulse.latencies[f"after {attack}"] = []
        self.pulse.memory = max(self.pulse.memory, self.studies.metric("process_resident_memory_bytes"))
        counted = self.counted(*kinds) - before
        counts = f"counted as {' or '.join(kinds)}: {counted:.0f}"
        figures[attack] = f"{dict(ended)}, {counts}; accepted meanwhile: {accepted - accepted_before:.0f}"
        return ended, counted

    def attack(self, attack: str, count: int, *kinds: str) -> tuple[Mapping[str, int], float]:
        """Runs one of `e2e.attacks` in the attacker's Pod."""
        program = getattr(attacks, attack.upper().replace(" ", "_").replace("-", "_"))
        return self.during(
            attack, lambda: attacks.run(self.studies, "attacker", program, self.door, count=count), *kinds
        )


figures: dict[str, str] = {}


@pytest.fixture(scope="module")
def scene(served: Studies, release: Release) -> Iterator[Scene]:
    trainer = template(served.cluster, python(TRAINER))
    served.apply(study(trainer, [1, 2, 3], parallelism=3, scheduler=LADDER))
    greedy = study(trainer, [1], scheduler=LADDER)
    served.apply({**greedy, "metadata": {"name": "greedy"}})
    served.apply(attacks.attacker(served))
    for pod in ("attacker", "greedy-0000-1", *(f"search-{index:04d}-1" for index in range(3))):
        served.wait(f"pod/{pod}", "condition=Ready")
    pulse = Pulse(release.probes())
    thread = threading.Thread(target=pulse.run)
    made = Scene(served, release.door(), pulse)
    eventually(lambda: made.counted("accepted") > 0)
    thread.start()
    try:
        yield made
    finally:
        pulse.end()
        thread.join()
        show("hostile neighbours", report(pulse))


def report(pulse: Pulse) -> str:
    """A table of how fast the operator answered while what went on."""
    lines = [f"{'while':34} {'/healthz':>8} {'median ms':>10} {'slowest ms':>11}"]
    for attack, seconds in pulse.latencies.items():
        if seconds:
            median, slowest = 1000 * statistics.median(seconds), 1000 * max(seconds)
            lines.append(f"{attack:34} {len(seconds):8} {median:10.1f} {slowest:11.1f}")
    lines += [f"{attack}: {text}" for attack, text in figures.items()]
    return "\n".join(
        [*lines, f"most memory: {pulse.memory / 2**20:.0f} MiB, probes without answer: {pulse.silences}\n"]
    )


def expired(lab: Cluster, genuine: str) -> str:
    """The same token, but over. The API server makes none for less than ten minutes, so its key is borrowed."""
    head, claims, _ = genuine.split(".")
    said = json.loads(base64.urlsafe_b64decode(claims + "=="))
    ago = int(time.time()) - 60
    said |= {"exp": ago, "iat": ago - 600, "nbf": ago - 600}
    signed = head.encode() + b"." + base64.urlsafe_b64encode(json.dumps(said).encode()).rstrip(b"=")
    path = Path(lab.control_plane.directory, "service-account.key")
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    numbers = utils.decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA256())))
    signature = b"".join(number.to_bytes(32, "big") for number in numbers)
    return (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


def refused(scene: Scene, bearer: str, status: int) -> str:
    """Pushes with this token; says why it was refused, once it is, and as what it was counted."""
    before = scene.counted("unauthorized")
    found, answer = push(scene.door, bearer)
    assert (found, scene.counted("unauthorized") - before) == (status, 1)
    return str(answer["error"])


def test_no_token_and_a_forged_one_are_refused(scene: Scene) -> None:
    assert refused(scene, "", 401) == "no bearer token"
    for forged in ("forged", "a.b.c", token(scene.studies, "search-0000-1")[:-4] + "AAAA"):
        assert "not believed" in refused(scene, forged, 401)


def test_a_token_of_another_audience_is_refused(scene: Scene) -> None:
    assert "not believed" in refused(scene, token(scene.studies, "search-0000-1", "vault.example.com"), 401)


def test_a_token_of_a_pod_that_is_no_trials_is_refused(scene: Scene) -> None:
    assert "runs no trial that is known here" in refused(scene, token(scene.studies, "attacker"), 403)


def test_an_expired_token_is_refused(scene: Scene, lab: Cluster) -> None:
    genuine = token(scene.studies, "search-0000-1")
    assert push(scene.door, genuine)[0] == 200
    assert "not believed" in refused(scene, expired(lab, genuine), 401)


def test_a_deleted_pods_token_is_refused(scene: Scene) -> None:
    gone = attacks.attacker(scene.studies)
    gone["metadata"]["name"] = "gone"
    scene.studies.apply(gone)
    kept = token(scene.studies, "gone")
    scene.studies.kubectl("delete", "pod/gone", "--now", "--timeout=60s")
    assert "not believed" in refused(scene, kept, 401)


@pytest.mark.parametrize("body", ["ten megabytes", "a million lines", "ten megabytes in pieces"])
def test_a_body_that_is_too_large_is_refused(scene: Scene, body: str) -> None:
    bodies: dict[str, str | Iterable[bytes]] = {
        "ten megabytes": "x" * 10_000_000,
        "a million lines": '{"step": 1}\n' * 1_000_000,
        "ten megabytes in pieces": (b"x" * 10_000 for _ in range(1_000)),
    }
    bearer = token(scene.studies, "greedy-0000-1")
    ended, counted = scene.during(
        body, lambda: {"413": int(push(scene.door, bearer, bodies[body])[0] == 413)}, "too_large"
    )
    assert (ended, counted) == ({"413": 1}, 1)


def test_half_open_handshakes_are_cut_off(scene: Scene) -> None:
    ended, counted = scene.attack("half-open handshakes", 300, *CUT_OFF)
    assert (ended, counted) == ({"cut off": 300}, 300)


def test_slow_loris_is_cut_off(scene: Scene) -> None:
    ended, counted = scene.attack("slow loris", 60, *CUT_OFF)
    assert (ended, counted) == ({"cut off": 60}, 60)


def test_requests_without_a_token_are_refused(scene: Scene) -> None:
    ended, counted = scene.attack("pushes of nobody", 500, "unauthorized", "overloaded")
    assert set(ended) <= {"401", "refused"}
    assert (sum(ended.values()), counted) == (500, 500)


def test_two_hundred_pushes_a_second_of_one_pod_are_slowed(scene: Scene) -> None:
    bearer = token(scene.studies, "greedy-0000-1")
    pod, attack = "greedy-0000-1", attacks.TWO_HUNDRED_A_SECOND
    ended, counted = scene.during(
        "two hundred a second",
        lambda: attacks.run(scene.studies, pod, attack, scene.door, count=1000, bearer=bearer),
        *("rate_limited", "overloaded"),
    )
    assert set(ended) <= {"200", "429", "refused", "milliseconds"}
    assert 0 < ended["200"] <= 20 + 10 * (ended["milliseconds"] / 1000 + 1)
    assert counted >= ended["429"] + ended.get("refused", 0) > 0


def test_all_the_while_the_operator_answers_and_stays_inside_its_memory(scene: Scene) -> None:
    assert scene.pulse.silences == 0
    assert 0 < scene.studies.metric("process_resident_memory_bytes") < MEMORY_LIMIT
    assert scene.pulse.memory < MEMORY_LIMIT


def test_the_study_completes_as_if_nothing_had_been(scene: Scene) -> None:
    for index in range(3):
        scene.studies.exec(f"search-{index:04d}-1", "touch", "/halvard/enough")
    scene.studies.wait_complete()
    trials = [trial for trial in scene.studies.every("trials") if trial["metadata"]["name"].startswith("search")]
    assert sorted(results(trials)) == [(index, BUDGET, index + 1) for index in range(3)]
    assert [scene.studies.pods_of(index) for index in range(3)] == [[f"search-{index:04d}-1"] for index in range(3)]
