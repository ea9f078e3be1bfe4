"""The command line that feeds a program's output to the sidecar, for programs that know nothing of Halvard.

It assumes `/bin/sh` and `tee` in the image and nothing else. The shell waits beside the program, hands SIGTERM on to it
at once, and exits with its exit code once `tee` has written everything.
"""

from __future__ import annotations

from collections.abc import Sequence

# The kubelet expands `$(NAME)` and turns `$$` into `$` in a container's command: neither may stand here, hence ${$}.
#
# No variable knows the program's pid, since `$!` is tee's: a shell puts its own in a file and then becomes the program.
# A signal that comes before that leaves `term` behind. Each side first writes its file and then looks for the other's,
# so one of them sees both. Files are emptied and asked for with -s, not removed: a restarted container finds old ones.
# (One gap is left where /bin/sh is bash: a signal in the microseconds before `wait` is seen only after it.)
#
# Daemons that the program leaves behind would hold the pipe open, and with it a GPU. Where this shell is the first
# process of its container they are ended, as they would be without the wrapper; tee ignores SIGTERM to write the rest.
# A program may be over before tee does that: `tee` says that it does.
_SCRIPT = r"""
out=$1 state=$2
shift 2
forward() {
  signalled=1
  echo 1 >"$state/term"
  { read -r pid <"$state/pid"; } 2>/dev/null && kill -TERM "$pid" 2>/dev/null
}
trap forward TERM INT
: >"$state/pid"
: >"$state/code"
: >"$state/term"
: >"$state/tee"
[ -z "$signalled" ] || echo 1 >"$state/term"
{
  trap : TERM
  /bin/sh -c 'echo "${$}" >"$0/pid"; [ ! -s "$0/term" ] || kill -TERM "${$}"; exec "$@"' "$state" "$@"
  echo "$?" >"$state/code"
  [ "${$}" -ne 1 ] || {
    until [ -s "$state/tee" ]; do :; done
    kill -TERM -1
  }
} 2>&1 | {
  trap "" TERM
  echo 1 >"$state/tee"
  exec tee -a "$out"
} &
tee=$!
while kill -0 "$tee" 2>/dev/null; do
  wait "$tee"
done
read -r code <"$state/code" || code=137
exit "$code"
"""


def wrap(command: Sequence[str], args: Sequence[str], stdout: str, state: str) -> list[str]:
    """Return the command that runs `command` + `args` and appends their output to the file `stdout` as well.

    `state` is an existing directory for four small files. ValueError without a command, since an image's own entry
    point is not known here.
    """
    if not command:
        raise ValueError("command: must be set for the container named trainer, so that its stdout can be collected")
    return ["/bin/sh", "-c", _SCRIPT, "halvard", stdout, state, *command, *args]
