"""What a keep is for: compared, fingerprinted, written."""

import json

import hypothesis
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from ctl_jax import pruning
from ctl_jax.pruning._layout import Layout


def column(*positions):
    return np.array(positions)[:, None]


def make(**changes):
    """Two groups on three parameters; group b lies on the second half of c's rows."""
    parts = {
        "sizes": {"a": 2, "b": 3},
        "members": {
            "a": {("a", 1): column(0, 1), ("c", 0): column(0, 1)},
            "b": {("b", 1): column(0, 1, 2), ("c", 0): column(2, 3, 4)},
        },
        "shapes": {"a": (4, 2), "b": (4, 3), "c": (5, 7)},
    }
    return Layout(**(parts | changes))


def with_member(group, slot, positions):
    members = {name: dict(found) for name, found in make().members.items()}
    members[group][slot] = positions
    return members


def without_member(group, slot):
    members = {name: dict(found) for name, found in make().members.items()}
    del members[group][slot]
    return members


DIFFERENCES = {
    "group more": (
        {
            "sizes": {"a": 2, "b": 3, "z": 7},
            "members": make().members | {"z": {("c", 1): column(*range(7))}},
        },
        "has group 'z' of 7 channels, expected no such group",
        "lacks group 'z' of 7 channels",
    ),
    "size": (
        {"sizes": {"a": 5, "b": 3}},
        "has 5 channels of group 'a', expected 2",
        "has 2 channels of group 'a', expected 5",
    ),
    "member": (
        {"members": without_member("a", ("c", 0))},
        "has group 'a' not on c[0], expected it there",
        "has group 'a' on c[0], expected it not there",
    ),
    "positions": (
        {"members": with_member("b", ("c", 0), column(2, 4, 3))},
        "has channel 1 of group 'b' at position 4 of c[0], expected position 3",
        "has channel 1 of group 'b' at position 3 of c[0], expected position 4",
    ),
    "positions a channel": (
        {"members": with_member("b", ("b", 1), np.arange(12).reshape(3, 4))},
        "has channel 0 of group 'b' at positions 0, 1, 2 and 1 more of b[1], expected position 0",
        "has channel 0 of group 'b' at position 0 of b[1], expected positions 0, 1, 2 and 1 more",
    ),
    "shape": (
        {"shapes": {"a": (4, 2), "b": (4, 3), "c": (5, 9)}},
        "has parameter c of shape (5, 9), expected (5, 7)",
        "has parameter c of shape (5, 7), expected (5, 9)",
    ),
    "parameter more": (
        {"shapes": {"a": (4, 2), "b": (4, 3), "c": (5, 7), "d": (1,)}},
        "has parameter d of shape (1,), expected no such parameter",
        "lacks parameter d of shape (1,)",
    ),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_the_first_difference_is_named(name):
    changes, there, back = DIFFERENCES[name]
    structure, other = make(), make(**changes)
    assert other.difference(structure) == there
    assert structure.difference(other) == back
    assert other != structure
    assert other.fingerprint != structure.fingerprint


def test_equal_structures():
    structure, same = make(), make()
    assert structure == same
    assert (hash(structure), structure.fingerprint) == (hash(same), same.fingerprint)
    assert structure != "structure"
    assert "2 groups, 3 parameters" in repr(structure)
    turned = make(
        sizes={"b": 3, "a": 2}, shapes=dict(reversed(make().shapes.items())), members=make().members
    )
    assert turned == structure
    assert turned.fingerprint == structure.fingerprint


def test_the_fingerprint_is_the_same_tomorrow():
    """It is in files that were written; a change of it needs a new `keep.VERSION`."""
    assert make().fingerprint.startswith("eb514ba8da4e")


def test_two_traces_of_one_network():
    def net(v, x):
        return jnp.tanh(x @ v["a"]) @ v["b"]

    variables = {"a": np.ones((3, 4)), "b": np.ones((4, 2))}
    one, two = (pruning.trace(net, variables, np.ones((batch, 3))) for batch in (1, 5))
    assert one.layout is one.layout
    assert one.layout == two.layout
    wider = variables | {"b": np.ones((4, 5))}
    assert pruning.trace(net, wider, np.ones((1, 3))).layout.difference(one.layout) == (
        "has parameter b of shape (4, 5), expected (4, 2)"
    )


@hypothesis.given(
    size=st.integers(1, 5), k=st.integers(1, 4), seed=st.integers(0, 99), regular=st.booleans()
)
def test_data_round_trip(size, k, seed, regular):
    rng = np.random.default_rng(seed)
    table = np.arange(size * k).reshape(size, k) if regular else rng.permutation(size * k)
    if regular and seed % 2:
        table = np.ascontiguousarray(np.arange(size * k).reshape(k, size).T)
    structure = Layout(
        {"a": size}, {"a": {("x/y[0]", 2): 3 + table.reshape(size, k)}}, {"x/y[0]": (1, 1, 50)}
    )
    back = Layout.from_data(json.loads(json.dumps(structure.to_data())))
    assert back == structure
    assert back.fingerprint == structure.fingerprint
    assert back.members["a"]["x/y[0]", 2].dtype == np.int64


def test_regular_positions_are_short():
    many = np.arange(7 * 7 * 512).reshape(49, 512).T  # a flattened map, channels last
    structure = Layout({"a": 512}, {"a": {("b", 0): many}}, {"b": (25088, 4096)})
    assert structure.to_data()["groups"]["a"]["members"] == {"b[0]": [49, 0, 1, 512]}


@pytest.mark.parametrize(
    "members",
    [
        {"c[0]": [1, 4, 1, 0]},
        {"c[0]": [[0], [-1]]},
        {"c[0]": [[0]]},
        {"c": [1, 0, 1, 0]},
        {"c[0]": 3},
    ],
)
def test_data_of_no_structure(members):
    data = {"groups": {"a": {"size": 2, "members": members}}, "shapes": {"c": [5]}}
    with pytest.raises((ValueError, KeyError, TypeError)):
        Layout.from_data(data)


def test_axes_say_where_nothing_need_be_looked_up():
    axes = make().axes
    assert (axes["a"][1].whole, axes["a"][1].size) == ("a", 2)
    both = axes["c"][0]
    assert (both.whole, both.size, [name for name, _ in both.groups]) == (None, 5, ["a", "b"])
    np.testing.assert_array_equal(both.groups[1][1], column(2, 3, 4))


@pytest.mark.parametrize("positions", [column(1, 0), np.array([[0, 1], [2, 3]]), column(0, 2)])
def test_axes_on_which_positions_are_not_the_channels(positions):
    shape = (int(positions.max()) + 1,)
    structure = Layout({"a": 2}, {"a": {("x", 0): positions}}, {"x": shape})
    assert structure.axes["x"][0].whole is None


def test_axes_that_are_alike_are_one():
    tables = {("x", 0): column(0, 1), ("y", 1): column(0, 1), ("z", 0): column(0, 1)}
    shapes = {"x": (2,), "y": (5, 2), "z": (3,)}
    axes = Layout({"a": 2}, {"a": tables}, shapes).axes
    assert axes["x"][0] is axes["y"][1]
    assert axes["x"][0] is not axes["z"][0]
