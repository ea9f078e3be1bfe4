import pytest

from halvard import rate
from halvard.rate import RateLimit


def test_a_bucket_is_emptied_at_once_and_refilled_slowly() -> None:
    now = [0.0]
    limit = RateLimit(10.0, 3, lambda: now[0])
    assert [limit.allows("a") for _ in range(4)] == [True, True, True, False]
    now[0] += 0.1
    assert [limit.allows("a") for _ in range(2)] == [True, False]
    now[0] += 3600
    assert [limit.allows("a") for _ in range(4)] == [True, True, True, False]


def test_everybody_has_a_bucket_of_their_own() -> None:
    limit = RateLimit(10.0, 1, lambda: 0.0)
    assert [limit.allows(name) for name in "aab"] == [True, False, True]


def test_who_was_longest_not_seen_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate, "REMEMBERED", 2)
    limit = RateLimit(10.0, 1, lambda: 0.0)
    assert [limit.allows(name) for name in "abcbca"] == [True, True, True, False, False, True]
