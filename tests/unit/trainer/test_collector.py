"""The sidecar as a real process, against each row of the protocol (docs/architecture.md, "The Pod's side of it")."""

import socket
import threading
from functools import partial
from pathlib import Path

import pytest

from halvard_trainer import push
from unit.trainer.conftest import Sidecar
from unit.trainer.scripted_endpoint import Certificates, Push, Reply, Script, ScriptedEndpoint, issue, keep
from unit.trainer.waiting import TIMEOUT, eventually


def promote(push: Push) -> Reply:
    """Promote every result from rung to rung, and stop at 9."""
    budget = int(push.body["budget"])
    if push.steps[-1] < budget:
        return Reply(200, {"budget": budget})
    return Reply(200, {"stop": "complete"}) if budget == 9 else Reply(200, {"budget": budget * 3})


def first(*replies: Reply | None) -> Script:
    """Give these answers one after the other, then acknowledge everything."""
    rest = list(replies)
    return lambda push: rest.pop(0) if rest else keep(push)


def test_a_push_carries_token_budget_and_reports(sidecar: Sidecar, endpoint: ScriptedEndpoint) -> None:
    sidecar.start()
    sidecar.report(1, checkpoint="step-1", accuracy=float("nan"))
    eventually(lambda: endpoint.pushes)
    pushed = endpoint.pushes[0]
    metrics = {"loss": 0.1, "accuracy": "NaN"}
    assert (pushed.path, pushed.token) == ("/v1/reports", "secret")
    reports, elapsed = [{"step": 1, "metrics": metrics, "checkpoint": "step-1"}], pushed.body["elapsed"]
    assert pushed.body == {"reports": reports, "budget": 3, "elapsed": elapsed, "invalid": 0}
    assert 0 <= elapsed < 60


def test_a_higher_budget_is_a_hot_promotion_and_known_from_then_on(
    sidecar: Sidecar, endpoint: ScriptedEndpoint
) -> None:
    endpoint.script = promote
    sidecar.start()
    sidecar.report(1, 2, 3)
    eventually(lambda: sidecar.verdict == {"step": 3, "budget": 9})
    sidecar.report(4, 5)
    eventually(lambda: 5 in endpoint.stored)
    assert endpoint.pushes[-1].body["budget"] == 9
    assert sidecar.verdict == {"step": 3, "budget": 9}
    sidecar.report(9)
    eventually(lambda: sidecar.verdict == {"step": 9, "stop": "complete"})


def test_a_stop_is_written_whenever_it_comes(sidecar: Sidecar, endpoint: ScriptedEndpoint) -> None:
    endpoint.script = lambda _: Reply(200, {"stop": "the study was deleted"})
    sidecar.start()
    sidecar.report(1)
    eventually(lambda: sidecar.verdict == {"step": 1, "stop": "the study was deleted"})


def test_a_report_beyond_the_budget_is_a_result(sidecar: Sidecar, endpoint: ScriptedEndpoint) -> None:
    endpoint.script = promote
    sidecar.start(start=5)
    sidecar.report(6)
    eventually(lambda: sidecar.verdict == {"step": 6, "budget": 9})


def test_while_the_decision_is_pending_it_asks_again_with_all_that_it_rests_on(
    sidecar: Sidecar, endpoint: ScriptedEndpoint
) -> None:
    endpoint.script = first(Reply(202), Reply(202), Reply(200, {"budget": 9}))
    sidecar.report(1, 2, 3)
    sidecar.start()
    eventually(lambda: sidecar.verdict == {"step": 3, "budget": 9})
    assert [push.steps for push in endpoint.pushes] == [[1, 2, 3]] * 3


def test_what_is_reported_while_a_request_is_held_is_not_lost(sidecar: Sidecar, endpoint: ScriptedEndpoint) -> None:
    decided = threading.Event()

    def hold(push: Push) -> Reply:
        if 3 in push.steps:
            decided.wait(TIMEOUT)
        return Reply(200, {"budget": 9})

    endpoint.script = hold
    sidecar.start()
    sidecar.report(3)
    eventually(lambda: sidecar.message and sidecar.message["step"] == 3)
    sidecar.report(4, 5)
    decided.set()
    eventually(lambda: endpoint.stored == [3, 4, 5])


@pytest.mark.parametrize(
    "trouble",
    [
        Reply(503, {"error": "not the leader"}),
        Reply(429, {}, {"Retry-After": "0"}),
        Reply(500, {}, {"Retry-After": "soon"}),
        Reply(404),
        Reply(200, {"budget": "nine"}),
        Reply(200, raw=b"[" * 100_000),
        Reply(200, raw=b"<html>a proxy</html>"),
        None,
    ],
    ids=["503", "429", "500", "404", "no budget", "too long", "not JSON", "no answer"],
)
def test_trouble_is_retried_and_nothing_is_dropped(
    sidecar: Sidecar, endpoint: ScriptedEndpoint, trouble: Reply | None
) -> None:
    endpoint.script = first(trouble, trouble, trouble, Reply(200, {"budget": 9}))
    sidecar.report(1, 2, 3)
    sidecar.start()
    eventually(lambda: sidecar.verdict == {"step": 3, "budget": 9})
    assert [push.steps for push in endpoint.pushes] == [[1, 2, 3]] * 4
    assert sidecar.stderr.count("not acknowledged, trying again") == 1


def test_back_off_doubles_up_to_ten_seconds_and_obeys_retry_after() -> None:
    delays = [push._delay(failures, 0.0) for failures in range(100)]
    assert all(0.1 * 2**i <= delays[i] <= 0.2 * 2**i for i in range(5))
    assert all(5.0 <= delay <= 10.0 for delay in delays[6:])
    assert push._delay(0, 30.0) == 30.0
    assert push._delay(0, 1e9) == push.LONGEST_RETRY_AFTER


def test_an_endpoint_that_is_not_there_yet_is_waited_for(sidecar: Sidecar, certificates: Certificates) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    sidecar.report(1)
    sidecar.start(collector_url=f"https://127.0.0.1:{port}")
    eventually(lambda: "ConnectionRefusedError" in sidecar.stderr)
    late = ScriptedEndpoint(certificates.good, port)
    eventually(lambda: late.stored == [1])
    late.close()


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_is_not_believed_is_read_again(sidecar: Sidecar, endpoint: ScriptedEndpoint, status: int) -> None:
    endpoint.script = lambda push: keep(push) if push.token.startswith("renewed") else Reply(status, {"error": "who?"})
    sidecar.start()
    sidecar.report(1)
    eventually(lambda: endpoint.pushes)
    (sidecar.directory / "token").write_text("renewed\n")
    eventually(lambda: endpoint.stored == [1])


def test_a_token_that_is_not_there_yet_is_waited_for(sidecar: Sidecar, endpoint: ScriptedEndpoint) -> None:
    (sidecar.directory / "token").unlink()
    sidecar.start()
    sidecar.report(1)
    eventually(lambda: "FileNotFoundError" in sidecar.stderr)
    (sidecar.directory / "token").write_text("secret")
    eventually(lambda: endpoint.stored == [1])


@pytest.mark.parametrize("status", [400, 413])
def test_a_refused_report_is_dropped_and_the_others_arrive(
    sidecar: Sidecar, endpoint: ScriptedEndpoint, status: int
) -> None:
    endpoint.script = lambda push: Reply(status, {"error": "step 2?"}) if 2 in push.steps else promote(push)
    sidecar.report(1, 2, 3)
    sidecar.start()
    eventually(lambda: sidecar.verdict == {"step": 3, "budget": 9})
    assert endpoint.stored == [1, 3]
    assert f"report of step 2 dropped: {status} {{'error': 'step 2?'}}" in sidecar.stderr


def test_one_connection_is_kept_and_replaced_where_the_endpoint_has_closed_it(
    sidecar: Sidecar, endpoint: ScriptedEndpoint
) -> None:
    budget = iter(range(2, 100))
    hang_up_after = {3}
    endpoint.script = lambda push: Reply(200, {"budget": next(budget)}, hang_up=push.steps[-1] in hang_up_after)
    sidecar.start(budget=1)
    for step in range(1, 6):
        sidecar.report(step)
        eventually(partial(answered, sidecar, step))
    connections = [push.connection for push in endpoint.pushes]
    assert [push.steps for push in endpoint.pushes] == [[1], [2], [3], [4], [5]]
    assert connections[0] == connections[1] == connections[2] != connections[3] == connections[4]
    assert "not acknowledged" not in sidecar.stderr


def test_an_endpoint_of_another_ca_is_told_nothing(
    sidecar: Sidecar, endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    sidecar.report(1)
    sidecar.start(collector_ca=issue(tmp_path).ca)
    eventually(lambda: "CERTIFICATE_VERIFY_FAILED" in sidecar.stderr)
    assert endpoint.pushes == []


def test_an_endpoint_with_the_name_of_another_is_told_nothing(sidecar: Sidecar, certificates: Certificates) -> None:
    other = ScriptedEndpoint(certificates.other_host)
    sidecar.report(1)
    sidecar.start(collector_url=other.url)
    eventually(lambda: "IP address mismatch" in sidecar.stderr)
    assert other.pushes == []
    other.close()


def test_a_killed_sidecar_goes_on_where_it_was_acknowledged(sidecar: Sidecar, endpoint: ScriptedEndpoint) -> None:
    sidecar.report(*range(1, 301))
    sidecar.start(budget=1000)
    eventually(lambda: sidecar.spool)
    sidecar.kill()
    sidecar.report(*range(301, 401))
    before = len(endpoint.pushes)
    sidecar.start()
    eventually(lambda: 400 in endpoint.stored)
    assert set(endpoint.stored) >= {1, *range(301, 401)}
    assert endpoint.pushes[before].steps[0] > 1


def test_sidecars_killed_again_and_again_lose_no_report(sidecar: Sidecar, endpoint: ScriptedEndpoint) -> None:
    endpoint.script = first(*[Reply(503), None, Reply(202)] * 5)
    for step in range(1, 11):
        seen = len(endpoint.pushes)
        sidecar.start(budget=1000)
        sidecar.report(step)
        eventually(partial(pushed_more_than, endpoint, seen))
        sidecar.kill()
    sidecar.start()
    eventually(lambda: set(endpoint.stored) == set(range(1, 11)))


def answered(sidecar: Sidecar, step: int) -> bool:
    return bool(sidecar.verdict == {"step": step, "budget": step + 1})


def pushed_more_than(endpoint: ScriptedEndpoint, count: int) -> bool:
    return len(endpoint.pushes) > count


def test_a_promotion_survives_a_killed_sidecar(sidecar: Sidecar, endpoint: ScriptedEndpoint) -> None:
    endpoint.script = promote
    sidecar.report(3)
    sidecar.start()
    eventually(lambda: sidecar.spool and sidecar.spool["budget"] == 9)
    sidecar.kill()
    sidecar.start()
    sidecar.report(4)
    eventually(lambda: 4 in endpoint.stored)
    assert endpoint.pushes[-1].body["budget"] == 9


@pytest.mark.parametrize("text", ["", "{", "[]", '{"budget": 3}', '{"budget": 3, "sources": {"reports": 1}}'])
def test_a_damaged_spool_means_pushing_everything_again(
    sidecar: Sidecar, endpoint: ScriptedEndpoint, text: str
) -> None:
    (sidecar.directory / "spool.json").write_text(text)
    sidecar.report(1, 2)
    sidecar.start()
    eventually(lambda: endpoint.stored == [1, 2])


def test_sigterm_means_push_what_is_left_and_exit_0(sidecar: Sidecar, endpoint: ScriptedEndpoint) -> None:
    sidecar.start(budget=100)
    sidecar.report(1)
    eventually(lambda: endpoint.stored == [1])
    sidecar.report(*range(2, 51))
    with (sidecar.directory / "reports.jsonl").open("a") as file:
        file.write('{"step": 51, "loss": 0.5}')  # no newline: the trainer was killed
    assert sidecar.terminate() == 0
    assert endpoint.stored == list(range(1, 52))
    assert "ended; 0 reports not acknowledged, 0 lines not valid" in sidecar.stderr


def test_sigterm_during_an_outage_goes_on_until_the_endpoint_is_back(
    sidecar: Sidecar, endpoint: ScriptedEndpoint
) -> None:
    endpoint.script = first(*[Reply(503)] * 4)
    sidecar.start()
    sidecar.report(1, 2)
    eventually(lambda: len(endpoint.pushes) >= 2)
    assert sidecar.terminate() == 0
    assert endpoint.stored == [1, 2]


def test_sigterm_without_an_endpoint_exits_0_after_the_drain_and_leaves_the_result(
    sidecar: Sidecar, endpoint: ScriptedEndpoint
) -> None:
    endpoint.script = lambda _: Reply(503)
    sidecar.start(drain=1)
    sidecar.report(1, 2, 3, 4)
    eventually(lambda: endpoint.pushes)
    assert sidecar.terminate() == 0
    assert sidecar.message == {"step": 3, "metrics": {"loss": 0.3}}
    assert "ended; 4 reports not acknowledged" in sidecar.stderr


def test_the_termination_message_tells_what_was_reported_last_once_the_result_is_decided(
    sidecar: Sidecar, endpoint: ScriptedEndpoint
) -> None:
    endpoint.script = promote
    sidecar.start()
    sidecar.report(3, checkpoint="step-3")
    eventually(lambda: sidecar.verdict)
    sidecar.report(4, checkpoint="step-4")
    eventually(lambda: sidecar.message == {"step": 4, "metrics": {"loss": 0.4}, "checkpoint": "step-4"})


def test_a_checkpoint_that_is_stored_is_told_to_the_trainer(sidecar: Sidecar, endpoint: ScriptedEndpoint) -> None:
    stored = iter([{}, {"stored": 1}, {"stored": 3}, {"stored": 1}, {"stored": "9"}])
    endpoint.script = lambda _: Reply(200, {"budget": 9, **next(stored)})
    sidecar.start()
    told = []
    for step in range(1, 6):
        sidecar.report(step, checkpoint=f"step-{step}")
        eventually(lambda step=step: sidecar.spool and sidecar.spool["sources"]["reports"]["step"] == step)
        told.append(sidecar.acknowledged)
    assert told == [None, {"step": 1}, {"step": 3}, {"step": 3}, {"step": 3}]


def test_the_termination_message_fits_into_what_the_kubelet_keeps(sidecar: Sidecar) -> None:
    sidecar.start()
    sidecar.report(3, **{f"metric-{i}-{'x' * 100}": i for i in range(63)})
    eventually(lambda: sidecar.message)
    assert (sidecar.directory / "termination-log").stat().st_size <= 4096
    assert sidecar.message["metrics"]["loss"] == 0.3


def test_lines_that_are_no_reports_are_counted_and_a_few_are_shown(
    sidecar: Sidecar, endpoint: ScriptedEndpoint
) -> None:
    with (sidecar.directory / "reports.jsonl").open("w") as file:
        file.writelines(f'{{"step": {step}, "loss": "bad"}}\n' for step in range(1, 51))
        file.write("\n" + "x" * 1_000_000 + "\n")
    sidecar.report(2)
    sidecar.start()
    eventually(lambda: endpoint.stored == [2])
    assert sidecar.terminate() == 0
    assert sidecar.stderr.count("not a report: metric 'loss': must be a number, not 'bad'") == 20
    assert "ended; 0 reports not acknowledged, 51 lines not valid" in sidecar.stderr
    assert endpoint.pushes[-1].body["invalid"] == 51


def test_reports_are_read_from_stdout_by_a_pattern_and_counted_on_after_a_kill(
    sidecar: Sidecar, endpoint: ScriptedEndpoint
) -> None:
    stdout = sidecar.directory / "stdout"
    stdout.write_text("loading\n\x1b[1mloss=\x1b[0m0.5\nloss=0.4\n")
    sidecar.start(stdout=stdout, stdout_pattern=r"loss=(?P<loss>\S+)", start=9, budget=99)
    eventually(lambda: sidecar.spool and sidecar.spool["sources"]["stdout"]["step"] == 11)
    sidecar.kill()
    with stdout.open("a") as file:
        file.write("10%\r50%\rloss=nan\n")
    sidecar.start()
    eventually(lambda: endpoint.stored == [10, 11, 12])
    reports = [report for push in endpoint.pushes for report in push.body["reports"]]
    assert [report["metrics"] for report in reports] == [{"loss": 0.5}, {"loss": 0.4}, {"loss": "NaN"}]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reports": ""}, "HALVARD_REPORTS: must be set"),
        ({"verdict": ""}, "HALVARD_VERDICT: must be set"),
        ({"spool": ""}, "HALVARD_SPOOL: must be set"),
        ({"budget": ""}, "HALVARD_BUDGET: must be set"),
        ({"budget": "three"}, "HALVARD_BUDGET: must be a whole number, not 'three'"),
        ({"start": "-1"}, "HALVARD_START: must be a whole number, not '-1'"),
        ({"collector_url": ""}, "HALVARD_COLLECTOR_URL: must be set"),
        ({"collector_url": "http://127.0.0.1"}, "HALVARD_COLLECTOR_URL: must be an https URL"),
        ({"collector_ca": ""}, "HALVARD_COLLECTOR_CA: must be set"),
        ({"collector_ca": "nonsense"}, "HALVARD_COLLECTOR_CA: must be certificates in PEM"),
        ({"stdout_pattern": "(", "stdout": "/nowhere"}, "pattern: not a regular expression"),
        ({"stdout_pattern": "loss=(?P<loss>.*)"}, "HALVARD_STDOUT: must be set"),
    ],
)
def test_a_setting_that_is_missing_or_wrong_is_named(sidecar: Sidecar, changes: dict[str, str], message: str) -> None:
    sidecar.start(**changes)
    assert sidecar.exit_code() == 1
    assert message in sidecar.stderr
