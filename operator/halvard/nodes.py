"""What is known of nodes from the attempts that ended there: which may be to blame, and which are avoided. Pure.

An attempt is barren that ended with a fault before it had made a report.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

FIRST_PAUSE, LONGEST_PAUSE = 300.0, 3600.0
MANY = 3  # distinct trials in a row, until a node is avoided; of one less, it is suspect to the next


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
    """One node: the latest trials that were barren there in a row, since a report last came from it."""

    barren: tuple[int, ...] = ()
    pause: Pause = Pause()

    def ended(self, trial: int, at: float) -> "Node":
        """An attempt of this trial ended barren."""
        barren = (*(other for other in self.barren if other != trial), trial)[-MANY:]
        return replace(self, barren=barren, pause=self.pause.again(at) if len(barren) == MANY else self.pause)


UNKNOWN = Node()


@dataclass(slots=True)
class Nodes:
    """The nodes of a study by name, and where trials were barren last; without a name nothing is learnt."""

    known: dict[str, Node] = field(default_factory=dict)
    left: dict[int, dict[str, Pause]] = field(default_factory=dict)  # by trial: where it was barren
    pardons: dict[int, int] = field(default_factory=dict)  # by trial: its latest attempt that a node was blamed for

    def seen(self, name: str) -> None:
        """An attempt has its place there."""
        if name:
            self.known.setdefault(name, UNKNOWN)

    def reported(self, name: str) -> None:
        """A report came from there."""
        if name:
            self.known[name] = replace(self.known.get(name, UNKNOWN), barren=())

    def ended(self, name: str, trial: int, at: float) -> float:
        """An attempt ended barren there, and its trial goes elsewhere for now.

        Returns for how many seconds all are to avoid the node where that begins now, else 0.
        """
        if not name:
            return 0.0
        before = self.known.get(name, UNKNOWN)
        after = self.known[name] = before.ended(trial, at)
        left = self.left.setdefault(trial, {})
        left[name] = left.get(name, Pause()).again(at)
        begins = before.pause.until <= at < after.pause.until
        return after.pause.seconds if begins and name in self.avoided(at) else 0.0

    def suspect(self, name: str, trial: int) -> bool:
        """Whether the node, not the trial, may be to blame for a barren end there that is not learnt yet.

        Others were barren there in a row, and another node is known that does better.
        """
        others = [node for other, node in self.known.items() if other != name]
        in_a_row = {*self.known.get(name, UNKNOWN).barren} - {trial}
        return len(in_a_row) >= MANY - 1 and any(len(other.barren) < MANY - 1 for other in others)

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
