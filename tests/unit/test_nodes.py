"""What is learnt of nodes from the attempts that end there."""

from hypothesis import given
from hypothesis import strategies as st

from halvard.nodes import FIRST_PAUSE, LONGEST_PAUSE, MANY, Nodes, Pause

MINUTE = 60.0
NOW = 1e9


def nodes(*names: str) -> Nodes:
    seen = Nodes()
    for name in names:
        seen.seen(name)
    return seen


def barren(known: Nodes, name: str, *trials: int, at: float = NOW) -> float:
    """Attempts of these trials end barren there; for how long the node is avoided from the last one on."""
    return [known.ended(name, trial, at) for trial in trials][-1]


# --- who is avoided


def test_the_third_trial_in_a_row_makes_a_node_be_avoided_for_five_minutes() -> None:
    known = nodes("a", "b")
    assert (barren(known, "a", 0), barren(known, "a", 1), barren(known, "a", 2)) == (0, 0, FIRST_PAUSE)
    assert known.avoided(NOW + FIRST_PAUSE - 1) == {"a"}
    assert known.avoided(NOW + FIRST_PAUSE) == set()


def test_the_same_trial_counts_once() -> None:
    known = nodes("a", "b")
    assert barren(known, "a", 0, 1, 0, 0, 1) == 0
    assert known.avoided(NOW) == set()


def test_a_report_from_the_node_ends_the_row() -> None:
    known = nodes("a", "b")
    barren(known, "a", 0, 1)
    known.reported("a")
    assert barren(known, "a", 2, 3) == 0
    assert barren(known, "a", 4) == FIRST_PAUSE


def test_each_time_that_it_goes_on_after_the_pause_the_next_is_twice_as_long_up_to_an_hour() -> None:
    known, at, pauses = nodes("a", "b"), NOW, []
    barren(known, "a", 0, 1, at=at)
    for trial in range(2, 9):
        pauses.append(barren(known, "a", trial, at=at) / MINUTE)
        at += pauses[-1] * MINUTE + 1
    assert pauses == [5, 10, 20, 40, 60, 60, 60]


def test_those_that_were_on_their_way_make_the_pause_no_longer_and_are_told_of_once() -> None:
    known = nodes("a", "b")
    assert barren(known, "a", 0, 1, 2) == FIRST_PAUSE
    assert barren(known, "a", 3, 4, 5, at=NOW + MINUTE) == 0
    assert known.avoided(NOW + MINUTE + FIRST_PAUSE - 1) == {"a"}
    assert known.avoided(NOW + MINUTE + FIRST_PAUSE) == set()


def test_what_was_an_hour_ago_is_forgotten() -> None:
    known = nodes("a", "b")
    barren(known, "a", 0, 1, 2)
    assert barren(known, "a", 3, at=NOW + FIRST_PAUSE + LONGEST_PAUSE) == FIRST_PAUSE


def test_one_node_alone_is_never_avoided_and_where_all_would_be_none_is() -> None:
    known = nodes("a")
    assert barren(known, "a", 0, 1, 2) == 0
    known.seen("b")
    assert known.avoided(NOW) == {"a"}
    assert barren(known, "b", 0, 1, 2) == 0
    assert known.avoided(NOW) == set()
    assert known.avoided_by(9, NOW) == ()
    assert len(known.avoided_by(0, NOW)) == 1


def test_a_leg_leaves_the_node_where_it_was_barren_and_others_may_go_there() -> None:
    known = nodes("a", "b")
    barren(known, "a", 7)
    assert known.avoided_by(7, NOW) == ("a",)
    assert known.avoided_by(8, NOW) == ()
    assert known.avoided_by(7, NOW + FIRST_PAUSE) == ()
    assert [*known.changes(NOW)] == [NOW + FIRST_PAUSE]


def test_a_leg_leaves_it_for_longer_each_time_that_it_came_back_in_vain() -> None:
    known = nodes("a", "b")
    barren(known, "a", 7)
    barren(known, "a", 7, at=NOW + FIRST_PAUSE)
    assert known.avoided_by(7, NOW + 3 * FIRST_PAUSE - 1) == ("a",)
    assert known.avoided_by(7, NOW + 3 * FIRST_PAUSE) == ()


def test_a_leg_has_always_some_node_left() -> None:
    known = nodes("a", "b", "c")
    barren(known, "a", 0, 1, 2)
    barren(known, "b", 3)
    assert known.avoided_by(3, NOW) == ("a", "b")
    barren(known, "b", 4, 5)
    assert (known.avoided_by(3, NOW), known.avoided_by(6, NOW)) == (("a", "b"), ("a", "b"))
    barren(known, "c", 3)
    assert known.avoided_by(3, NOW) == ("a", "b")


def test_without_a_name_nothing_is_learnt() -> None:
    known = nodes("")
    known.reported("")
    assert barren(known, "", 0, 1, 2) == 0
    assert not known.suspect("", 3)
    assert known == Nodes()


# --- who is suspect


def test_a_node_is_suspect_to_the_third_trial_in_a_row_while_another_one_does_better() -> None:
    known = nodes("a", "b")
    barren(known, "a", 0, 1)
    assert known.suspect("a", 2)
    assert not known.suspect("a", 1)
    barren(known, "b", 3, 4)
    assert not known.suspect("a", 2)


def test_the_only_node_is_not_suspect() -> None:
    known = nodes("a")
    barren(known, "a", 0, 1, 2)
    assert not known.suspect("a", 3)


# --- at any time


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcd"), st.integers(0, 9), st.floats(0, 7200), st.sampled_from(["ended", "reported"])
        ),
        max_size=60,
    )
)
def test_some_node_is_always_left_and_no_pause_is_longer_than_an_hour(
    story: list[tuple[str, int, float, str]],
) -> None:
    known, now = Nodes(), NOW
    for name, trial, seconds, what in story:
        now += seconds
        known.seen(name)
        if what == "reported":
            known.reported(name)
        else:
            known.ended(name, trial, now)
        assert {*known.avoided_by(trial, now)} < known.known.keys()
        assert known.avoided(now) <= {*known.avoided_by(trial, now)}
        assert known.avoided(now + LONGEST_PAUSE) == set()
        assert all(len(node.barren) <= MANY for node in known.known.values())


@given(st.lists(st.floats(0, 20_000), min_size=1))
def test_in_a_pause_nothing_is_tried_and_it_ends(gaps: list[float]) -> None:
    pause, at = Pause(), NOW
    for gap in gaps:
        at += gap
        pause = pause.again(at)
        assert at + FIRST_PAUSE <= pause.until <= at + LONGEST_PAUSE
