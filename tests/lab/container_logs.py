"""What the containers of a namespace print, read from the kubelets' files while Pods come and go."""

import contextlib
import threading
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TextIO

from lab.cluster import Cluster

LOOK = 0.2  # seconds; a kubelet takes longer to clear away what a container that ended has printed


class ContainerLogs:
    """All that was printed since `following` began, also by containers and Pods that are gone: kubectl has no more.

    A file that was once opened is read to its end, whoever renames or removes it meanwhile.
    """

    def __init__(self, nodes: Collection[Path], namespace: str) -> None:
        """Reads nothing yet; `nodes`: where each keeps what its containers print."""
        self._nodes = nodes
        self._pattern = f"{namespace}_*/*/*.log*"
        self._files: dict[tuple[int, int], TextIO] = {}  # by device and inode, which is no other's while it is open
        self._printed: list[str] = []
        self._one_reads = threading.Lock()

    def text(self) -> str:
        """Returns the lines, each after its time and stream, in no order but that of its container."""
        self.read()
        return "".join(self._printed)

    def read(self) -> None:
        """Reads what is new."""
        with self._one_reads:
            for path in (path for node in self._nodes for path in node.glob(self._pattern)):
                if path.suffix != ".gz":  # what is rotated is compressed once it has been read
                    with contextlib.suppress(FileNotFoundError):
                        self._open(path)
            for file in self._files.values():
                self._printed += file.readlines()

    def close(self) -> None:
        """Closes the files."""
        for file in self._files.values():
            file.close()

    def _open(self, path: Path) -> None:
        status = path.stat()
        if (status.st_dev, status.st_ino) not in self._files:
            self._files[status.st_dev, status.st_ino] = path.open()


@contextlib.contextmanager
def following(lab: Cluster, namespace: str) -> Iterator[ContainerLogs]:
    """Gives what the containers of a namespace print from now on."""
    logs, over = ContainerLogs([node.logs for node in lab.nodes.values()], namespace), threading.Event()

    def follow() -> None:
        while not over.wait(LOOK):
            logs.read()

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield logs
    finally:
        over.set()
        thread.join()
        logs.close()
