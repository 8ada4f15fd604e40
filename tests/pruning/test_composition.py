"""Two cuts in a row are one cut of the full network."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctl_jax import pruning
from ctl_jax.errors import UserError
from ctl_jax.pruning import Keep
from ctl_jax.pruning.structure import Structure


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
    return Structure(
        sizes, found, {"both": (3, left + right), "left": (left,), "head": (left + right, 2)}
    )


def test_groups_are_matched_where_they_lie():
    """Of the first group one channel is left: the second trace gives its name to the other."""
    keep = Keep({"both": [1], "both#2": [0, 2, 3, 4]}, halves(3, 5))
    later = Keep({"both": [0, 2]}, halves(1, 4, names=(None, "both")))
    assert keep.compose(later) == Keep({"both": [1], "both#2": [0, 3]}, halves(3, 5))


def test_groups_that_became_one():
    """Once the scale of the left half has one element, nothing tells its channel from the right."""
    lone = Structure(
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
    other = Structure(halves(2, 3).sizes, halves(2, 3).members, shapes)
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
    later = Structure({"g": 2}, {"g": members}, halves(2, 3).shapes)
    with pytest.raises(UserError, match=rf"channel 1 of group 'g', which is not .*{where}"):
        keep.compose(Keep({"g": [0]}, later))
    assert keep.compose(Keep({"g": [0, 1]}, later)) == keep  # nothing of it is dropped
