"""The shell wrapper, in every shell that is installed here, around real processes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from halvard_trainer.wrap import wrap
from unit.trainer.waiting import eventually

SHELLS = [[path] for name in ("dash", "bash") if (path := shutil.which(name))]
SHELLS += [[path, "sh"] for name in ("busybox",) if (path := shutil.which(name))]
TIMEOUT = 60  # seconds; only a hang comes near it

SAVES_ON_SIGTERM = """
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("ready", flush=True)
signal.sigwait([signal.SIGTERM])
print("x" * 100_000)
print("saved", flush=True)
sys.exit(5)
"""


@dataclass(frozen=True)
class Wrapper:
    """Starts wrapped programs with one shell, in one directory."""

    shell: list[str]
    directory: Path

    @property
    def stdout(self) -> Path:
        return self.directory / "stdout"

    def command(self, *command: str) -> list[str]:
        """Return the wrapped command line, with this shell in the place of /bin/sh."""
        _, *rest = wrap(command[:1], command[1:], str(self.stdout), str(self.directory))
        return [*self.shell, *(part.replace("/bin/sh", " ".join(self.shell)) for part in rest)]

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self.command(*command), bufsize=0, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def run(self, *command: str) -> tuple[int, bytes]:
        """Run `command` to its end; return exit code and output."""
        return finish(self.start(*command))


def finish(process: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    try:
        output, _ = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, output


def started(process: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
    """Return the process once its program says that it is ready, and the shell waits for it."""
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    eventually(lambda: waits(process))
    return process


def waits(process: subprocess.Popen[bytes]) -> bool:
    """Whether it sleeps; where it is bash, a signal from just before that would be seen only afterwards."""
    return "S (sleeping)" in Path(f"/proc/{process.pid}/status").read_text()


@pytest.fixture(autouse=True)
def sigint_is_not_ignored() -> Iterator[None]:
    """What a process ignores when it starts a shell, the shell cannot trap; tests that run in the background do."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(params=SHELLS, ids=lambda shell: Path(shell[0]).name)
def wrapper(request: pytest.FixtureRequest, tmp_path: Path) -> Wrapper:
    return Wrapper(request.param, tmp_path)


@pytest.mark.parametrize("code", [0, 1, 3, 127, 255])
def test_the_exit_code_is_the_programs(wrapper: Wrapper, code: int) -> None:
    assert wrapper.run("sh", "-c", f"exit {code}")[0] == code


def test_a_program_killed_by_sigkill_exits_137(wrapper: Wrapper) -> None:
    assert wrapper.run(sys.executable, "-c", "import os; os.kill(os.getpid(), 9)")[0] == 137


def test_a_program_that_is_not_there_exits_127_and_says_so(wrapper: Wrapper) -> None:
    code, output = wrapper.run("no-such-program-anywhere")
    assert code == 127
    assert b"no-such-program-anywhere" in output


def test_arguments_arrive_untouched(wrapper: Wrapper) -> None:
    arguments = [
        "a b",
        "it's",
        '"',
        "$HOME",
        "$(id)",
        "`id`",
        "*",
        "",
        "\\n",
        "line\nbreak",
        "é",
        "-n",
        ";exit 9",
        "$$",
    ]
    _, output = wrapper.run(sys.executable, "-c", "import sys, json; print(json.dumps(sys.argv[1:]))", *arguments)
    assert json.loads(output) == arguments


def test_stdout_and_stderr_reach_the_log_and_the_file(wrapper: Wrapper) -> None:
    _, output = wrapper.run("sh", "-c", "echo one; echo two >&2; echo three")
    assert output == b"one\ntwo\nthree\n"
    assert wrapper.stdout.read_bytes() == output


def test_ten_megabytes_arrive_complete_to_the_last_byte(wrapper: Wrapper) -> None:
    program = "import sys\nfor i in range(1_000_000): print(f'{i:09}')\nsys.stdout.write('end')"
    code, output = wrapper.run(sys.executable, "-c", program)
    assert code == 0
    assert output == b"".join(b"%09d\n" % i for i in range(1_000_000)) + b"end"
    assert wrapper.stdout.read_bytes() == output


def test_sigterm_reaches_the_program_and_what_it_says_then_is_not_lost(wrapper: Wrapper) -> None:
    process = started(wrapper.start(sys.executable, "-c", SAVES_ON_SIGTERM))
    process.send_signal(signal.SIGTERM)
    code, output = finish(process)
    assert code == 5
    assert output == b"x" * 100_000 + b"\nsaved\n"
    assert wrapper.stdout.read_bytes() == b"ready\n" + output


def test_sigint_reaches_the_program_as_sigterm(wrapper: Wrapper) -> None:
    process = started(wrapper.start(sys.executable, "-c", SAVES_ON_SIGTERM))
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 5


def test_a_program_without_a_handler_dies_of_sigterm(wrapper: Wrapper) -> None:
    process = started(wrapper.start(sys.executable, "-c", "import signal; print('ready', flush=True); signal.pause()"))
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 143


def test_a_program_that_survives_sigterm_gets_every_one_and_runs_on(wrapper: Wrapper) -> None:
    program = (
        "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"
        "print('ready', flush=True)\n"
        "for _ in range(3): signal.sigwait([signal.SIGTERM]); print('again', flush=True)\n"
        "print('done')"
    )
    process = started(wrapper.start(sys.executable, "-c", program))
    assert process.stdout is not None
    for _ in range(3):
        eventually(lambda: waits(process))
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == b"again\n"
    assert finish(process) == (0, b"done\n")


def test_a_signal_to_the_whole_group_still_ends_with_the_programs_exit_code(wrapper: Wrapper) -> None:
    command = wrapper.command(sys.executable, "-c", SAVES_ON_SIGTERM)
    process = started(subprocess.Popen(command, bufsize=0, stdout=subprocess.PIPE, start_new_session=True))
    os.killpg(process.pid, signal.SIGTERM)
    code, output = finish(process)
    assert code == 5
    assert output.endswith(b"saved\n")


MOMENTS = {
    "its files are being emptied": lambda state: (state / "pid").exists(),
    "the program is being started": lambda state: (state / "term").exists(),
    "the program's pid was written": lambda state: (state / "pid").exists() and (state / "pid").stat().st_size,
}


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS.keys())
def test_a_sigterm_while_it_starts_is_not_forgotten(wrapper: Wrapper, moment: Callable[[Path], bool]) -> None:
    if wrapper.shell[0].endswith("bash"):
        pytest.skip("bash itself sees a signal of the last microseconds before its `wait` only afterwards")
    process = wrapper.start("sleep", "1000")
    eventually(lambda: moment(wrapper.directory))
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 143


def test_a_sigterm_before_the_pid_is_known_ends_the_program_before_it_begins(wrapper: Wrapper) -> None:
    gate, slow = wrapper.directory / "gate", wrapper.directory / "slow-sh"
    os.mkfifo(gate)
    slow.write_text(f'#!/bin/sh\nread -r line <"{gate}"\nexec {" ".join(wrapper.shell)} "$@"\n')
    slow.chmod(0o755)
    command = wrap(["echo"], ["begun"], str(wrapper.stdout), str(wrapper.directory))
    argv = [*wrapper.shell, *(part.replace("/bin/sh", str(slow)) for part in command[1:])]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE)
    with gate.open("w") as opened:  # returns once the slow shell stands at the gate
        eventually(lambda: waits(process))
        process.send_signal(signal.SIGTERM)
        eventually(lambda: (wrapper.directory / "term").stat().st_size > 0)
        opened.write("go\n")
    code, output = finish(process)
    assert code == 143
    assert b"begun" not in output


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="a PID namespace needs root and unshare")
def test_daemons_left_behind_do_not_keep_a_container_alive(wrapper: Wrapper) -> None:
    command = wrapper.command("sh", "-c", "sleep 1000 & echo hello; exit 4")
    process = subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", *command], stdout=subprocess.PIPE)
    assert finish(process) == (4, b"hello\n")


def test_the_files_of_an_earlier_run_change_nothing(wrapper: Wrapper) -> None:
    for name, text in {"pid": str(os.getpid()), "code": "9", "term": "1"}.items():
        (wrapper.directory / name).write_text(text + "\n")
    assert wrapper.run("echo", "hello") == (0, b"hello\n")


def test_the_output_of_a_second_run_is_appended(wrapper: Wrapper) -> None:
    wrapper.run("echo", "one")
    wrapper.run("echo", "two")
    assert wrapper.stdout.read_bytes() == b"one\ntwo\n"


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: Path(shell[0]).name)
def test_a_state_directory_that_is_not_there_is_named(shell: list[str], tmp_path: Path) -> None:
    command = Wrapper(shell, tmp_path / "nowhere").command("echo", "hello")
    result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert result.returncode != 0
    assert str(tmp_path / "nowhere") in result.stderr


def test_the_kubelets_expansion_of_variables_leaves_the_script_as_it_is() -> None:
    """The kubelet turns `$$` into `$` and replaces `$(NAME)`: kubernetes, third_party/forked/golang/expansion."""
    script = wrap(["python"], [], "/halvard/stdout", "/halvard")[2]
    assert re.findall(r"\$\$|\$\(", script) == []


def test_only_a_shell_and_tee_are_called() -> None:
    """Every word that stands where a command may stand, but for what POSIX says is built in."""
    script = wrap(["python"], [], "/halvard/stdout", "/halvard")[2]
    built_in = {
        "shift",
        "echo",
        "read",
        "kill",
        "trap",
        "wait",
        "exit",
        "exec",
        "while",
        "until",
        "do",
        "done",
        ":",
        "[",
    }
    words = re.findall(r"(?:^|[{;&|'\n]|do )\s*([a-z/\[:]+)(?= )", script)
    assert {"/bin/sh"} == set(words) - built_in


def test_an_image_whose_entry_point_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="command: must be set"):
        wrap([], ["--lr=1"], "/halvard/stdout", "/halvard")
