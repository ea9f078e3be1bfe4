"""What a failure policy makes of one fault."""

import pytest

from halvard.events import Fault
from halvard.failure_policy import FailurePolicy
from halvard.faults import fault_of
from podstatus import condition, exited, pod

POLICY = FailurePolicy.model_validate(
    {"rules": [{"action": "Ignore", "onExitCodes": {"operator": "NotIn", "values": [1]}}]}
)


def test_a_trainer_that_did_not_end_by_itself_with_a_code_is_none_of_its_business() -> None:
    for fault in (Fault("MetricsUnavailable", "exit 0", counted=True), Fault("Evicted", "disk", counted=False)):
        assert POLICY.judged(fault) is fault


@pytest.mark.parametrize(("code", "reason"), [(42, "Error"), (137, "OOMKilled"), (139, "Error"), (128, "StartError")])
def test_the_exit_code_is_the_one_that_the_pod_shows(code: int, reason: str) -> None:
    fault = fault_of(pod(exited(code, reason=reason)))
    assert (fault.exit_code, fault.counted, POLICY.judged(fault).counted) == (code, True, False)


def test_a_disturbed_trainers_exit_code_means_nothing() -> None:
    disrupted = condition("DisruptionTarget", "EvictionByEvictionAPI")
    fault = fault_of(pod(exited(1), conditions=[disrupted]))
    assert (fault.exit_code, fault.counted) == (None, False)
