"""What is known of nodes from what becomes of attempts there: which may be to blame, and which are avoided. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

FIRST_PAUSE, LONGEST_PAUSE = 300.0, 3600.0
MANY = 3  # distinct trials until a node is avoided; of one less, it is suspect to the next
LATEST = 32  # attempts of a node that are remembered

Leg = tuple[int, int]  # trial and attempt
Fate = Literal["open", "reported", "barren", "failed"]
"""What became of an attempt: barren is one that ended with a fault before it had made a report, failed one after it."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Until when something is not to be tried; it doubles each time that it was over and nothing had changed."""

    until: float = 0.0
    seconds: float = 0.0

    def again(self, at: float) -> "Pause":
        """It failed again: either it was on its way already, or it was the first since the pause was over."""
        if at < self.until:
            return replace(self, until=at + self.seconds)
        if not self.seconds or at >= self.until + LONGEST_PAUSE:  # the last was long ago: that was something else
            return Pause(at + FIRST_PAUSE, FIRST_PAUSE)
        seconds = min(LONGEST_PAUSE, 2 * self.seconds)
        return Pause(at + seconds, seconds)


@dataclass(frozen=True, slots=True)
class Node:
    """One node: what became of the latest attempts there, in the order in which they came, and its pause."""

    fates: tuple[tuple[Leg, Fate], ...] = ()
    pause: Pause = Pause()

    def with_fate(self, leg: Leg, fate: Fate) -> "Node":
        """This became of an attempt, which is the latest where it was not known."""
        fates = tuple((each, fate if each == leg else known) for each, known in self.fates)
        return replace(self, fates=fates if leg in dict(fates) else (*fates, (leg, fate))[-LATEST:])

    def came(self) -> set[int]:
        """The trials that came there."""
        return {trial for (trial, _), _ in self.fates}

    def lost(self) -> set[int]:
        """Those that came to nothing there."""
        return {trial for (trial, _), fate in self.fates if fate in ("barren", "failed")}

    def barren_in_a_row(self) -> set[int]:
        """The trials that came to nothing there since the latest one that could report had come."""
        row = set[int]()
        for (trial, _), fate in reversed(self.fates):
            if fate in ("reported", "failed"):
                break
            row |= {trial} if fate == "barren" else set()
        return row


UNKNOWN = Node()


@dataclass(slots=True)
class Nodes:
    """The nodes of a study by name; without a name nothing is learnt.

    `left`: by trial, where it came to nothing; `pardons`: its latest attempt that a node was blamed for, and which.
    """

    known: dict[str, Node] = field(default_factory=dict)
    left: dict[int, dict[str, Pause]] = field(default_factory=dict)
    pardons: dict[int, tuple[int, str]] = field(default_factory=dict)

    def came(self, name: str, leg: Leg) -> None:
        """An attempt has its place there."""
        if name and leg not in dict(self.known.get(name, UNKNOWN).fates):
            self._learn(name, leg, "open")

    def reported(self, name: str, leg: Leg) -> None:
        """A report came from there; it says nothing of what came there after its attempt."""
        if name in self.known and (leg, "open") in self.known[name].fates:
            self._learn(name, leg, "reported")

    def ended(self, name: str, leg: Leg, at: float, fate: Fate) -> float:
        """An attempt ended so there, and if its trial runs again, that is elsewhere for now.

        Returns for how many seconds all are to avoid the node where that begins now, else 0.
        """
        if not name:
            return 0.0
        self._learn(name, leg, fate)
        node, trial = self.known[name], leg[0]
        many = len(node.barren_in_a_row()) >= MANY if fate == "barren" else self.suspect(name, trial, at, fate)
        after = self.known[name] = replace(node, pause=node.pause.again(at) if many else node.pause)
        left = self.left.setdefault(trial, {})
        left[name] = left.get(name, Pause()).again(at)
        begins = node.pause.until <= at < after.pause.until
        return after.pause.seconds if begins and name in self.avoided(at) else 0.0

    def suspect(self, name: str, trial: int, at: float, fate: Fate) -> bool:
        """Whether the node, not the trial, may be to blame where that came to this there.

        Two others came to nothing there (three, where it had reported), besides twice as many as would if it was like
        the other nodes that are in use.
        """
        here = self.known.get(name, UNKNOWN)
        others = [node for other, node in self.known.items() if other != name]
        elsewhere = [node for node in others if node.pause.until <= at] or others
        least = MANY - 1 if fate == "barren" else MANY
        beyond, came = len(here.lost() - {trial}) - least, len(here.came() - {trial})
        usual, all_there = sum(len(node.lost()) for node in elsewhere), sum(len(node.came()) for node in elsewhere)
        return bool(elsewhere) and beyond * all_there >= 2 * came * usual

    def avoided(self, now: float) -> frozenset[str]:
        """Returns the nodes that nobody is to run on now; none where none would be left."""
        names = frozenset(name for name, node in self.known.items() if node.pause.until > now)
        return names if len(names) < len(self.known) else frozenset()

    def avoided_by(self, trial: int, now: float) -> tuple[str, ...]:
        """Returns those that this trial is not to run on now."""
        names, left = self.avoided(now), self.left.get(trial, {})
        for name in sorted(left, key=lambda name: -left[name].until):  # the latest first
            if left[name].until > now and len(names | {name}) < len(self.known):
                names |= {name}
        return tuple(sorted(names))

    def paused(self, trial: int, now: float) -> tuple[str, ...]:
        """Returns all that this trial would better not run on, whether or not one is left that is known."""
        pauses = [(name, node.pause) for name, node in self.known.items()] + [*self.left.get(trial, {}).items()]
        return tuple(sorted({name for name, pause in pauses if pause.until > now}))

    def changes(self, now: float) -> Iterator[float]:
        """Yields when nodes may be tried again."""
        pauses = [node.pause for node in self.known.values()]
        pauses += [pause for left in self.left.values() for pause in left.values()]
        yield from (pause.until for pause in pauses if pause.until > now)

    def _learn(self, name: str, leg: Leg, fate: Fate) -> None:
        self.known[name] = self.known.get(name, UNKNOWN).with_fate(leg, fate)
