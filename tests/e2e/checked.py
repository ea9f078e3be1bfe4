"""Studies of a cluster that are looked at by the history checker when a test is done with them."""

import contextlib
from collections.abc import Collection, Iterator

from e2e.studies import Studies
from history import Rule
from history.after import assert_all_sound
from lab.audit import Log
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
    yield studies
    stored = studies.every("trials")
    scraped, said = metrics_of(studies), words_of(studies)
    assert_all_sound(log, studies.namespace, stored, broken_on_purpose, scraped=scraped, said=said)


def words_of(studies: Studies) -> str | None:
    """All that the operator has logged; None where not all of it is left."""
    return studies.operator.log.read_text() if isinstance(studies.operator, OperatorProcess) else None


def metrics_of(studies: Studies) -> str:
    """What the operator says of itself; nothing where none runs."""
    try:
        return studies.operator.metrics()
    except (OSError, ControlPlaneError):
        return ""
