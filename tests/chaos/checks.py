"""What must hold after a story, whatever befell its operators."""

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace

from chaos.outcome import Outcome
from chaos.report import Report
from chaos.script import Script
from chaos.story import Story, Stuck
from halvard.trial import Trial
from history import LIVES, RULES, assert_sound, check
from lab.control_plane import ControlPlane

Trouble = Callable[[Story, Counter[str]], AbstractAsyncContextManager[None]]
"""Keeps operators of a story alive, but not in peace; counts what it does to them."""

CHECKS = len(LIVES) + len(RULES) + 2  # the outcome is as in peace; no operator was surprised


LONGEST = 3000  # characters of an error


@dataclass(frozen=True)
class Undisturbed:
    """What a script comes to in peace."""

    outcome: Outcome
    trials: tuple[Trial, ...]


_undisturbed: dict[Script, "asyncio.Task[Undisturbed]"] = {}


async def undisturbed(control_plane: ControlPlane, script: Script) -> Undisturbed:
    """Plays a script in peace, once."""

    async def play() -> Undisturbed:
        async with Story.begin(control_plane, script) as story:
            outcome = await story.run(story.operators.undisturbed())
            await story.found_by_another()
            assert_sound(story.history())
            return Undisturbed(outcome, tuple(story.trials()))

    if script not in _undisturbed:
        _undisturbed[script] = asyncio.create_task(play())
    return await asyncio.shield(_undisturbed[script])


async def judged(
    control_plane: ControlPlane, script: Script, trouble: Trouble, excused: Collection[str] = ()
) -> Report:
    """Plays a script in trouble, and reports what is not as it would have been in peace.

    `excused` are rules of the history checker that this trouble makes meaningless.
    """
    peace, faults = await undisturbed(control_plane, script), Counter[str]()
    async with Story.begin(control_plane, script) as story:
        try:
            outcome = await story.run(trouble(story, faults))
            await story.found_by_another()
            violations = outcome.differences(peace.outcome)
            broken = check(replace(story.history(), undisturbed=peace.trials))
            violations += [str(violation) for violation in broken if violation.rule not in excused]
            violations += unexpected(story)
        except Stuck as error:
            violations = [f"{error}\n{last_words(story)}"]
        return Report(faults, len(story.trials()), story.retries, CHECKS - len(excused), tuple(violations))


def unexpected(story: Story) -> list[str]:
    """Errors of our own that operators logged with a traceback: nobody foresaw them."""
    entries = re.split(r"^(?=20\d\d-|Process )", story.operators.log.read_text(), flags=re.MULTILINE)
    return [text[:LONGEST] for text in entries if " halvard." in text.partition("\n")[0] and "Traceback" in text]


def last_words(story: Story, lines: int = 30) -> str:
    """The end of what operators had to say."""
    return "\n".join(story.operators.log.read_text().splitlines()[-lines:])
