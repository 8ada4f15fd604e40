"""A keep is checked, compared and written."""

import json

import numpy as np
import pytest

from ctl_jax.errors import UserError
from ctl_jax.pruning import Keep


@pytest.fixture
def keep() -> Keep:
    return Keep({"b": np.array([0, 2]), "a/kernel": [1]}, {"b": 3, "a/kernel": 2}, ["a note"])


def test_mapping(keep):
    assert list(keep) == ["b", "a/kernel"]
    assert repr(keep) == "Keep(b: 2/3, a/kernel: 1/2)"
    assert keep["b"].dtype == np.int64
    with pytest.raises(ValueError, match="read-only"):
        keep["b"][0] = 1


def test_json_round_trip(keep):
    back = Keep.from_json(keep.to_json())
    assert back == keep
    assert (back.notes, back.sizes) == (("a note",), {"b": 3, "a/kernel": 2})
    assert json.loads(keep.to_json())["version"] == 1


def test_equality(keep):
    assert keep == Keep(dict(keep), keep.sizes)
    assert keep != Keep(dict(keep) | {"b": [0, 1]}, keep.sizes)
    assert keep != Keep(dict(keep), {"b": 4, "a/kernel": 2})
    assert keep != dict(keep)


@pytest.mark.parametrize(
    "indices", [[], [2, 1], [1, 1], [-1, 0], [1, 3], [0.5], [[0]], "ab", [True], None, [0, "x"]]
)
def test_bad_indices(indices):
    with pytest.raises(UserError, match=r"keep\['a'\] is .* of 3 channels, expected ascending"):
        Keep({"a": indices}, {"a": 3})


def test_groups_without_a_size():
    with pytest.raises(UserError, match="group 'b' has indices or a size, expected both"):
        Keep({"a": [0]}, {"a": 1, "b": 1})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the text starts ''"),
        ("[1]", "the text starts '\\[1\\]'"),
        ("{}", "the text starts '{}'"),
        ('{"version": 1, "groups": {"a": 1}, "notes": []}', "the text starts"),
        ('{"version": 2, "groups": {}, "notes": []}', "version is 2, expected 1"),
        ('{"version": 1, "groups": {}, "notes": [1]}', "notes is \\[1\\]"),
        (
            '{"version": 1, "groups": {"a": {"size": "x", "keep": [0]}}, "notes": []}',
            "'x' channels",
        ),
    ],
)
def test_bad_json(text, message):
    with pytest.raises(UserError, match=message):
        Keep.from_json(text)
