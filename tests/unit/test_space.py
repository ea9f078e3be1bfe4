"""The search space: bounds, steps, plain types, shares, conditions, and the grid."""

import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halvard.space import combinations, decode, encode, equal
from halvard.study import Parameter, Value

unit = st.floats(0, 1)
CONDITIONAL: list[dict[str, Any]] = [
    {"name": "optimizer", "choice": ["sgd", "adamw"]},
    {"name": "nesterov", "choice": [True, False], "when": {"optimizer": ["sgd"]}},
    {"name": "momentum", "float": {"min": 0.5, "max": 0.9, "step": 0.2}, "when": {"nesterov": [True]}},
    {"name": "layers", "int": {"min": 1, "max": 2}},
]


def parameters(*axes: dict[str, Any]) -> tuple[Parameter, ...]:
    return tuple(Parameter.model_validate(axis) for axis in axes)


def value_at(u: float, **axis: Any) -> Value:
    return decode(parameters({"name": "x", **axis}), [u])["x"]


def shares(points: int, **axis: Any) -> dict[Value, float]:
    """The share of the unit interval that each value has."""
    space = parameters({"name": "x", **axis})
    counts = Counter(decode(space, [(i + 0.5) / points])["x"] for i in range(points))
    return {value: count / points for value, count in sorted(counts.items())}


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False), unit)
def test_a_linear_float_stays_within_its_bounds(one: float, other: float, u: float) -> None:
    low, high = sorted((one, other))
    value = value_at(u, float={"min": low, "max": high})
    assert isinstance(value, float)
    assert low <= value <= high


positive = st.floats(min_value=0, exclude_min=True, allow_infinity=False)


@given(positive, positive, unit)
def test_a_log_float_stays_within_its_bounds(one: float, other: float, u: float) -> None:
    low, high = sorted((one, other))
    value = value_at(u, float={"min": low, "max": high, "scale": "log"})
    assert isinstance(value, float)
    assert low <= value <= high


@given(st.integers(1, 2**52), st.integers(0, 2**52 - 1), st.integers(1, 1000), unit)
def test_an_int_stays_within_its_bounds_and_on_its_grid(low: int, width: int, step: int, u: float) -> None:
    for axis in ({"step": step}, {"scale": "log"}):
        value = value_at(u, int={"min": low, "max": low + width, **axis})
        assert type(value) is int
        assert low <= value <= low + width
        assert (value - low) % axis.get("step", 1) == 0


decimals = st.integers(1, 10_000).map(lambda n: n / 1000)


@given(decimals, decimals, decimals, unit)
def test_a_stepped_float_is_the_decimal_the_user_means(low: float, width: float, step: float, u: float) -> None:
    high = round(low + width, 3)
    value = value_at(u, float={"min": low, "max": high, "step": step})
    assert isinstance(value, float)
    assert low <= value <= high
    thousandths = round(value * 1000)
    assert value == thousandths / 1000
    assert (thousandths - round(low * 1000)) % round(step * 1000) == 0


def test_the_ends_of_the_unit_interval_are_the_bounds() -> None:
    for axis in ({"float": {"min": 0.1, "max": 0.7}}, {"float": {"min": 0.1, "max": 0.7, "scale": "log"}}):
        assert value_at(0.0, **axis) == pytest.approx(0.1)
        assert value_at(1.0, **axis) == pytest.approx(0.7)
    assert (value_at(0.0, int={"min": -3, "max": 3}), value_at(1.0, int={"min": -3, "max": 3})) == (-3, 3)


def test_the_middle_of_a_log_float_is_the_geometric_mean() -> None:
    assert value_at(0.5, float={"min": 1e-5, "max": 0.1, "scale": "log"}) == pytest.approx(1e-3)


def test_a_float_written_as_an_integer_is_a_float() -> None:
    assert type(value_at(1.0, float={"min": 0, "max": 1})) is float


def test_the_maximum_of_a_stepped_float_counts_only_if_it_is_on_the_grid() -> None:
    assert list(shares(1000, float={"min": 0.0, "max": 0.3, "step": 0.1})) == [0.0, 0.1, 0.2, 0.3]
    assert list(shares(1000, float={"min": 0.0, "max": 0.35, "step": 0.1})) == [0.0, 0.1, 0.2, 0.3]


def test_a_stepped_int_leaves_out_what_is_not_on_its_grid() -> None:
    assert list(shares(1000, int={"min": 1, "max": 10, "step": 4})) == [1, 5, 9]


def test_linear_values_have_equal_shares() -> None:
    for axis in (
        {"int": {"min": 1, "max": 8}},
        {"float": {"min": 0.1, "max": 0.8, "step": 0.1}},
        {"choice": list(range(8))},
    ):
        assert set(shares(8000, **axis).values()) == {0.125}


def test_log_integers_have_their_log_uniform_shares() -> None:
    measured = shares(100_000, int={"min": 1, "max": 10, "scale": "log"})
    expected = {n: math.log((n + 0.5) / (n - 0.5)) / math.log(10.5 / 0.5) for n in range(1, 11)}
    assert measured == pytest.approx(expected, abs=2e-5)


def test_a_choice_keeps_the_types_the_user_wrote() -> None:
    written = ["1", 1.5, 2, True, False]
    values = [value_at((i + 0.5) / 5, choice=written) for i in range(5)]
    assert [(type(value), value) for value in values] == [(type(value), value) for value in written]


def test_a_single_value_is_found_everywhere() -> None:
    for u in (0.0, 0.3, 1.0):
        assert value_at(u, choice=["only"]) == "only"
        assert value_at(u, int={"min": 4, "max": 4, "scale": "log"}) == 4
        assert value_at(u, float={"min": 0.1, "max": 0.1, "scale": "log"}) == 0.1


def test_conditions_decide_which_parameters_exist() -> None:
    space = parameters(*CONDITIONAL)
    assert decode(space, [0, 0, 0, 0]) == {"optimizer": "sgd", "nesterov": True, "momentum": 0.5, "layers": 1}
    assert decode(space, [0, 1, 0, 0]) == {"optimizer": "sgd", "nesterov": False, "layers": 1}


def test_a_parameter_whose_parent_is_inactive_is_inactive() -> None:
    assert decode(parameters(*CONDITIONAL), [1, 0, 0, 1]) == {"optimizer": "adamw", "layers": 2}


def test_every_parent_named_must_agree() -> None:
    both = {"name": "x", "int": {"min": 1, "max": 1}, "when": {"a": [1, 2], "b": ["on"]}}
    space = parameters({"name": "a", "choice": [1, 3]}, {"name": "b", "choice": ["on", "off"]}, both)
    assert decode(space, [0, 0, 0]) == {"a": 1, "b": "on", "x": 1}
    assert decode(space, [1, 0, 0]) == {"a": 3, "b": "on"}
    assert decode(space, [0, 1, 0]) == {"a": 1, "b": "off"}


def test_true_is_not_the_number_one_in_a_condition() -> None:
    space = parameters(
        {"name": "warmup", "choice": [True, 1]}, {"name": "x", "choice": ["here"], "when": {"warmup": [1]}}
    )
    assert decode(space, [0, 0]) == {"warmup": True}
    assert decode(space, [1, 0]) == {"warmup": 1, "x": "here"}


def test_a_point_needs_one_coordinate_for_every_parameter() -> None:
    with pytest.raises(ValueError, match="shorter"):
        decode(parameters(*CONDITIONAL), [0.5])


def test_a_parameter_without_values_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="parameter 'x' needs one of float, int and choice"):
        value_at(0.5)


def test_a_given_value_takes_the_place_of_the_coordinate_where_it_is_active() -> None:
    given: dict[str, Value] = {"optimizer": "sgd", "nesterov": False, "momentum": 0.7}
    assert decode(parameters(*CONDITIONAL), [1, 0, 0, 1], given) == {"optimizer": "sgd", "nesterov": False, "layers": 2}


EVERY_KIND: list[dict[str, Any]] = [
    {"name": "lr", "float": {"min": 1e-5, "max": 0.1, "scale": "log"}},
    {"name": "wide", "float": {"min": -1.7e308, "max": 1.7e308}},
    {"name": "stepped", "float": {"min": 0.0, "max": 0.35, "step": 0.1}},
    {"name": "n", "int": {"min": -3, "max": 9, "step": 4}},
    {"name": "width", "int": {"min": 1, "max": 512, "scale": "log"}},
    {"name": "mixed", "choice": [True, 1, "1", 0.5]},
    {"name": "child", "choice": ["a", "b"], "when": {"mixed": [1]}},
]

DISCRETE = {"stepped", "n", "width", "mixed", "child"}


@given(st.tuples(*[unit] * 7))
def test_encoding_finds_a_point_that_decodes_to_the_same_values(point: tuple[float, ...]) -> None:
    space = parameters(*EVERY_KIND)
    values = decode(space, point)
    encoded = encode(space, values)
    assert [name for name, u in zip((p.name for p in space), encoded, strict=True) if not math.isnan(u)] == [*values]
    again = decode(space, [0.0 if math.isnan(u) else u for u in encoded])
    assert encode(space, again) == pytest.approx(encoded, abs=1e-9, nan_ok=True)
    assert {name: again[name] for name in DISCRETE & again.keys()} == {n: values[n] for n in DISCRETE & values.keys()}
    assert all(0 <= u <= 1 for u in encoded if not math.isnan(u))


def test_a_discrete_value_is_encoded_as_the_middle_of_its_share() -> None:
    space = parameters(*EVERY_KIND[2:4], EVERY_KIND[5])
    assert encode(space, {"stepped": 0.3, "n": 1, "mixed": True}) == pytest.approx([0.875, 0.375, 0.125])


@given(unit)
@pytest.mark.parametrize(("low", "high"), [(1e-200, 1e200), (5e-324, 1.7e308), (1e300, 1.0000000000000002e300)])
def test_however_wide_or_narrow_a_log_scale_is_a_value_has_a_coordinate(low: float, high: float, u: float) -> None:
    space = parameters({"name": "x", "float": {"min": low, "max": high, "scale": "log"}})
    values = decode(space, [u])
    [encoded] = encode(space, values)
    assert 0 <= encoded <= 1
    if high > 2 * low:
        assert encoded == pytest.approx(u, abs=0.01)  # there are few floats near 5e-324
    assert decode(space, [encoded])["x"] == pytest.approx(values["x"], rel=1e-9)


@pytest.mark.parametrize(("low", "high", "step"), [(0.0, 1.0, 1e-19), (0.0, 1e300, 1e-300), (-1.5e308, 1.5e308, 1e307)])
def test_however_many_steps_there_are_each_has_a_coordinate(low: float, high: float, step: float) -> None:
    axis = {"float": {"min": low, "max": high, "step": step}}
    space = parameters({"name": "x", **axis})
    for u in (0.0, 0.25, 1.0):
        value = value_at(u, **axis)
        assert value / high == pytest.approx(low / high + u * (1 - low / high), abs=0.1)
        assert encode(space, {"x": value}) == pytest.approx([u], abs=0.1)
    assert next(combinations(space)) == {"x": low}
    assert next(combinations(space, start=[0.25])) == {"x": value_at(0.25, **axis)}


def test_what_is_no_value_of_a_parameter_has_no_coordinate() -> None:
    space = parameters(EVERY_KIND[0], EVERY_KIND[5])
    assert [math.isnan(u) for u in encode(space, {"lr": "high", "mixed": 2})] == [True, True]


def test_two_trials_are_equal_where_all_their_values_are() -> None:
    assert equal({"a": 1, "b": "x"}, {"b": "x", "a": 1.0})
    assert not equal({"a": 1}, {"a": True})
    assert not equal({"a": 1}, {"a": 1, "b": "x"})


def test_a_grid_around_given_values_has_these_alone() -> None:
    found = list(combinations(parameters(*CONDITIONAL), {"nesterov": True, "momentum": 0.6, "layers": 2}))
    assert found == [
        {"optimizer": "sgd", "nesterov": True, "momentum": 0.6, "layers": 2},
        {"optimizer": "adamw", "layers": 2},
    ]


def test_a_grid_goes_through_every_combination_with_the_last_parameter_fastest() -> None:
    space = parameters(
        {"name": "lr", "float": {"min": 0.1, "max": 0.3, "step": 0.2}},
        {"name": "n", "int": {"min": 1, "max": 5, "step": 2}},
    )
    expected = [{"lr": lr, "n": n} for lr in (0.1, 0.3) for n in (1, 3, 5)]
    assert list(combinations(space)) == expected


def test_a_grid_has_every_conditional_combination_exactly_once() -> None:
    found = list(combinations(parameters(*CONDITIONAL)))
    with_momentum = [
        {"optimizer": "sgd", "nesterov": True, "momentum": m, "layers": n} for m in (0.5, 0.7, 0.9) for n in (1, 2)
    ]
    without = [{"optimizer": "sgd", "nesterov": False, "layers": n} for n in (1, 2)]
    assert found == [*with_momentum, *without, {"optimizer": "adamw", "layers": 1}, {"optimizer": "adamw", "layers": 2}]


@pytest.mark.parametrize("start", [[0.0] * 4, [0.6, 0.5, 0.4, 0.9], [1.0] * 4])
def test_a_grid_may_be_walked_from_any_point_and_round_to_it(start: list[float]) -> None:
    space = parameters(*CONDITIONAL)
    found = list(combinations(space, start=start))
    assert found[0] == decode(space, start)
    assert sorted(map(repr, found)) == sorted(map(repr, combinations(space)))


def test_a_grid_is_not_enumerated_before_it_is_asked() -> None:
    space = parameters(*({"name": f"x{i}", "int": {"min": 1, "max": 10**9}} for i in range(9)))
    assert next(combinations(space)) == {f"x{i}": 1 for i in range(9)}


def test_a_grid_refuses_a_float_without_a_step() -> None:
    with pytest.raises(ValueError, match="parameter 'lr': a float in a grid needs a step"):
        list(combinations(parameters({"name": "lr", "float": {"min": 0.1, "max": 0.3}})))
