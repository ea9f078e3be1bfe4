"""The sidecar dies at all that it does, or cannot write: whatever was reported arrives, every verdict is heard."""

import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from typing_extensions import override

from halvard_trainer import push
from unit.trainer.conftest import Sidecar
from unit.trainer.scripted_endpoint import Certificates, Push, Reply, ScriptedEndpoint, keep
from unit.trainer.test_collector import promote
from unit.trainer.waiting import TIMEOUT, eventually

DYING = Path(__file__).with_name("dying.py")
EFFECTS = {
    "reading",
    "pushing",
    "writing termination-log",
    "replacing verdict.json",
    "renaming verdict.json.tmp",
    "replacing spool.json",
    "renaming spool.json.tmp",
}


class Dying(Sidecar):
    """A sidecar that dies again and again, and a kubelet that starts it each time."""

    @property
    def deaths(self) -> set[str]:
        """Where it has died so far."""
        return set((self.directory / "deaths").read_text().splitlines())

    def keep_running(self, ended: threading.Event) -> None:
        """Starts it until the end, or until nobody kills it any more."""
        environment = {**self.environment, "DEATHS": str(self.directory / "deaths")}
        while not ended.is_set():
            with (self.directory / "stderr").open("ab") as stderr:
                self._process = subprocess.Popen([sys.executable, DYING], env=environment, stderr=stderr)
            self._process.wait()


@pytest.fixture
def dying(tmp_path: Path, endpoint: ScriptedEndpoint, certificates: Certificates) -> Iterator[Dying]:
    sidecar, ended = Dying(tmp_path, endpoint.url, certificates.ca), threading.Event()
    kubelet = threading.Thread(target=sidecar.keep_running, args=(ended,))
    kubelet.start()
    yield sidecar
    ended.set()
    while kubelet.is_alive():  # it may just have started another
        sidecar.kill()
        kubelet.join(0.1)


def test_dying_before_and_after_every_effect_loses_no_report_and_no_verdict(
    dying: Dying, endpoint: ScriptedEndpoint
) -> None:
    endpoint.script = promote
    dying.report(1, 2, 3)
    eventually(lambda: dying.verdict == {"step": 3, "budget": 9})
    dying.report(*range(4, 10))
    eventually(lambda: dying.verdict == {"step": 9, "stop": "complete"})
    eventually(lambda: dying.message == {"step": 9, "metrics": {"loss": 0.9}})
    eventually(lambda: dying.deaths == {f"{when} {effect}" for when in ("before", "after") for effect in EFFECTS})
    assert set(endpoint.stored) == set(range(1, 10))
    results = [push.steps[-1] for push in endpoint.pushes if push.steps[-1] >= push.body["budget"]]
    assert set(results) == {3, 9}


class Cramped(Sidecar):
    """A sidecar on a disk that can be full: nothing but an empty file can be written then. Its log is on another."""

    @override
    def start(self, **changes: object) -> "Cramped":
        self.environment.update({f"HALVARD_{name.upper()}": str(value) for name, value in changes.items()})
        command = [sys.executable, "-m", "halvard_trainer.collector"]
        self._process = subprocess.Popen(command, env=self.environment, stderr=subprocess.PIPE)
        threading.Thread(target=self._keep_log, args=(self._process,), daemon=True).start()
        return self

    def _keep_log(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        with (self.directory / "stderr").open("ab", buffering=0) as log, process.stderr:
            for line in process.stderr:
                log.write(line)

    def fill_disk(self) -> None:
        self._allow(0)

    def clear_disk(self) -> None:
        self._allow(resource.RLIM_INFINITY)

    def _allow(self, size: int) -> None:
        assert self._process is not None
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None


@pytest.fixture
def cramped(tmp_path: Path, endpoint: ScriptedEndpoint, certificates: Certificates) -> Iterator[Cramped]:
    sidecar = Cramped(tmp_path, endpoint.url, certificates.ca)
    (tmp_path / "stderr").touch()
    yield sidecar.start()
    sidecar.kill()


def has(endpoint: ScriptedEndpoint, *steps: int) -> bool:
    return set(steps) <= set(endpoint.stored)


def test_while_the_disk_is_full_reports_arrive_and_the_verdict_comes_once_there_is_room(
    cramped: Cramped, endpoint: ScriptedEndpoint
) -> None:
    endpoint.script = promote
    cramped.report(1)
    eventually(lambda: cramped.spool)
    cramped.fill_disk()
    cramped.report(2)
    eventually(partial(has, endpoint, 2))
    cramped.report(3)
    eventually(lambda: "verdict.json: cannot be written" in cramped.stderr)
    assert (cramped.alive, cramped.verdict, has(endpoint, 3)) == (True, None, True)
    cramped.clear_disk()
    eventually(lambda: cramped.verdict == {"step": 3, "budget": 9})
    eventually(lambda: cramped.spool["budget"] == 9)
    assert cramped.alive


def test_a_termination_message_that_could_not_be_written_comes_once_there_is_room_and_the_one_before_stays(
    cramped: Cramped, endpoint: ScriptedEndpoint
) -> None:
    cramped.report(1)
    eventually(lambda: cramped.message == {"step": 1, "metrics": {"loss": 0.1}})
    cramped.fill_disk()
    cramped.report(2)
    eventually(partial(has, endpoint, 2))
    assert cramped.message == {"step": 1, "metrics": {"loss": 0.1}}
    cramped.clear_disk()
    eventually(lambda: cramped.message == {"step": 2, "metrics": {"loss": 0.2}})
    assert cramped.alive


def test_a_sidecar_that_ends_while_the_disk_is_full_pushes_what_is_left(
    cramped: Cramped, endpoint: ScriptedEndpoint
) -> None:
    endpoint.script = promote
    cramped.report(1)
    eventually(lambda: cramped.spool)
    cramped.fill_disk()
    cramped.report(2, 3, 4)
    eventually(lambda: "verdict.json: cannot be written" in cramped.stderr)
    assert cramped.terminate() == 0
    assert has(endpoint, 1, 2, 3, 4)


def test_a_push_that_is_never_answered_is_given_up_and_the_next_one_goes_through(
    endpoint: ScriptedEndpoint, certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Pod's network is cut, as far as a socket can tell: everything is sent, and nothing comes back."""
    monkeypatch.setattr(push, "TIMEOUT", 0.2)
    restored, body = threading.Event(), b'{"reports": [{"step": 1}], "budget": 3}'
    (tmp_path / "token").write_text("secret")
    sidecar = push.Endpoint(endpoint.url, certificates.ca, tmp_path / "token")
    assert sidecar.post(body).status == 200

    def stay_silent(push: Push) -> Reply:
        restored.wait(TIMEOUT)
        return keep(push)

    endpoint.script = stay_silent
    assert "TimeoutError" in sidecar.post(body).words()
    restored.set()
    endpoint.script = keep
    assert sidecar.post(body).status == 200
    sidecar._connection.close()
