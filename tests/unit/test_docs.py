"""What the documentation says is so: commands, manifests, settings and metrics."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import yaml
from click.testing import CliRunner

from halvard import observe, operator
from halvard.apply import POD_NOT_CREATED, POD_REFUSED, QUOTA_EXHAUSTED, TEMPLATE_NOT_ALLOWED
from halvard.cache import Cache
from halvard.cli import main
from halvard.contract import environment
from halvard.endpoint import Result
from halvard.faults import CONFIGURATION, INFRASTRUCTURE
from halvard.metrics import Metrics, Phase
from halvard.progress import TOO_MANY_FAULTS
from halvard.status import Spent
from halvard.study import Study, StudySpec
from halvard.study_status import Condition, TrialCounts
from halvard.trial import Trial, TrialSpec

ROOT = Path(__file__).parents[2]
DOCKERFILES = ("operator/Dockerfile", "trainer-image/Dockerfile", "examples/digits/Dockerfile")
FIELDS = [field.alias for field in StudySpec.model_fields.values()]
PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("README.md")]
TEXT = {page.relative_to(ROOT).as_posix(): page.read_text() for page in PAGES}


def blocks(language: str) -> list[str]:
    return [block for text in TEXT.values() for block in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)]


def table(page: str, heading: str) -> str:
    section = TEXT[page].split(f"## {heading}\n", 1)[1]
    return section.split("\n## ", 1)[0]


def first_column(text: str) -> set[str]:
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


@pytest.mark.parametrize("page", TEXT)
def test_links_lead_to_files_that_exist(page: str) -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)", TEXT[page])
    assert [link for link in links if not ((ROOT / page).parent / link).exists()] == []


def test_make_commands_exist() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for text in TEXT.values() for name in re.findall(r"(?:`|^)make ([a-z0-9-]+)", text, re.MULTILINE)}
    assert {"demo", "test", "e2e", "help"} <= named
    assert named <= targets


def test_halvard_commands_exist() -> None:
    named = {name for text in TEXT.values() for name in re.findall(r"`halvard ([a-z]+)", text)}
    assert named == set(main.commands)
    assert all(CliRunner().invoke(main, [name, "--help"]).exit_code == 0 for name in named)


def test_files_named_in_shell_blocks_exist() -> None:
    files = {word for block in blocks("sh") for word in re.findall(r"(?:-f|run|sed \S+) ([^-\s]\S*)", block)}
    assert files
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_an_installation_names_its_registry_and_an_upgrade_forgets_nothing() -> None:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    installs = [line for line in lines if line.startswith("helm install ")]
    upgrades = [line for line in lines if line.startswith("helm upgrade ")]
    assert (len(installs), len(upgrades)) == (2, 3)
    for image, value in (("operator", "image"), ("collector", "collector.image")):
        assert [line for line in installs if f" --set {value}.repository=$REGISTRY/{image}" not in line] == []
    assert [line for line in upgrades if "--reset-then-reuse-values" not in line] == []
    assert [line for line in lines if re.search(r"--set [^'\s]*\[", line)] == []  # a pattern, to some shells


def test_the_images_are_built_on_one_base_that_there_is() -> None:
    files = [(ROOT / name).read_text() for name in DOCKERFILES]
    assert [re.findall(r"^ARG BASE=(.*)$", file, re.MULTILINE) for file in files] == [["python:3.12-slim"]] * 3


def test_the_examples_numpy_is_one_that_halvard_is_tested_with() -> None:
    [numpy] = re.findall(r"\bnumpy==\S+", (ROOT / "examples/digits/Dockerfile").read_text())
    assert f"\n{numpy} " in (ROOT / "requirements.lock").read_text()


def test_the_library_is_taken_from_where_the_collectors_image_has_it() -> None:
    [block] = blocks("dockerfile")
    image = (ROOT / "trainer-image/Dockerfile").read_text()
    for line in ("/opt/halvard /opt/halvard", "ENV PYTHONPATH=/opt/halvard"):
        assert line in block
        assert line in image


def test_studies_in_the_documentation_are_valid() -> None:
    manifests = [yaml.safe_load(block) for block in blocks("yaml") if block.startswith("apiVersion: halvard.dev")]
    assert [Study.from_manifest(manifest).name for manifest in manifests] == ["cifar-resnet"]


def test_parts_of_a_study_in_the_documentation_are_valid() -> None:
    [whole] = [yaml.safe_load(block) for block in blocks("yaml") if block.startswith("apiVersion: halvard.dev")]
    spec = {**whole["spec"], "objective": {"metric": "val_loss", "goal": "minimize"}}
    parts = [part for block in blocks("yaml") if (part := yaml.safe_load(block)).keys() <= set(FIELDS)]
    assert {field for part in parts for field in part} >= {"failurePolicy", "collector"}
    for part in parts:
        Study.from_manifest({**whole, "spec": {**spec, **part}})


def test_every_setting_of_the_operator_is_documented() -> None:
    source = Path(operator.__file__).read_text()
    read = set(re.findall(r'"(HALVARD_[A-Z_]+|KUBECONFIG)"', source))
    assert first_column(table("docs/operator.md", "Settings")) == read


def test_every_reason_of_a_condition_is_documented() -> None:
    words = r'Outcome\("(?:Complete|Failed)", "(\w+)"|"(Suspend[A-Z]\w+)"|"(Recovered)"|^[A-Z_]+ = "([A-Z]\w+)"$'
    sources = (
        ROOT / "operator/halvard" / name
        for name in ("ending.py", "status.py", "diagnosis.py", "apply.py", "reconcile.py")
    )
    found = [match for source in sources for match in re.findall(words, source.read_text(), re.MULTILINE)]
    reasons = {reason for match in found for reason in match if reason}
    assert {"TrialsFinished", "SuspendSet", "Recovered", "QuotaExhausted", "InvalidSpec"} <= reasons
    assert first_column(table("docs/operator.md", "Conditions")) >= reasons


def test_every_reason_of_degraded_is_on_the_page_on_troubles_and_no_other() -> None:
    source = "".join((ROOT / "operator/halvard" / name).read_text() for name in ("apply.py", "reconcile.py"))
    refusals = set(re.findall(r'^[A-Z_]+ = "([A-Z]\w+)"$', source, re.MULTILINE))
    reasons = {*refusals, *observe._STUCK, TOO_MANY_FAULTS}
    assert first_column(table("docs/troubleshooting.md", "Degraded")) == reasons


def test_every_metric_is_documented_with_its_type_and_every_documented_one_is_exposed() -> None:
    exposed = {
        family.name + {"counter": "_total", "info": "_info"}.get(family.type, ""): family.type
        for family in Metrics(Cache()).registry.collect()
        if family.name.startswith("halvard_")
    }
    assert dict(re.findall(r"^\| `(halvard_\w+)` \| (\w+) \|", TEXT["docs/metrics.md"], re.MULTILINE)) == exposed


LABEL_VALUES = [
    ("state", [name for name in TrialCounts.model_fields if name != "total"]),
    ("outcome", get_args(get_type_hints(Spent)["outcome"])),
    ("phase", get_args(Phase)),
    ("condition", get_args(Condition.model_fields["type"].annotation)),
    ("result", get_args(Result)),
    ("reason of class infrastructure", INFRASTRUCTURE),
    ("reason of class configuration", CONFIGURATION),
    ("reason of Pods not created", (QUOTA_EXHAUSTED, POD_REFUSED, POD_NOT_CREATED, TEMPLATE_NOT_ALLOWED)),
]


@pytest.mark.parametrize(("label", "values"), LABEL_VALUES, ids=[label for label, _ in LABEL_VALUES])
def test_every_value_of_a_label_is_documented(label: str, values: Sequence[str]) -> None:
    [row] = re.findall(rf"^\| {label} \| (.*) \|$", TEXT["docs/metrics.md"], re.MULTILINE)
    assert re.findall(r"`(\w+)`", row) == list(values)


def test_the_trials_environment_is_documented() -> None:
    study = Study.from_manifest(yaml.safe_load((ROOT / "examples/digits/study.yaml").read_text()))
    trial = Trial(name="t", spec=TrialSpec(index=0, budget=1, parameters={"lr": 0.1}))
    given = environment(study, trial, 0, reports="r", verdict="v", checkpoint_dir="c", resume_from="")
    names = {"HALVARD_PARAM_<NAME>" if name.startswith("HALVARD_PARAM_") else name for name in given}
    assert first_column(TEXT["docs/trials.md"]) >= names
