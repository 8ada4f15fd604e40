"""Which channels stay."""

import functools
import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctl_jax import pruning
from ctl_jax.errors import UserError


@functools.cache
def chain(*widths: int) -> pruning.Groups:
    """Groups of these sizes, all but the last inside a block."""

    def apply(v, x):
        for kernel in v:
            x = jnp.tanh(x @ kernel)
        return x

    sizes = (3, *widths, 2)
    kernels = [np.ones(pair, np.float32) for pair in itertools.pairwise(sizes)]
    return pruning.trace(apply, kernels, np.ones((1, 3), np.float32))


def kept(size: int, ratio: float, round_to: int = 1) -> int:
    scores = {"0": np.arange(size), "1": np.arange(4)}
    return len(pruning.select(chain(size, 4), scores, ratio=ratio, round_to=round_to)["0"])


@pytest.mark.parametrize(
    ("size", "ratio", "round_to", "width"),
    [
        (64, 0.5, 1, 32),
        (10, 0.25, 1, 8),  # 7.5: the greater
        (10, 0.35, 1, 7),  # 6.5, though 10 * (1 - 0.35) may not be
        (10, 0.9, 1, 1),
        (64, 0.25, 8, 48),
        (64, 0.3, 8, 48),  # 44.8
        (64, 0.4, 8, 40),  # 38.4
        (64, 0.99, 8, 8),
        (20, 0.05, 8, 16),  # 19 is nearer to 16 than to 24
        (23, 0.05, 8, 23),  # 21.85 is nearer to 24, of which there are 23
        (6, 0.5, 8, 6),
        (20, 0.0, 8, 20),
        (5, 0.0, 1, 5),
    ],
)
def test_width(size, ratio, round_to, width):
    assert kept(size, ratio, round_to) == width


@given(size=st.integers(2, 40), ratio=st.floats(0, 0.999), round_to=st.integers(1, 9))
def test_width_is_as_documented(size, ratio, round_to):
    width = kept(size, ratio, round_to)
    assert 1 <= width <= size
    assert width == size or width % round_to == 0
    if round_to <= width < size:
        assert abs(width - (1 - ratio) * size) <= round_to / 2 + 1e-6 or width == round_to


def test_highest_scores_stay_and_the_lowest_index_of_equal_ones():
    groups = chain(6, 4)
    scores = {"0": np.array([1.0, 3, 2, 2, 2, 0]), "1": np.zeros(4)}
    keep = pruning.select(groups, scores, ratio=0.5, scope="channels")
    np.testing.assert_array_equal(keep["0"], [1, 2, 3])
    np.testing.assert_array_equal(keep["1"], [0, 1])
    assert keep.notes == ()


def test_scope_leaves_the_rest_whole():
    keep = pruning.select(chain(6, 4), {"0": np.ones(6), "1": np.ones(4)}, ratio=0.5)
    assert {name: len(indices) for name, indices in keep.items()} == {"0": 3, "1": 4}


@pytest.mark.parametrize(("round_to", "width"), [(1, 1), (4, 4), (16, 8)])
def test_a_ratio_that_would_empty_a_group_says_so(round_to, width):
    scores = {"0": np.arange(8), "1": np.arange(4)}
    keep = pruning.select(chain(8, 4), scores, ratio=0.95, round_to=round_to)
    np.testing.assert_array_equal(keep["0"], np.arange(8)[-width:])
    assert keep.notes == (f"ratio 0.95 would empty group '0': it keeps {width} of 8",)


@pytest.mark.parametrize("ratio", [-0.1, 1, 1.5, float("nan"), float("inf"), "0.5", None])
def test_bad_ratio(ratio):
    with pytest.raises(UserError, match=r"ratio is .*, expected a number in \[0, 1\)"):
        pruning.select(chain(6, 4), {}, ratio=ratio)


@pytest.mark.parametrize("round_to", [0, -8, 2.0])
def test_bad_round_to(round_to):
    with pytest.raises(UserError, match=r"round_to is .*, expected an integer"):
        pruning.select(chain(6, 4), {}, ratio=0.5, round_to=round_to)


def test_other_bad_input():
    groups, scores = chain(6, 4), {"0": np.ones(6), "1": np.ones(4)}
    with pytest.raises(UserError, match="scope is 'all', expected one of filters, channels"):
        pruning.select(groups, scores, ratio=0.5, scope="all")
    with pytest.raises(UserError, match="scope 'filters' holds none of the 1 groups"):
        pruning.select(chain(6), scores, ratio=0.5)
    with pytest.raises(UserError, match=r"scores\['1'\] is None, expected 4 numbers"):
        pruning.select(groups, {"0": np.ones(6)}, ratio=0.5)
    with pytest.raises(UserError, match=r"scores\['0'\] is .*nan.*, expected 6 numbers"):
        pruning.select(groups, scores | {"0": [1, 2, np.nan, 3, 4, 5]}, ratio=0.5)
