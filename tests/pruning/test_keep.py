"""A keep is checked, compared and written."""

import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctl_jax import pruning
from ctl_jax.errors import UserError
from ctl_jax.pruning import Group, Groups, Keep, Member
from ctl_jax.pruning._layout import Layout


def structure_of(sizes):
    """Each group alone on axis 1 of the parameter of its name."""
    return Layout(
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
    structure = Layout(
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
    assert back.layout == STRUCTURE
    assert (back.notes, back.sizes) == (("a note",), {"b": 3, "a/kernel": 2})
    content = json.loads(keep.to_json())
    assert (content["version"], content["fingerprint"]) == (2, STRUCTURE.fingerprint)


def groups_of(sizes):
    structure = structure_of(sizes)
    return Groups(
        {
            name: Group(
                name, n, (Member(name, 1, "out", structure.members[name][name, 1]),), residual=None
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
    with pytest.raises(UserError, match="'b' has indices, but the layout has no such group"):
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


def joined(v, x):
    """A residual block, then two branches that a concatenation joins."""
    x = x @ v["stem"]
    x = x + jnp.tanh(x @ v["one"]) @ v["two"]
    both = jnp.concatenate([x @ v["left"], x @ v["right"]], -1)
    return jnp.tanh(both * v["scale"][None]) @ v["head"]


JOINED = {
    "stem": (3, 8),
    "one": (8, 12),
    "two": (12, 8),
    "left": (8, 6),
    "right": (8, 10),
    "scale": (16,),
    "head": (16, 2),
}


def flattened(v, x):
    """Two convolutions, whose maps are read by a matrix; each channel is 9 of its rows."""
    for kernel in ("one", "two"):
        x = jax.lax.conv_general_dilated(
            x, v[kernel], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    return x.reshape(x.shape[0], -1) @ v["head"]


FLATTENED = {"one": (3, 3, 2, 8), "two": (3, 3, 8, 10), "head": (90, 4)}

NETS = {
    "joined": (joined, JOINED, (1, 3)),
    "flattened": (flattened, FLATTENED, (1, 3, 3, 2)),
}


def draw(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return {path: rng.normal(size=shape).astype(np.float32) for path, shape in shapes.items()}


def step(apply_fn, variables, x, ratio, seed):
    groups = pruning.trace(apply_fn, variables, x)
    rng = np.random.default_rng(seed)
    scores = {name: rng.normal(size=group.size) for name, group in groups.items()}
    keep = pruning.select(groups, scores, ratio=ratio, scope="all")
    return groups, keep, pruning.prune(variables, groups, keep)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("ratios", [(0.5, 0.5, 0.5), (0.1, 0.7), (0.8, 0.5), (0, 0.5), (0.5, 0)])
def test_is_the_two_cuts(net, ratios):
    apply_fn, shapes, x_shape = NETS[net]
    variables, x = draw(shapes), np.ones(x_shape, np.float32)
    groups, keep, small = step(apply_fn, variables, x, ratios[0], 0)
    for seed, ratio in enumerate(ratios[1:], 1):
        _, later, small = step(apply_fn, small, x, ratio, seed)
        keep = keep.compose(Keep.from_json(later.to_json()))
        chex.assert_trees_all_equal(pruning.prune(variables, groups, keep), small)
    assert keep == Keep.from_json(keep.to_json())


def column(*positions):
    return np.array(positions)[:, None]


def halves(left, right, *, names=("both", "both#2")):
    """The structure of a kernel that makes two groups, which meet in the head.

    Those of the left half, and no others, are multiplied by a scale.
    """
    rows = column(*range(left)), column(*range(left, left + right))
    members = [{("both", 1): rows[i], ("head", 0): rows[i]} for i in (0, 1)]
    members[0]["left", 0] = rows[0]
    found = {n: m for n, m in zip(names, members, strict=True) if n is not None}
    sizes = {name: len(rows[names.index(name)]) for name in found}
    return Layout(
        sizes, found, {"both": (3, left + right), "left": (left,), "head": (left + right, 2)}
    )


def test_groups_are_matched_where_they_lie():
    """Of the first group one channel is left: the second trace gives its name to the other."""
    keep = Keep({"both": [1], "both#2": [0, 2, 3, 4]}, halves(3, 5))
    later = Keep({"both": [0, 2]}, halves(1, 4, names=(None, "both")))
    assert keep.compose(later) == Keep({"both": [1], "both#2": [0, 3]}, halves(3, 5))


def test_groups_that_became_one():
    """Once the scale of the left half has one element, nothing tells its channel from the right."""
    lone = Layout(
        {"both": 5},
        {"both": {("both", 1): column(*range(5)), ("head", 0): column(*range(5))}},
        halves(1, 4).shapes,
    )
    keep = Keep({"both": [1], "both#2": [0, 2, 3, 4]}, halves(3, 5))
    later = Keep({"both": [0, 1, 4]}, lone)
    assert keep.compose(later) == Keep({"both": [1], "both#2": [0, 4]}, halves(3, 5))
    with pytest.raises(UserError, match=r"drops channel 0 of group 'both', .*see left\[0\]"):
        keep.compose(Keep({"both": [1, 2]}, lone))


def test_notes_of_both():
    keep = Keep({"both": [0, 1], "both#2": [0, 2]}, halves(3, 5), ["one"])
    later = Keep({"both": [0, 1], "both#2": [0, 1]}, halves(2, 2), ["two", "three"])
    composed = keep.compose(later)
    assert composed.notes == ("one", "two", "three")
    assert composed == keep


def test_another_network():
    keep = Keep({"both": [0, 1], "both#2": [0, 2, 3]}, halves(3, 5))
    with pytest.raises(UserError, match=r"later has parameter both of shape \(3, 8\), expected "):
        keep.compose(keep)
    shapes = halves(2, 3).shapes | {"head": (5, 9)}
    other = Layout(halves(2, 3).sizes, halves(2, 3).members, shapes)
    with pytest.raises(
        UserError, match=r"later has parameter head of shape \(5, 9\), expected \(5"
    ):
        keep.compose(Keep({"both": [0], "both#2": [0]}, other))


@pytest.mark.parametrize(
    ("members", "where"),
    [
        ({("both", 1): column(0, 1)}, r"head\[0\]"),  # not all of the channel
        ({("both", 1): column(0, 1), ("head", 0): column(1, 0)}, r"head\[0\]"),  # of two channels
        ({("both", 0): column(0, 1)}, r"both\[0\]"),  # an axis that is of no group
        ({("both", 1): np.array([[0, 1], [2, 3]])}, r"both\[1\]"),
    ],
)
def test_what_is_no_whole_channel_before(members, where):
    keep = Keep({"both": [0, 1], "both#2": [0, 2, 3]}, halves(3, 5))
    later = Layout({"g": 2}, {"g": members}, halves(2, 3).shapes)
    with pytest.raises(UserError, match=rf"channel 1 of group 'g', which is not .*{where}"):
        keep.compose(Keep({"g": [0]}, later))
    assert keep.compose(Keep({"g": [0, 1]}, later)) == keep  # nothing of it is dropped
