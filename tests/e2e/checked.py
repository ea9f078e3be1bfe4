"""Studies of a cluster that are looked at by the history checker when a test is done with them."""

import contextlib
from collections.abc import Callable, Collection, Iterator

from e2e.release import Release
from e2e.studies import Operator, Studies
from history import Rule
from history.after import assert_all_sound
from lab.audit import Log
from lab.container_logs import following
from lab.control_plane import ControlPlaneError
from lab.existing import Existing
from lab.operator_process import OperatorProcess


@contextlib.contextmanager
def checked(studies: Studies, broken_on_purpose: Collection[Rule] = ()) -> Iterator[Studies]:
    """Gives Studies to be used; what is left of them then has to be sound, as far as there is an audit log."""
    if isinstance(studies.cluster, Existing):
        yield studies
        return
    log = Log(studies.cluster.audit)
    with words_of(studies.operator) as words:
        yield studies
        stored = studies.every("trials")
        scraped, said = metrics_of(studies), words()
    assert_all_sound(log, studies.namespace, stored, broken_on_purpose, scraped=scraped, said=said)


@contextlib.contextmanager
def words_of(operator: Operator) -> Iterator[Callable[[], str]]:
    """Gives what returns all that the operator has logged from now on, whichever of its processes did."""
    if isinstance(operator, Release):
        with following(operator.cluster, operator.namespace) as logs:
            yield logs.text
    else:
        assert isinstance(operator, OperatorProcess)
        yield operator.log.read_text


def metrics_of(studies: Studies) -> str:
    """What the operator says of itself; nothing where none runs."""
    try:
        return studies.operator.metrics()
    except (OSError, ControlPlaneError):
        return ""
