"""Container images without Docker or a registry: OCI archives made by buildah, cached by what went into them."""

import hashlib
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab.binaries import cache, locked
from lab.machine import MachineError, run, unmount

REPOSITORY = Path(__file__).parents[2]
TRAINER = REPOSITORY / "trainer-image"
OPERATOR = "registry.example.com/halvard/operator:0.1.0"
COLLECTOR = "registry.example.com/halvard/collector:0.1.0"
DIGITS = "registry.example.com/halvard/digits:1"
PAUSE = "localhost/halvard/pause:1"
PYTHON = "localhost/halvard/python:3.11"
PIP = "localhost/halvard/pip:3.11"
NUMPY = "localhost/halvard/numpy:3.11"

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
MORE_DOCKERFILE = """\
ARG BASE
FROM ${{BASE}}
RUN apt-get update && apt-get install --yes --no-install-recommends {packages} && rm -rf {unneeded}
"""
SUITE = "bookworm"
PYTHON_PACKAGES = ("python3-minimal", "libpython3-stdlib")
NUMPY_PACKAGES = (
    "python3-numpy",
    "libopenblas0-pthread",  # numpy takes the reference BLAS otherwise, and trains twenty times slower
)
UNNEEDED = ("/var/cache/apt", "/var/lib/apt/lists", "/usr/share/doc", "/usr/share/man", "/usr/share/locale")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
UNUSED = 3600.0  # seconds until an archive that nobody asked for is removed: another run may still read an older one


@dataclass(frozen=True)
class Image:
    """An image by the name that manifests use, and the archive that holds it."""

    name: str
    archive: Path


def all_images() -> list[Image]:
    """Every image that a node of the lab holds; builds what is missing."""
    return [pause_image(), python_image(), operator_image(), collector_image(), digits_image()]


def operator_image() -> Image:
    """The operator's image, with its dependencies from the lock."""
    inputs = [REPOSITORY / "requirements.lock", REPOSITORY / "operator" / "halvard", TRAINER / "halvard_trainer"]
    bases = {"BASE": python_image(), "BUILDER": python_image_with(PIP, "python3-pip")}
    # pip goes where this machine's does, and trusts whom this machine trusts: there may be a proxy between
    options = ["--build-arg=PIP_INDEX_URL"]
    if CERTIFICATES.exists():
        options.append(f"--volume={CERTIFICATES}:{CERTIFICATES}:ro")
    return repository_image(OPERATOR, "operator/Dockerfile", REPOSITORY, inputs, bases, *options)


def collector_image() -> Image:
    """The sidecar's image."""
    return repository_image(COLLECTOR, "Dockerfile", TRAINER, [TRAINER / "halvard_trainer"], {"BASE": python_image()})


def digits_image() -> Image:
    """The image of the digits example's trainer."""
    inputs = [TRAINER / "halvard_trainer", REPOSITORY / "examples" / "digits"]
    bases = {"BASE": python_image_with(NUMPY, *NUMPY_PACKAGES)}
    return repository_image(DIGITS, "examples/digits/Dockerfile", REPOSITORY, inputs, bases)


def pause_image() -> Image:
    """The image that holds a Pod's namespaces: one static program that waits."""
    program = Path("/usr/bin/catatonit")

    def prepare(directory: Path) -> Path:
        shutil.copy(program, directory)
        (directory / "Dockerfile").write_text(PAUSE_DOCKERFILE)
        return directory

    return cached(PAUSE, digest(PAUSE_DOCKERFILE, program), prepare)


def python_image() -> Image:
    """Python as Debian has it: what `python:3.12-slim` is where there is a registry."""

    def prepare(directory: Path) -> Path:
        run("debootstrap", "--variant=minbase", f"--include={','.join(PYTHON_PACKAGES)}", SUITE, directory / "root")
        for unneeded in UNNEEDED:
            shutil.rmtree(f"{directory}/root{unneeded}")
        (directory / "Dockerfile").write_text(PYTHON_DOCKERFILE)
        return directory

    return cached(PYTHON, digest(PYTHON_DOCKERFILE, SUITE, *PYTHON_PACKAGES, *UNNEEDED), prepare)


def python_image_with(name: str, *packages: str) -> Image:
    """The Python image with more of Debian's packages."""
    base = python_image()
    dockerfile = MORE_DOCKERFILE.format(packages=" ".join(packages), unneeded=" ".join(UNNEEDED))

    def prepare(directory: Path) -> Path:
        (directory / "Dockerfile").write_text(dockerfile)
        return directory

    return cached(name, digest(dockerfile, base.archive), prepare, base_argument("BASE", base))


def repository_image(
    name: str, dockerfile: str, context: Path, inputs: list[Path], bases: dict[str, Image], *options: str
) -> Image:
    """An image as users build it: from a Dockerfile of this repository, in `context`, of which it takes `inputs`."""
    key = digest(context / dockerfile, context / ".dockerignore", *inputs, *(base.archive for base in bases.values()))
    # without times, what goes in decides what comes out; Debian's Python must keep them: its byte code goes by them
    options = (f"--file={context / dockerfile}", "--timestamp=0", *options)
    return cached(name, key, lambda _: context, *options, *(base_argument(*base) for base in bases.items()))


def base_argument(name: str, base: Image) -> str:
    """The option that gives a Dockerfile its base image."""
    return f"--build-arg={name}=oci-archive:{base.archive}"


def cached(name: str, key: str, prepare: Callable[[Path], Path], *options: str) -> Image:
    """The image of this name; one made earlier under this key is kept.

    `prepare` gets an empty directory and returns the one to build in: that, with something in it, or another.
    """
    stem = name.rsplit("/", 1)[-1].partition(":")[0]
    images = cache() / "images"
    archive = images / f"{stem}-{key}.tar"
    with locked(cache() / "images.lock"):
        if not archive.exists():
            start = time.monotonic()
            print(f"building image {name} ...", file=sys.stderr, flush=True)
            make(name, images / "build", prepare, options, archive)
            print(f"building image {name}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
        archive.touch()
        for other in images.glob(f"{stem}-*.tar"):
            if time.time() - other.stat().st_mtime > UNUSED:
                other.unlink()
    return Image(name, archive)


def make(name: str, work: Path, prepare: Callable[[Path], Path], options: tuple[str, ...], archive: Path) -> None:
    """Builds an image in the directory `work`, of which nothing is left; `archive` appears only once it is whole."""
    remove(work)  # what a killed run left
    (work / "context").mkdir(parents=True)
    try:
        build(name, work, prepare(work / "context"), options).rename(archive)
    finally:
        remove(work)


def build(name: str, work: Path, context: Path, options: tuple[str, ...]) -> Path:
    """Runs buildah on `context`, with a store of its own in `work`; the archive's path."""
    archive = work / "image.tar"

    def buildah(driver: str) -> None:
        command = ("buildah", "--root", work / driver, "--runroot", work / f"{driver}-run", "--storage-driver", driver)
        run(*command, "bud", "--isolation", "chroot", "--tag", name, *options, context)
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
