"""What is learnt of nodes from what becomes of attempts there."""

from hypothesis import given
from hypothesis import strategies as st

from halvard.nodes import FIRST_PAUSE, LATEST, LONGEST_PAUSE, Fate, Nodes, Pause

MINUTE = 60.0
NOW = 1e9


def nodes(*names: str) -> Nodes:
    """Nodes with one attempt each, of which nothing is known yet."""
    known = Nodes()
    for number, name in enumerate(names):
        known.came(name, (100 + number, 1))
    return known


def barren(known: Nodes, name: str, *trials: int, at: float = NOW) -> float:
    """Attempts of these trials come and end barren; for how long the node is avoided from the last one on."""
    return [end(known, name, trial, "barren", at) for trial in trials][-1]


def failed(known: Nodes, name: str, *trials: int, at: float = NOW) -> float:
    return [end(known, name, trial, "failed", at) for trial in trials][-1]


def end(known: Nodes, name: str, trial: int, fate: Fate, at: float) -> float:
    """The next attempt of the trial comes and ends so; one that failed had reported before."""
    leg = (trial, 1 + max((n for node in known.known.values() for (i, n), _ in node.fates if i == trial), default=0))
    known.came(name, leg)
    if fate == "failed":
        known.reported(name, leg)
    return known.ended(name, leg, at, fate)


def reported(known: Nodes, name: str, *trials: int) -> None:
    for trial in trials:
        known.came(name, (trial, 1))
        known.reported(name, (trial, 1))


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


def test_one_that_comes_later_and_reports_ends_the_row() -> None:
    known = nodes("a", "b")
    barren(known, "a", 0, 1)
    reported(known, "a", 7)
    assert barren(known, "a", 2, 3) == 0
    assert barren(known, "a", 4) == FIRST_PAUSE


def test_one_that_came_before_and_goes_on_reporting_says_nothing_of_what_came_since() -> None:
    known = nodes("a", "b")
    reported(known, "a", 7)
    known.came("a", (8, 1))
    barren(known, "a", 0, 1)
    known.reported("a", (7, 1))
    known.reported("a", (8, 1))
    assert barren(known, "a", 2) == FIRST_PAUSE


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
    known.came("b", (100, 1))
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
    reported(known, "", 7)
    assert barren(known, "", 0, 1, 2) == 0
    assert not known.suspect("", 3, NOW, "barren")
    assert known == Nodes()


# --- who is suspect


def test_a_node_is_suspect_to_the_third_trial_that_comes_to_nothing_while_the_others_do_better() -> None:
    known = nodes("a", "b")
    barren(known, "a", 0, 1)
    assert known.suspect("a", 2, NOW, "barren")
    assert not known.suspect("a", 1, NOW, "barren")
    barren(known, "b", 3)
    assert not known.suspect("a", 2, NOW, "barren")
    reported(known, "b", 4, 5, 6, 7)
    assert not known.suspect("a", 2, NOW, "barren")
    barren(known, "a", 8, 9)
    assert known.suspect("a", 2, NOW, "barren")


def test_healthy_trials_beside_them_do_not_clear_a_node() -> None:
    known = nodes("a", "b")
    for each in range(4):
        reported(known, "a", 10 * each, 10 * each + 1, 10 * each + 2)
        barren(known, "a", 10 * each + 3)
    assert known.suspect("a", 99, NOW, "barren")
    reported(known, "a", *range(200, 200 + LATEST))
    assert not known.suspect("a", 99, NOW, "barren")


def test_a_node_is_suspect_to_the_fourth_trial_that_fails_after_its_report_and_avoided_from_then_on() -> None:
    known = nodes("a", "b")
    reported(known, "b", 10, 11, 12)
    assert failed(known, "a", 0, 1, 2) == 0
    assert known.suspect("a", 3, NOW, "failed")
    assert not known.suspect("a", 2, NOW, "failed")
    assert failed(known, "a", 3) == FIRST_PAUSE
    assert known.avoided_by(3, NOW) == ("a",)


def test_where_trials_fail_on_all_nodes_none_is_suspect() -> None:
    known = nodes("a", "b")
    failed(known, "a", 0, 1, 2)
    failed(known, "b", 3, 4)
    assert not known.suspect("a", 5, NOW, "failed")
    assert failed(known, "a", 6) == 0


def test_of_several_bad_nodes_those_that_are_avoided_are_no_excuse_for_another() -> None:
    known = nodes("a", "b", "c")
    barren(known, "a", 0, 1, 2)
    barren(known, "b", 3, 4)
    assert known.avoided(NOW) == {"a"}
    assert known.suspect("b", 5, NOW, "barren")


def test_the_only_node_is_not_suspect() -> None:
    known = nodes("a")
    barren(known, "a", 0, 1, 2)
    assert not known.suspect("a", 3, NOW, "barren")


# --- at any time


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcd"),
            st.integers(0, 9),
            st.floats(0, 7200),
            st.sampled_from(["open", "reported", "barren", "failed"]),
        ),
        max_size=60,
    )
)
def test_some_node_is_always_left_and_no_pause_is_longer_than_an_hour(
    story: list[tuple[str, int, float, Fate]],
) -> None:
    known, now = Nodes(), NOW
    for number, (name, trial, seconds, fate) in enumerate(story):
        now += seconds
        known.came(name, (trial, number))
        if fate in ("reported", "failed"):
            known.reported(name, (trial, number))
        if fate in ("barren", "failed"):
            known.ended(name, (trial, number), now, fate)
        assert {*known.avoided_by(trial, now)} < known.known.keys()
        assert known.avoided(now) <= {*known.avoided_by(trial, now)}
        assert known.avoided(now + LONGEST_PAUSE) == set()
        assert all(len(node.fates) <= LATEST for node in known.known.values())


@given(st.lists(st.floats(0, 20_000), min_size=1))
def test_in_a_pause_nothing_is_tried_and_it_ends(gaps: list[float]) -> None:
    pause, at = Pause(), NOW
    for gap in gaps:
        at += gap
        pause = pause.again(at)
        assert at + FIRST_PAUSE <= pause.until <= at + LONGEST_PAUSE
