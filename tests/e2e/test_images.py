"""The operator's and the collector's images hold what their Dockerfiles say and nothing of the machine that built them.

They need root and buildah, but no cluster.
"""

import functools
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.binaries import cache
from lab.images import COLLECTOR, OPERATOR, REPOSITORY, Image, collector_image, operator_image, python_image
from lab.machine import prepare, run

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
BUILD = {OPERATOR: operator_image, COLLECTOR: collector_image}
CONTENT = {OPERATOR: "opt/halvard", COLLECTOR: "opt/halvard/halvard_trainer"}
Run = Callable[..., subprocess.CompletedProcess[str]]
both = pytest.mark.parametrize("name", BUILD)


@pytest.fixture(scope="module")
def images(pytestconfig: pytest.Config) -> dict[str, Image]:
    if os.environ.get("E2E_CLUSTER") == "existing":
        pytest.skip("builds the lab's own images; this run uses an existing cluster")
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    assert capture is not None
    with capture.global_and_fixture_disabled():  # it may take minutes the first time: show progress
        prepare()
        return {name: build() for name, build in BUILD.items()}


def document(image: Image, digest: str) -> dict[str, Any]:
    with tarfile.open(image.archive) as archive:
        found: dict[str, Any] = json.load(member(archive, digest))
    return found


def member(archive: tarfile.TarFile, digest: str) -> Any:
    return archive.extractfile(f"blobs/{digest.replace(':', '/')}")


def manifest_digest(image: Image) -> str:
    with tarfile.open(image.archive) as archive:
        index = archive.extractfile("index.json")
        assert index is not None
        digest: str = json.load(index)["manifests"][0]["digest"]
    return digest


def configuration(image: Image) -> dict[str, Any]:
    return document(image, document(image, manifest_digest(image))["config"]["digest"])


def layers(image: Image) -> list[str]:
    return [layer["digest"] for layer in document(image, manifest_digest(image))["layers"]]


@functools.cache
def added(image: Image) -> list[str]:
    """The paths of all files that an image has and its base has not."""
    names: list[str] = []
    with tarfile.open(image.archive) as archive:
        for digest in layers(image)[len(layers(python_image())) :]:
            with tarfile.open(fileobj=member(archive, digest), mode="r|gz") as layer:
                names += [entry.name for entry in layer if not entry.isdir()]
    return names


@both
def test_an_image_runs_as_a_user_who_is_not_root(images: dict[str, Image], name: str) -> None:
    assert configuration(images[name])["config"]["User"] == "65532:65532"


def test_the_operators_image_runs_the_operator_unless_told_otherwise(images: dict[str, Image]) -> None:
    config = configuration(images[OPERATOR])["config"]
    assert (config["Entrypoint"], config["Cmd"]) == (["python3", "-m", "halvard"], ["operator"])


def test_the_collectors_image_runs_the_collector(images: dict[str, Image]) -> None:
    config = configuration(images[COLLECTOR])["config"]
    assert (config["Entrypoint"], config.get("Cmd")) == (["python3", "-m", "halvard_trainer.collector"], None)


@both
def test_an_image_is_labelled_with_the_version_of_the_package(images: dict[str, Image], name: str) -> None:
    labels = configuration(images[name])["config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == PROJECT["version"] == name.rpartition(":")[2]


def test_the_operators_image_describes_itself_as_the_package_does(images: dict[str, Image]) -> None:
    labels = configuration(images[OPERATOR])["config"]["Labels"]
    title, description = (labels[f"org.opencontainers.image.{label}"] for label in ("title", "description"))
    assert (title, description) == (PROJECT["name"], PROJECT["description"])


@both
def test_an_image_knows_no_address_and_no_path_of_the_machine_that_built_it(
    images: dict[str, Image], name: str
) -> None:
    text = json.dumps(configuration(images[name]))
    assert [found for found in ("://", "PIP_", str(cache()), str(REPOSITORY)) if found in text] == []


@both
def test_an_image_adds_nothing_to_its_base_but_its_packages(images: dict[str, Image], name: str) -> None:
    elsewhere = [path for path in added(images[name]) if not path.startswith(f"{CONTENT[name]}/")]
    assert elsewhere == []


@both
def test_an_image_has_the_byte_code_of_every_module(images: dict[str, Image], name: str) -> None:
    paths = [Path(path) for path in added(images[name])]
    compiled = {path.parent.parent / f"{path.name.split('.')[0]}.py" for path in paths if path.suffix == ".pyc"}
    assert {path for path in paths if path.suffix == ".py"} == compiled


def test_the_operators_image_holds_the_packages_of_the_lock(images: dict[str, Image]) -> None:
    lock = re.findall(r"^([\w.-]+)==([\w.]+)", (REPOSITORY / "requirements.lock").read_text(), re.MULTILINE)
    pattern = re.compile(r"opt/halvard/([^/]+)-([^/-]+)\.dist-info/METADATA")
    found = [match.groups() for match in map(pattern.fullmatch, added(images[OPERATOR])) if match]
    installed = {(name.lower().replace("_", "-"), version) for name, version in found}
    assert installed <= set(lock)
    assert {name for name, _ in installed} == {name for name, _ in lock}


@both
def test_an_image_built_anew_elsewhere_is_the_same(
    images: dict[str, Image], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        bases = Path(directory) / "halvard" / "images"
        bases.mkdir(parents=True)
        for stem in ("python", "pip"):
            for archive in (cache() / "images").glob(f"{stem}-*.tar"):
                shutil.copy(archive, bases)
        monkeypatch.setenv("XDG_CACHE_HOME", directory)
        again = BUILD[name]()
        assert again.archive.is_relative_to(directory)
        assert manifest_digest(again) == manifest_digest(images[name])


@pytest.fixture(scope="module")
def run_operator_image(images: dict[str, Image]) -> Iterator[Run]:
    """Runs the operator's image as Kubernetes would: its user, its environment, a read-only root, no capabilities."""
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        buildah = ("buildah", "--root", work / "store", "--runroot", work / "run", "--storage-driver", "vfs")
        container = run(*buildah, "from", "--quiet", f"oci-archive:{images[OPERATOR].archive}").strip()
        root = run(*buildah, "mount", container).strip()
        run("runc", "spec", "--bundle", work)
        bundle = json.loads((work / "config.json").read_text())
        config = configuration(images[OPERATOR])["config"]

        def run_with(*arguments: str, entrypoint: list[str] = config["Entrypoint"]) -> subprocess.CompletedProcess[str]:
            uid, gid = map(int, config["User"].split(":"))
            process = {"args": [*entrypoint, *arguments], "env": config["Env"], "user": {"uid": uid, "gid": gid}}
            bundle["process"] |= {**process, "terminal": False, "capabilities": {}}
            bundle["root"] = {"path": root, "readonly": True}
            (work / "config.json").write_text(json.dumps(bundle))
            command = ("runc", "--root", work / "runc", "run", "--bundle", work, "halvard-test-images")
            return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)

        yield run_with


def test_the_operators_image_tells_its_version(run_operator_image: Run) -> None:
    assert run_operator_image("--version").stdout == f"halvard, version {PROJECT['version']}\n"


def test_the_operators_image_says_what_the_operator_cannot_do_without(run_operator_image: Run) -> None:
    done = run_operator_image("operator")
    assert (done.returncode, done.stderr) == (
        1,
        "HALVARD_COLLECTOR_IMAGE is not set: the operator cannot do without it\n",
    )


def test_nothing_in_the_operators_image_can_be_written_to(run_operator_image: Run) -> None:
    done = run_operator_image("-c", "open('/opt/halvard/new', 'w')", entrypoint=["python3"])
    assert "Read-only file system: '/opt/halvard/new'" in done.stderr
