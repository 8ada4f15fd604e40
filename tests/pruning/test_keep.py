"""A keep is checked, compared and written."""

import json

import numpy as np
import pytest

from ctl_jax.errors import UserError
from ctl_jax.pruning import Group, Groups, Keep, Member
from ctl_jax.pruning.structure import Structure


def structure_of(sizes):
    """Each group alone on axis 1 of the parameter of its name."""
    return Structure(
        sizes,
        {name: {(name, 1): np.arange(n)[:, None]} for name, n in sizes.items()},
        {name: (3, n) for name, n in sizes.items()},
    )


STRUCTURE = structure_of({"b": 3, "a/kernel": 2})


@pytest.fixture
def keep() -> Keep:
    return Keep({"b": np.array([0, 2]), "a/kernel": [1]}, STRUCTURE, ["a note"])


def test_mapping(keep):
    assert list(keep) == ["b", "a/kernel"]
    assert repr(keep) == "Keep(b: 2/3, a/kernel: 1/2)"
    assert keep.sizes == {"b": 3, "a/kernel": 2}
    assert keep["b"].dtype == np.int64
    with pytest.raises(ValueError, match="read-only"):
        keep["b"][0] = 1


def test_the_given_indices_are_copied():
    mine = np.array([0, 2])
    keep = Keep({"b": mine, "a/kernel": [0]}, STRUCTURE)
    mine[0] = 1
    np.testing.assert_array_equal(keep["b"], [0, 2])


def test_equality(keep):
    assert keep == Keep(dict(keep), structure_of({"b": 3, "a/kernel": 2}))
    assert keep != Keep(dict(keep) | {"b": [0, 1]}, STRUCTURE)
    assert keep != Keep(dict(keep), structure_of({"b": 4, "a/kernel": 2}))
    assert keep != dict(keep)


def test_positions():
    """On an axis of two groups each is cut at its own positions, several a channel."""
    rows = np.arange(6).reshape(2, 3).T  # channel c at c and 3 + c
    structure = Structure(
        {"a": 3, "b": 4},
        {
            "a": {("a", 1): np.arange(3)[:, None], ("c", 0): rows},
            "b": {("b", 1): np.arange(4)[:, None], ("c", 0): 6 + np.arange(4)[:, None]},
        },
        {"a": (2, 3), "b": (2, 4), "c": (10, 5)},
    )

    def positions(a, b):
        found = Keep({"a": a, "b": b}, structure).positions
        return {
            path: {i: kept.tolist() for i, kept in axes.items()} for path, axes in found.items()
        }

    assert positions([0, 1, 2], [0, 1, 2, 3]) == {}
    assert positions([0, 2], [0, 1, 2, 3]) == {
        "a": {1: [0, 2]},
        "c": {0: [0, 2, 3, 5, 6, 7, 8, 9]},
    }
    assert positions([1], [0, 3]) == {"a": {1: [1]}, "b": {1: [0, 3]}, "c": {0: [1, 4, 6, 9]}}


def test_json_round_trip(keep):
    back = Keep.from_json(keep.to_json())
    assert back == keep
    assert back.structure == STRUCTURE
    assert (back.notes, back.sizes) == (("a note",), {"b": 3, "a/kernel": 2})
    content = json.loads(keep.to_json())
    assert (content["version"], content["fingerprint"]) == (2, STRUCTURE.fingerprint)


def groups_of(sizes):
    structure = structure_of(sizes)
    return Groups(
        {
            name: Group(
                name, n, (Member(name, 1, "out", structure.members[name][name, 1]),), stream=None
            )
            for name, n in sizes.items()
        },
        structure.shapes,
        {name: {} for name in sizes},
    )


def test_only_for_groups_of_the_same_structure(keep):
    keep.check(groups_of({"b": 3, "a/kernel": 2}))
    message = "keep has 3 channels of group 'b', expected 4 as in the groups that it is used with"
    with pytest.raises(UserError, match=message):
        keep.check(groups_of({"b": 4, "a/kernel": 2}))
    with pytest.raises(UserError, match="keep lacks group 'c' of 2 channels"):
        Keep.from_json(keep.to_json()).check(groups_of({"b": 3, "a/kernel": 2, "c": 2}))


@pytest.mark.parametrize(
    "indices",
    [
        [],
        [2, 1],
        [1, 1],
        [-1, 0],
        [1, 3],
        [0.5],
        [[0]],
        "ab",
        [True],
        None,
        [0, "x"],
        [[0], [1, 2]],
    ],
)
def test_bad_indices(indices):
    with pytest.raises(UserError, match=r"keep\['a'\] is .* of 3 channels, expected ascending"):
        Keep({"a": indices}, structure_of({"a": 3}))


def test_groups_without_indices_or_size():
    with pytest.raises(UserError, match="group 'b' has no indices, expected indices for each"):
        Keep({"a": [0]}, structure_of({"a": 1, "b": 1}))
    with pytest.raises(UserError, match="'b' has indices, but the structure has no such group"):
        Keep({"a": [0], "b": [0]}, structure_of({"a": 1}))


def changed(**changes):
    content = json.loads(Keep({"b": [0], "a/kernel": [1]}, STRUCTURE).to_json())
    return json.dumps(content | changes)


def regrouped(name, **changes):
    groups = json.loads(changed())["groups"]
    groups[name] = groups[name] | changes
    return changed(groups=groups)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the text starts ''"),
        ("[1]", r"the text starts '\[1\]'"),
        ("{}", "the text starts '{}'"),
        (changed(groups={"a": 1}), "the text starts"),
        (changed(shapes={}), "the text starts"),
        (regrouped("b", size="x"), "the text starts"),
        (regrouped("b", members={"b[1]": [1, 9, 1, 0]}), "the text starts"),
        (regrouped("b", members={"b[7]": [1, 0, 1, 0]}), "the text starts"),
        (regrouped("b", keep=[3]), r"keep\['b'\] is \[3\] of 3 channels"),
        (regrouped("b", size=2), "fingerprint is '.*', expected '.*' of the groups and shapes"),
        (changed(fingerprint="0"), "fingerprint is '0', expected '.*' of the groups and shapes"),
        ('{"version": 1, "groups": {}, "notes": []}', "version is 1, expected 2"),
        (changed(notes=[1]), r"notes is \[1\]"),
    ],
)
def test_bad_json(text, message):
    with pytest.raises(UserError, match=message):
        Keep.from_json(text)
