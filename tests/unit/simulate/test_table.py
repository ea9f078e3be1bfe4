"""Tables of learning curves: what is refused, and which row a point of the unit cube trains."""

from typing import Any

import numpy as np
import pytest

from halvard.simulate.table import Rows, Table, TableError
from unit.simulate.conftest import arrays, make_study


def changed(name: str, place: tuple[int, int], number: float) -> dict[str, Any]:
    given = arrays()
    given[name][place] = number
    return given


def test_arrays_beyond_the_four_are_passed_over() -> None:
    table = Table.from_arrays({**arrays(), "test": np.zeros(1)})
    assert (table.names, table.u.shape, table.value.shape, table.seconds.shape) == (
        ("lr", "width"),
        (60, 2),
        (60, 9),
        (60, 9),
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"names": np.array(["lr"])}, "u: 2 columns, but names has 1: there must be one for each name"),
        ({"names": np.array(["lr", "lr"])}, "names: lr, lr: must all differ"),
        ({"names": np.array([1, 2])}, "names: shape (2,) of int64: must be a list of at least one text"),
        ({"u": np.zeros(60)}, "u: shape (60,) of float64: must be numbers, rows x coordinates"),
        ({"u": np.zeros((0, 2))}, "u: shape (0, 2) of float64: must be numbers, rows x coordinates"),
        ({"value": np.array([["a"]])}, "value: shape (1, 1) of <U1: must be numbers, rows x steps"),
        ({"value": np.zeros((5, 9))}, "value: 5 rows, but u has 60: there must be one for each configuration"),
        ({"seconds": np.ones((60, 8))}, "seconds: shape (60, 8), but value has (60, 9): they must be the same"),
        (changed("u", (3, 1), 1.5), "u[3, 1]: 1.5: must be in [0, 1]"),
        (changed("u", (3, 1), np.nan), "u[3, 1]: nan: must be in [0, 1]"),
        (changed("seconds", (2, 0), -1), "seconds[2, 0]: -1: must be finite and at least 0"),
        (changed("seconds", (2, 0), np.inf), "seconds[2, 0]: inf: must be finite and at least 0"),
    ],
)
def test_a_malformed_array_is_refused_by_name(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(TableError) as refused:
        Table.from_arrays(arrays() | wrong)
    assert str(refused.value) == message


def test_a_missing_array_is_refused_by_name() -> None:
    given = arrays()
    del given["seconds"]
    with pytest.raises(TableError) as refused:
        Table.from_arrays(given)
    assert str(refused.value) == (
        "seconds: missing; a table has the arrays names, u, value, seconds; this has names, u, value"
    )


def test_a_scaled_table_takes_as_long_as_it_was_told(table: Table) -> None:
    scaled = table.scaled(3600.0)
    assert scaled.full_training == pytest.approx(3600.0)
    assert (scaled.seconds / table.seconds).std() == pytest.approx(0.0, abs=1e-9)


def test_a_table_that_takes_no_time_cannot_be_scaled() -> None:
    table = Table.from_arrays(arrays() | {"seconds": np.zeros((60, 9))})
    with pytest.raises(TableError, match="the median full training takes 0 s"):
        table.scaled(60.0)


def test_the_best_value_is_the_best_finite_one(table: Table) -> None:
    last = table.value[:, 8]
    assert table.best("minimize", 9) == np.nanmin(last)
    assert table.best("maximize", 9) == np.nanmax(last)


def test_parameters_of_other_names_are_refused(table: Table) -> None:
    axes = [{"name": "lr", "float": {"min": 0.0, "max": 1.0}}]
    with pytest.raises(TableError) as refused:
        table.check_fits(make_study(parameters=axes).spec, 9)
    assert str(refused.value) == (
        "spec.parameters: lr (1), but the table's coordinates are lr, width (2): they must have the same names"
    )


def test_a_budget_above_the_steps_is_refused(table: Table) -> None:
    with pytest.raises(TableError) as refused:
        table.check_fits(make_study().spec, 27)
    assert str(refused.value) == "spec.scheduler: trains until 27, but the table has 9 steps: at most that"


def test_a_point_stands_in_the_order_of_the_names_and_lacks_what_is_not_active(table: Table) -> None:
    parameters = make_study().spec.parameters
    assert table.point(parameters, {"width": 0.25, "lr": 1e-2}) == pytest.approx((0.5, 0.25))
    assert table.point(parameters, {"width": 0.25}) == pytest.approx((np.nan, 0.25), nan_ok=True)


def test_the_nearest_row_is_taken_once() -> None:
    u = np.array([[0.1, 0.1], [0.5, 0.5], [0.6, 0.5], [0.9, 0.9]])
    rows = Rows(Table(("a", "b"), u, np.zeros((4, 1)), np.zeros((4, 1))))
    assert [rows.take((0.52, 0.5)) for _ in range(4)] == [1, 2, 3, 0]
    with pytest.raises(TableError, match="all 4 rows of the table are used"):
        rows.take((0.5, 0.5))


def test_a_coordinate_of_no_active_parameter_counts_for_nothing_and_a_tie_goes_to_the_first() -> None:
    u = np.array([[0.2, 0.9], [0.2, 0.1], [0.3, 0.5]])
    rows = Rows(Table(("a", "b"), u, np.zeros((3, 1)), np.zeros((3, 1))))
    assert rows.take((0.2, np.nan)) == 0
