"""What a leg runs on this machine."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from halvard.local.program import expand, gpus, notices, program


def template(**trainer: Any) -> dict[str, Any]:
    container = {"name": "trainer", "image": "registry.example.com/digits:1", "command": ["python3"], **trainer}
    return {"spec": {"containers": [container]}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("--lr=$(LR)", "--lr=0.1"),
        ("$(LR)$(LR)", "0.10.1"),
        ("$(MISSING)", "$(MISSING)"),
        ("$$(LR)", "$(LR)"),
        ("$$$(LR)", "$0.1"),
        ("$LR ${LR} $", "$LR ${LR} $"),
        ("$(LR", "$(LR"),
        ("$()", "$()"),
    ],
)
def test_variables_are_expanded_as_the_kubelet_does(text: str, expected: str) -> None:
    assert expected == expand(text, {"LR": "0.1"})


def test_the_command_sees_the_contract_and_the_env_that_was_set_before() -> None:
    env = [{"name": "RATE", "value": "$(HALVARD_PARAM_LR)"}, {"name": "BOTH", "value": "$(RATE)/$(LATER)"}]
    what = program(template(args=["--lr=$(RATE)", "$(BOTH)"], env=env), {"HALVARD_PARAM_LR": "0.1"}, {})

    assert what.arguments == ("python3", "--lr=0.1", "0.1/$(LATER)")
    assert (what.environment["RATE"], what.environment["BOTH"]) == ("0.1", "0.1/$(LATER)")


def test_the_contract_wins_over_the_template_and_over_what_is_inherited() -> None:
    env = [{"name": "HALVARD_BUDGET", "value": "1"}]
    inherited = {"HALVARD_BUDGET": "2", "HALVARD_PARAM_MOMENTUM": "0.9", "HOME": "/home/someone"}
    environment = program(template(env=env), {"HALVARD_BUDGET": "9"}, inherited).environment

    assert environment["HALVARD_BUDGET"] == "9"
    assert "HALVARD_PARAM_MOMENTUM" not in environment
    assert environment["HOME"] == "/home/someone"


def test_the_running_interpreter_is_the_first_python_on_the_path() -> None:
    path = program(template(), {}, {"PATH": "/usr/bin"}).environment["PATH"]
    assert [str(Path(sys.executable).parent), "/usr/bin"] == path.split(os.pathsep)


def test_what_means_nothing_on_this_machine_is_said() -> None:
    env = [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "token", "key": "token"}}}]
    with_more = template(env=env, envFrom=[{"configMapRef": {"name": "settings"}}])
    with_more["spec"]["initContainers"] = [{"name": "fetch"}]
    trainer = next(each for each in with_more["spec"]["containers"] if each["name"] == "trainer")
    trainer["resources"] = {"limits": {"amd.com/gpu": 1, "nvidia.com/gpu": 1, "memory": "1Gi"}}

    expected = [
        "env with valueFrom is not set on this machine: TOKEN",
        "envFrom is ignored on this machine",
        "only nvidia.com/gpu is lent out on this machine, not amd.com/gpu",
        "only the container trainer runs on this machine, not fetch",
    ]
    assert expected == notices(with_more)
    assert "TOKEN" not in program(with_more, {}, {}).environment


def test_a_plain_template_needs_no_notice() -> None:
    assert notices(template()) == []


@pytest.mark.parametrize(("limits", "expected"), [({}, 0), ({"cpu": "2"}, 0), ({"nvidia.com/gpu": 2}, 2)])
def test_the_gpus_of_a_trial_are_those_in_its_limits(limits: dict[str, Any], expected: int) -> None:
    assert expected == gpus(template(resources={"limits": limits}))


def test_a_number_of_gpus_may_be_written_as_text() -> None:
    assert gpus(template(resources={"limits": {"nvidia.com/gpu": "2"}})) == 2
