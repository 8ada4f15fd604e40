"""Which columns are meant, and which labels."""

import pathlib
from typing import Any

import numpy as np
import pytest

from ctl_jax.data.formats import columns
from ctl_jax.data.formats.tables import Table
from ctl_jax.errors import UserError


def table(**values: list[Any]) -> Table:
    rows = len(next(iter(values.values())))
    return Table(pathlib.Path("t.csv"), rows, values)


PATHS = ["a.png", "b/c.JPG", "d"]


@pytest.mark.parametrize(
    ("found", "options", "expected"),
    [
        ({"file": PATHS, "label": list("xyz")}, {}, ("file", ("label",), "")),
        (
            {"Image Path": PATHS, "n": [1, 2, 3], "Species": list("xyz")},
            {},
            ("Image Path", ("Species",), ""),
        ),
        ({"what": list("xyz"), "where": PATHS}, {}, ("where", ("what",), "")),
        ({"id": list("abc"), "dx": list("xyz")}, {}, ("id", ("dx",), "")),
        ({"id": list("abc"), "file": PATHS, "y": list("xyz")}, {}, ("file", ("y",), "")),
        (
            {"file": PATHS, "y": list("xyz"), "split": ["train", "Val", "TEST"]},
            {},
            ("file", ("y",), "split"),
        ),
        # No splits, and then no column of splits.
        ({"file": PATHS, "label": list("xyz"), "set": list("pqr")}, {}, ("file", ("label",), "")),
        (
            {"file": PATHS, "cat": [0, 1, 0], "dog": ["1", "0", "0"]},
            {},
            ("file", ("cat", "dog"), ""),
        ),
        (
            {"file": PATHS, "p": [1, 7, 3], "cat": [0, 1, 0], "dog": [1, 1, 1]},
            {},
            ("file", ("cat", "dog"), ""),
        ),
        ({"file": PATHS, "a": list("xyz"), "b": list("xyz")}, {"label": "b"}, ("file", ("b",), "")),
        (
            {"file": PATHS, "a": [0, 0, 1], "b": [0, 0, 1], "c": [1, 1, 1]},
            {"label": "c,a"},
            ("file", ("c", "a"), ""),
        ),
        (
            {"file": PATHS, "a,b": list("xyz"), "c": [0, 0, 1]},
            {"label": "a,b"},
            ("file", ("a,b",), ""),
        ),
    ],
)
def test_columns_that_are_meant(
    found: dict[str, list[Any]], options: dict[str, str], expected: tuple[Any, ...]
) -> None:
    assert columns.choose(table(**found), options) == expected


@pytest.mark.parametrize(
    ("found", "options", "message"),
    [
        (
            {"file": PATHS, "label": list("xyz")},
            {"label": "lable"},
            "no column 'lable' for label; expected one of 'file', 'label', such as 'label'",
        ),
        (
            {"file": PATHS, "label": list("xyz")},
            {"split": "s"},
            "no column 's' for split; expected one of 'file'",
        ),
        (
            {"file": PATHS, "a": list("xyz"), "b": list("xyz")},
            {},
            r"no column of labels that is clear .* 'file', 'a', 'b'; expected it as \?label=NAME",
        ),
        (
            {"a": list("xyz"), "b": list("xyz")},
            {},
            r"no column of images that is clear .* expected it as \?image=NAME",
        ),
        ({"file": PATHS}, {}, "no column of labels"),
    ],
)
def test_columns_that_are_not_clear(
    found: dict[str, list[Any]], options: dict[str, str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        columns.choose(table(**found), options)


@pytest.mark.parametrize(
    ("values", "declared", "names", "labels"),
    [
        (["b", "a", None, " b", ""], (), ("a", "b"), [1, 0, -1, 1, -1]),
        ([10, 9, 2], (), ("2", "9", "10"), [2, 1, 0]),
        (["10", "9", "02"], (), ("02", "9", "10"), [2, 1, 0]),
        ([1.0, float("nan"), 0.0], (), ("0", "1"), [1, -1, 0]),
        ([True, False], (), ("0", "1"), [1, 0]),
        ([1, 0, -1], ("x", "a", "never"), ("x", "a", "never"), [1, 0, -1]),
        (["a", "x"], ("x", "a"), ("x", "a"), [1, 0]),
        ([["b", "a"], [], None, ["b"]], (), ("a", "b"), [[1, 1], [0, 0], [0, 0], [0, 1]]),
        (["b;a", "", "b"], (), ("a", "b"), [[1, 1], [0, 0], [0, 1]]),
        (["b | a", "a"], (), ("a", "b"), [[1, 1], [1, 0]]),
        ([[1], [0, 1]], ("x", "y"), ("x", "y"), [[0, 1], [1, 1]]),
    ],
)
def test_labels(values: list[Any], declared: Any, names: tuple[str, ...], labels: Any) -> None:
    found = columns.labels_of("t.csv", values, declared)
    assert found.class_names == names
    np.testing.assert_array_equal(found.labels, labels)


def test_flags() -> None:
    found = columns.flags_of({"x": [0, 1, True], "y": ["1", "-1", "-1"]}, "t.csv")
    np.testing.assert_array_equal(found.labels, [[0, 1], [1, 0], [1, 0]])
    assert (found.class_names, len(found.notes)) == (("x", "y"), 1)
    with pytest.raises(UserError, match=r"'t\.csv' has '2', '7' in 'x'; expected 0 and 1"):
        columns.flags_of({"x": [0, 2, 7]}, "t.csv")


@pytest.mark.parametrize(
    ("values", "declared", "message"),
    [
        ([0.5, 1.0], (), "has labels with fractions; expected classes"),
        ([0, 2], ("a", "b"), "has labels '2'; its description has 2 classes"),
        ([["c"]], ("a", "b"), "has labels 'c'; its description has 2 classes"),
    ],
)
def test_labels_that_are_none(values: list[Any], declared: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        columns.labels_of("t.csv", values, declared)
