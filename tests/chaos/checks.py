"""What must hold after a story, whatever befell its operators."""

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace

from chaos.operators import ENDED
from chaos.outcome import Outcome
from chaos.report import Report
from chaos.script import Script
from chaos.story import Story, Stuck
from halvard.trial import Trial
from history import LIVES, RULES, History, Rule, assert_sound, check
from lab.control_plane import ControlPlane

Operators = AbstractAsyncContextManager[object]
"""Keeps operators alive."""
Trouble = Callable[[Story, Counter[str]], Operators]
"""Keeps operators of a story alive, but not in peace; counts what it does to them."""
Play = Callable[[Story, Operators], Awaitable[list[str]]]
"""Plays a story to its end; what is not as it should be then, the history aside."""

CHECKS = len(LIVES) + len(RULES) + 2  # what `Play` finds; no operator was surprised
LONGEST = 3000  # characters of an error
ENTRY = re.compile(rf"^(?=20\d\d-|Process |Exception ignored |{ENDED})", re.MULTILINE)  # of a log: where one begins
EXPECTED = {
    r"(?s)kopf/_cogs/clients/(?:(?!/halvard/).)*$": "kopf gives up where a watch fails in a way it does not know",
    r"(?s)request_cancel_callback.*assert task is not None.*\nAssertionError$": "a watch of kopf's that is over anyway",
    r"(?s)async_generator object infinite_watch .*generator didn't stop after athrow\(\)$": "the same",
    r"(?s)aiotasks\.reraise\(root_done.*\n[ |]*halvard\.(kube|identity)\.Unavailable: ": "kopf has given up, and "
    "raises what any request had met that began after kopf did",
}
"""Tracebacks that are no violation: a regular expression that finds them, and why they are none.

Where kopf gives up, the operator ends, and is started again: that is seen in how its process `ended`.
"""


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
    control_plane: ControlPlane,
    script: Script,
    trouble: Trouble,
    known: Callable[[History], History] = lambda history: history,
) -> Report:
    """Plays a script in trouble, and reports what is not as it would have been in peace; `known`: see `held`."""
    peace = await undisturbed(control_plane, script)

    async def play(story: Story, operators: Operators) -> list[str]:
        return (await story.run(operators)).differences(peace.outcome)

    def with_peace(history: History) -> History:
        return replace(known(history), undisturbed=peace.trials)

    return await held(control_plane, script, trouble, play, known=with_peace)


async def held(
    control_plane: ControlPlane,
    script: Script,
    trouble: Trouble,
    play: Play,
    *,
    excused: Collection[Rule] = (),
    known: Callable[[History], History] = lambda history: history,
) -> Report:
    """Plays a script in trouble, and reports which rules do not hold.

    `excused` are those that this trouble makes meaningless; `known`: adds to the history what is known, and how well.
    """
    faults = Counter[str]()
    async with Story.begin(control_plane, script) as story:
        try:
            violations = await play(story, trouble(story, faults))
            await story.found_by_another()
            broken = check(known(story.history()))
            violations += [str(violation) for violation in broken if violation.rule not in excused]
        except Stuck as error:
            violations = [f"{error}\n{last_words(story)}"]
        log = story.operators.log.read_text()
        violations += unexpected(log)
        checks = CHECKS - len(excused)
        return Report(
            faults, ends(log, story.scene.namespace), len(story.trials()), story.retries, checks, tuple(violations)
        )


def unexpected(log: str) -> list[str]:
    """Every traceback that operators logged, whoever caught it or did not, but for those that are expected."""
    found = [text.strip() for text in ENTRY.split(log) if "Traceback (most recent call last)" in text]
    return [text[-LONGEST:] for text in found if not any(re.search(pattern, text) for pattern in EXPECTED)]


def ends(log: str, namespace: str) -> Counter[str]:
    """What operators that were not killed said last, whatever the namespace."""
    said = (line for line in log.splitlines() if line.startswith(ENDED))
    return Counter(line.replace(namespace, "NAMESPACE") for line in said)


def last_words(story: Story, lines: int = 30) -> str:
    """The end of what operators had to say."""
    return "\n".join(story.operators.log.read_text().splitlines()[-lines:])
