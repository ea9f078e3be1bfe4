"""What makes a run of chaos fail, without any chaos."""

from collections import Counter
from pathlib import Path

from click.testing import CliRunner

from chaos.__main__ import SCENARIOS, main
from chaos.checks import ends, unexpected
from chaos.failpoints import FAILPOINTS
from chaos.kills import AT_RANDOM, kind
from chaos.long_run import SURVIVED, Sample, grown
from chaos.operators import Operators
from chaos.promised import missing
from chaos.troubles import operator_killed, pod_deleted

PROMISED = Counter({AT_RANDOM: 1000} | {kind(failpoint): 20 for failpoint in FAILPOINTS})
HANDLER = """2026-11-22 21:40:56,887 ERROR kopf.objects: Handler 'trials' failed with an exception. Will ignore.
Traceback (most recent call last):
  File "halvard/handlers.py", line 71, in on_event
KeyError: 'uid-of-digits-0003'
"""
TASK = """2026-11-22 21:40:57,001 ERROR asyncio: Task exception was never retrieved
future: <Task finished name='Task-3' coro=<boom() done> exception=KeyError('lost')>
Traceback (most recent call last):
KeyError: 'lost'
"""
END = """ended: ZeroDivisionError('division by zero')
Process ForkServerProcess-37:
Traceback (most recent call last):
ZeroDivisionError: division by zero
"""
OF_KOPF = """2026-11-22 21:41:10,806 ERROR kopf._core.reactor.orchestration: Watcher for pods.v1@chaos-7 has failed
Traceback (most recent call last):
  File "site-packages/kopf/_cogs/clients/watching.py", line 215, in continuous_watch
    raise WatchingError(f"Error in the watch-stream: {raw_object}")
kopf._cogs.clients.watching.WatchingError: Error in the watch-stream: {'message': 'injected: 500 in a watch'}
"""
QUIET = "2026-11-22 21:40:58,000 INFO halvard.operator: leading chaos-7\n"


def test_a_run_of_everything_without_time_for_it_says_what_is_missing_and_fails() -> None:
    done = CliRunner().invoke(main, ["--minutes", "0"])
    assert done.exit_code == 1
    assert f"kills: {SCENARIOS['kills'].rounds} of {SCENARIOS['kills'].rounds} rounds were not begun" in done.output
    assert "SIGKILL at random: 0 times, not 1,000" in done.output
    assert "SIGKILL after update leases: 0 times, not 20" in done.output


def test_a_run_of_what_is_named_may_be_short() -> None:
    assert CliRunner().invoke(main, ["kills", "--minutes", "0"]).exit_code == 0


def test_a_run_of_everything_misses_nothing_else_what_it_has_not_done() -> None:
    assert list(missing({"kills": 2}, {"kills": 2}, PROMISED)) == []
    one_less = PROMISED - Counter({AT_RANDOM: 1, kind("before get services"): 1})
    assert list(missing({"kills": 2, "clocks": 1}, {"kills": 2, "clocks": 0}, one_less)) == [
        "clocks: 1 of 1 rounds were not begun",
        "SIGKILL at random: 999 times, not 1,000",
        "SIGKILL before get services: 19 times, not 20",
    ]


def test_every_traceback_is_a_violation_whoever_logs_it() -> None:
    assert unexpected(QUIET + HANDLER + QUIET + TASK + END) == [
        text.strip() for text in (HANDLER, TASK, END.partition("\n")[2])
    ]


def test_what_kopf_ends_with_where_a_watch_fails_is_expected_and_hides_nothing_else() -> None:
    assert unexpected(OF_KOPF + QUIET) == []
    assert unexpected(OF_KOPF + HANDLER) == [HANDLER.strip()]


def test_ends_are_counted_whatever_the_namespace() -> None:
    lost = "ended: stopping, for somebody else may lead: {}/halvard could not be renewed\n"
    assert ends(QUIET + lost.format("chaos-7") * 2, "chaos-7") == {lost.format("NAMESPACE").strip(): 2}


async def test_an_operator_that_ends_by_itself_was_not_killed_and_says_why(tmp_path: Path) -> None:
    operators = Operators({}, tmp_path / "log")
    running = operators.start()
    await running.gone.wait()
    assert not await running.kill()
    why = "ended: HALVARD_COLLECTOR_IMAGE is not set: the operator cannot do without it"
    assert operators.log.read_text() == f"{why}\n"


async def test_an_operator_that_is_killed_was_killed(tmp_path: Path) -> None:
    assert await Operators({}, tmp_path / "log").start().kill()


def leader(*sizes: int, pid: int = 1) -> list[Sample]:
    return [Sample(60.0 * minute, pid, size << 20) for minute, size in enumerate(sizes)]


def test_a_leader_that_lives_on_must_not_grow() -> None:
    assert grown(leader(100, 101, 102, 140, 110, 112, 114)) == []
    [found] = grown(leader(100, 101, 102, 110, 120, 121, 122))
    assert found == "the leader's memory has grown from 101 to 121 MiB"


def test_a_leader_that_does_not_live_on_is_not_judged_but_a_violation() -> None:
    assert grown([]) != []
    assert grown(leader(100, 100) + leader(50, 50, pid=2)) != []


def test_no_trouble_of_the_second_half_ends_the_leader() -> None:
    begun = {trouble.begin for trouble in SURVIVED}
    assert pod_deleted in begun
    assert operator_killed not in begun
