import pytest

from halvard import operator
from halvard.kube import Conflict, Refused, Unavailable
from halvard.operator import insist


async def test_what_an_api_server_cannot_do_now_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator, "FIRST_RETRY", 0.0)
    answers = [Unavailable("overloaded", 503), Conflict("the object has been modified", exists=False), None]

    async def work() -> None:
        if error := answers.pop(0):
            raise error

    await insist(work)
    assert answers == []


async def test_what_it_will_not_do_is_not_asked_for_again() -> None:
    async def work() -> None:
        raise Refused("forbidden", 403)

    with pytest.raises(Refused, match="forbidden"):
        await insist(work)
