"""Which GPUs there are, and who has them."""

import pytest

from halvard.local.gpus import Gpus, devices, visible


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0,1", ("0", "1")),
        (" 3 , 1 ", ("3", "1")),
        ("GPU-8932f937,MIG-GPU-b1028956", ("GPU-8932f937", "MIG-GPU-b1028956")),
        ("", ()),
        ("-1", ()),
        ("0,-1,1", ("0",)),
        ("0,,1", ("0",)),
    ],
)
def test_only_the_gpus_that_are_visible_are_used(text: str, expected: tuple[str, ...]) -> None:
    assert expected == visible(text)


def test_what_is_visible_already_is_respected() -> None:
    assert devices({"CUDA_VISIBLE_DEVICES": "5,7"}) == ("5", "7")


def test_no_gpu_is_lent_twice() -> None:
    gpus = Gpus(("0", "1", "2"))
    assert [gpus.lend(2), gpus.lend(2), gpus.lend(1), gpus.lend(1)] == [("0", "1"), None, ("2",), None]


def test_a_gpu_that_came_back_is_lent_again() -> None:
    gpus = Gpus(("0",))
    gpus.take_back(gpus.lend(1) or ())
    assert gpus.lend(1) == ("0",)


def test_a_leg_that_needs_none_gets_none_even_where_there_are_none() -> None:
    assert Gpus(()).lend(0) == ()
