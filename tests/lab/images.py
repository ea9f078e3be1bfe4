"""Container images without Docker or a registry: OCI archives made by buildah, cached by what went into them."""

import hashlib
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab.binaries import cache
from lab.machine import MachineError, run, unmount

REPOSITORY = Path(__file__).parents[2]
COLLECTOR = "registry.example.com/halvard/collector:0.1.0"
DIGITS = "registry.example.com/halvard/digits:1"
PAUSE = "localhost/halvard/pause:1"
PYTHON = "localhost/halvard/python:3.11"

PAUSE_DOCKERFILE = """\
FROM scratch
COPY catatonit /catatonit
USER 65535:65535
ENTRYPOINT ["/catatonit", "-P"]
"""
PYTHON_DOCKERFILE = """\
FROM scratch
COPY root/ /
CMD ["python3"]
"""
SUITE = "bookworm"
PACKAGES = (
    "python3-minimal",
    "libpython3-stdlib",
    "python3-numpy",
    "libopenblas0-pthread",  # numpy takes the reference BLAS otherwise, and trains twenty times slower
    "catatonit",
)
UNNEEDED = ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale")


@dataclass(frozen=True)
class Image:
    """An image by the name that manifests use, and the archive that holds it."""

    name: str
    archive: Path


def all_images() -> list[Image]:
    """Every image that a node of the lab holds; builds what is missing."""
    python = python_image()
    trainer, digits = REPOSITORY / "trainer-image", REPOSITORY / "examples" / "digits"
    return [
        pause_image(),
        python,
        repository_image(COLLECTOR, python, trainer / "Dockerfile", trainer, [trainer / "halvard_trainer"]),
        repository_image(DIGITS, python, digits / "Dockerfile", REPOSITORY, [trainer / "halvard_trainer", digits]),
    ]


def pause_image() -> Image:
    """The image that holds a Pod's namespaces: one static program that waits."""
    program = Path("/usr/bin/catatonit")

    def fill(context: Path) -> None:
        shutil.copy(program, context)
        (context / "Dockerfile").write_text(PAUSE_DOCKERFILE)

    return cached(PAUSE, digest(PAUSE_DOCKERFILE, program), fill)


def python_image() -> Image:
    """Python and numpy as Debian has them: what `python:3.12-slim` and pip are where there is a registry."""

    def fill(context: Path) -> None:
        run("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, context / "root")
        for unneeded in UNNEEDED:
            shutil.rmtree(context / "root" / unneeded, ignore_errors=True)
        (context / "Dockerfile").write_text(PYTHON_DOCKERFILE)

    return cached(PYTHON, digest(PYTHON_DOCKERFILE, SUITE, *PACKAGES, *UNNEEDED), fill)


def repository_image(name: str, base: Image, dockerfile: Path, root: Path, folders: list[Path]) -> Image:
    """An image from a Dockerfile of this repository; of its context `root` it gets the folders that it needs."""

    def fill(context: Path) -> None:
        shutil.copy(dockerfile, context / "Dockerfile")
        for folder in folders:
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(folder, context / folder.relative_to(root), ignore=ignored)

    key = digest(base.archive.name, dockerfile, *folders)
    return cached(name, key, fill, f"--build-arg=BASE=oci-archive:{base.archive}")


def cached(name: str, key: str, fill: Callable[[Path], None], *arguments: str) -> Image:
    """The image of this name, made from what `fill` puts into a directory; one made earlier under this key is kept."""
    stem = name.rsplit("/", 1)[-1].partition(":")[0]
    images = cache() / "images"
    archive = images / f"{stem}-{key}.tar"
    if not archive.exists():
        start = time.monotonic()
        print(f"building image {name} ...", file=sys.stderr, flush=True)
        work = images / "build"
        remove(work)  # what a killed run left
        (work / "context").mkdir(parents=True)
        try:
            fill(work / "context")
            build(name, work, arguments).rename(archive)
        finally:
            remove(work)
        for old in set(images.glob(f"{stem}-*.tar")) - {archive}:
            old.unlink()
        print(f"building image {name}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    return Image(name, archive)


def build(name: str, work: Path, arguments: tuple[str, ...]) -> Path:
    """Runs buildah on `work/context`, with a store of its own beside it; the archive's path."""
    archive = work / "image.tar"

    def buildah(driver: str) -> None:
        command = ("buildah", "--root", work / driver, "--runroot", work / f"{driver}-run", "--storage-driver", driver)
        run(*command, "bud", "--isolation", "chroot", "--tag", name, *arguments, work / "context")
        run(*command, "push", name, f"oci-archive:{archive}:{name}")

    try:
        buildah("overlay")
    except MachineError:
        archive.unlink(missing_ok=True)
        buildah("vfs")  # slower, and works on every file system
    return archive


def remove(directory: Path) -> None:
    """Removes a directory in which something may still be mounted."""
    unmount(directory)
    shutil.rmtree(directory, ignore_errors=True)


def digest(*inputs: str | Path) -> str:
    """A short name for what goes into an image: texts as they are, files and folders by their content."""
    total = hashlib.sha256()
    for item in inputs:
        if isinstance(item, Path):
            for path in files(item):
                total.update(f"{path.relative_to(item.parent)}\0".encode() + path.read_bytes())
        else:
            total.update(f"{item}\0".encode())
    return total.hexdigest()[:16]


def files(path: Path) -> list[Path]:
    """The file itself, or all files of a directory but compiled Python."""
    return sorted(p for p in (path, *path.rglob("*")) if p.is_file() and "__pycache__" not in p.parts)
