"""What the user has to say about exit codes: `spec.failurePolicy`, shaped like a Job's podFailurePolicy. Pure."""

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from halvard.events import Fault
from halvard.model import Model, distinct

Action = Literal["Ignore", "FailTrial", "FailStudy"]
ExitCode = Annotated[int, Field(ge=1, le=255)]


class OnExitCodes(Model):
    """Exit codes of the trainer, or all others; 128 + n stands for a program that was killed by signal n."""

    operator: Literal["In", "NotIn"]
    values: Annotated[tuple[ExitCode, ...], Field(min_length=1, max_length=255), AfterValidator(distinct)]

    def match(self, exit_code: int) -> bool:
        """Whether they are about this exit code."""
        return (exit_code in self.values) == (self.operator == "In")


class FailureRule(Model):
    """What to make of a trainer that ended with one of these exit codes, and by itself."""

    action: Action
    on_exit_codes: OnExitCodes


class FailurePolicy(Model):
    """Rules in order: the first that matches decides, and without a match the trial fails."""

    rules: Annotated[tuple[FailureRule, ...], Field(min_length=1, max_length=20)]

    def action(self, exit_code: int | None) -> Action | None:
        """Returns what the first rule that matches says; None where none does, or there is no exit code but 0."""
        if not exit_code:
            return None
        return next((rule.action for rule in self.rules if rule.on_exit_codes.match(exit_code)), None)

    def judged(self, fault: Fault) -> Fault:
        """Returns the fault as the user wants it to be seen: with Ignore, it does not count."""
        action = self.action(fault.exit_code)
        if action is None:
            return fault
        message = f"{fault.message} (failurePolicy: {action})"
        return replace(fault, message=message, counted=action != "Ignore")
