"""Which channels stay."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctl_jax import pruning
from ctl_jax.errors import UserError

from .networks import chain


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


@pytest.mark.parametrize(("round_to", "width"), [(1, 1), (4, 4)])
def test_a_ratio_that_would_empty_a_group_says_so(round_to, width):
    scores = {"0": np.arange(8), "1": np.arange(4)}
    keep = pruning.select(chain(8, 4), scores, ratio=0.95, round_to=round_to)
    np.testing.assert_array_equal(keep["0"], np.arange(8)[-width:])
    assert keep.notes == (f"ratio 0.95 would empty group '0': it keeps {width} of 8",)


def test_a_ratio_that_drops_nothing_says_so():
    keep = pruning.select(chain(16, 4), {"0": np.ones(16), "1": np.ones(4)}, ratio=0.2, round_to=8)
    assert len(keep["0"]) == 16
    assert keep.notes == ("ratio 0.2 drops nothing: the full widths are the nearest allowed ones",)


def test_round_to_says_what_it_leaves_whole():
    groups = chain(3, 4, 5, 6, 7, 3, 2, 9)
    scores = {name: np.arange(group.size) for name, group in groups.items()}
    keep = pruning.select(groups, scores, ratio=0.5, scope="channels", round_to=8)
    assert len(keep["7"]) == 8
    assert all(len(keep[name]) == groups[name].size for name in "0123456")
    assert keep.notes == (
        "round_to 8 has no smaller multiple, so these stay whole: '0' (3), '1' (4), '2' (5), "
        "'3' (6), '4' (7) and 2 more",
    )
    assert pruning.select(groups, scores, ratio=0, round_to=8).notes == ()


def test_floor_and_minimum():
    scores = {"0": np.arange(20), "1": np.arange(10)}

    def widths(**options):
        keep = pruning.select(chain(20, 10), scores, ratio=0.9, scope="channels", **options)
        return tuple(map(len, keep.values())), keep.notes

    assert widths() == ((2, 1), ())
    assert widths(floor=0.25) == ((5, 3), ())
    assert widths(minimum=4) == ((4, 4), ())
    assert widths(floor=0.4, round_to=3)[0] == (9, 6)
    assert widths(minimum=12) == ((12, 10), ())
    assert widths(minimum=4, allocation="global") == (
        (4, 4),
        ("ratio 0.9 is not reached: the least widths of '0' and 1 more are 8 of 30 channels",),
    )


def test_global_ratio_is_of_all_channels_together():
    scores = {"0": [9, 1, 8, 2, 7, 3], "1": [10, 20, 30, 0]}
    keep = pruning.select(chain(6, 4), scores, ratio=0.5, scope="channels", allocation="global")
    np.testing.assert_array_equal(keep["0"], [0, 2])
    np.testing.assert_array_equal(keep["1"], [0, 1, 2])


@given(
    sizes=st.lists(st.integers(2, 30), min_size=2, max_size=4).map(tuple),
    ratio=st.floats(0, 0.999),
    seed=st.integers(0, 99),
)
def test_global_keeps_the_highest_scores_of_all(sizes, ratio, seed):
    groups = chain(*sizes)
    rng = np.random.default_rng(seed)
    scores = {name: rng.permutation(group.size) + rng.random() for name, group in groups.items()}
    keep = pruning.select(groups, scores, ratio=ratio, scope="channels", allocation="global")
    count = sum(map(len, keep.values()))
    least = len(sizes)
    assert count == least or abs(count - (1 - ratio) * sum(sizes)) <= 0.5 + 1e-6
    dropped = np.concatenate([np.delete(scores[name], kept) for name, kept in keep.items()])
    stays = [scores[name][kept] for name, kept in keep.items()]
    # The best of a group stays, whatever it is.
    ranked = np.concatenate([np.delete(values, values.argmax()) for values in stays])
    assert not dropped.size or not ranked.size or dropped.max() <= ranked.min()


def test_isomorphic_ratio_is_of_each_structure():
    """Channels of the two kernels with a bias are ranked together, the third alone."""

    def apply(v, x):
        for kernel, *bias in v:
            x = jnp.tanh(x @ kernel + sum(bias))
        return x

    def layer(*shape, bias):
        return [jnp.ones(shape)] + ([jnp.ones((1, shape[1]))] if bias else [])

    variables = [
        layer(3, 4, bias=True),
        layer(4, 6, bias=False),
        layer(6, 4, bias=True),
        layer(4, 2, bias=True),
    ]
    groups = pruning.trace(apply, variables, jnp.ones((1, 3)))
    # Not the first: three inputs, which are no channels, are part of its structure.
    assert list(groups) == ["0/0", "1/0", "2/0"]
    scores = {"0/0": np.arange(4), "1/0": np.arange(6) + 100, "2/0": np.arange(4) + 10}
    options = {"ratio": 0.5, "scope": "channels", "allocation": "isomorphic"}
    assert [len(kept) for kept in pruning.select(groups, scores, **options).values()] == [2, 3, 2]
    everything = pruning.select(groups, scores, **options | {"allocation": "global"})
    assert [len(kept) for kept in everything.values()] == [1, 5, 1]


def test_a_ratio_of_its_own():
    groups = chain(10, 10, 10)
    scores = {name: np.arange(10) for name in groups}
    keep = pruning.select(
        groups, scores, ratio=0.5, scope="channels", ratios={"1": 0.96, "[12]": 0.2}, minimum=1
    )
    assert [len(kept) for kept in keep.values()] == [5, 1, 8]
    assert keep.notes == ("ratio 0.96 would empty group '1': it keeps 1 of 10",)


def test_frozen():
    groups = chain(6, 8, 4)
    scores = {name: np.arange(group.size) for name, group in groups.items()}
    keep = pruning.select(groups, scores, ratio=0.5, scope="channels", frozen=["3"])
    assert [len(kept) for kept in keep.values()] == [3, 4, 4]
    keep = pruning.select(groups, scores, ratio=0.5, scope="channels", frozen=("0",))
    assert [len(kept) for kept in keep.values()] == [6, 4, 2]


def test_infinite_scores():
    scores = {"0": [np.inf, 1, -np.inf, np.inf], "1": np.arange(4)}
    keep = pruning.select(chain(4, 4), scores, ratio=0.25, scope="channels", allocation="global")
    np.testing.assert_array_equal(keep["0"], [0, 1, 3])
    np.testing.assert_array_equal(keep["1"], [1, 2, 3])


@pytest.mark.parametrize("ratio", [-0.1, 1, 1.5, float("nan"), float("inf"), "0.5", True])
def test_bad_ratio(ratio):
    with pytest.raises(UserError, match=r"ratio is .*, expected a number in \[0, 1\)"):
        pruning.select(chain(6, 4), {}, ratio=ratio)


@pytest.mark.parametrize(
    ("options", "given"),
    [
        ({}, "no amount"),
        ({"ratio": 0.5, "flops": 0.5}, "ratio and flops"),
        ({"params": 3, "memory": 2, "latency": 1}, "params and memory and latency"),
    ],
)
def test_not_one_amount(options, given):
    with pytest.raises(UserError, match=f"{given} given, expected one of ratio, flops, params, "):
        pruning.select(chain(6, 4), {}, **options)


@pytest.mark.parametrize("value", [0, -8, 2.0, True])
@pytest.mark.parametrize("name", ["round_to", "minimum"])
def test_bad_integers(name, value):
    with pytest.raises(UserError, match=rf"{name} is .*, expected an integer of at least 1"):
        pruning.select(chain(6, 4), {}, ratio=0.5, **{name: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scope": "some"}, "scope is 'some', expected one of filters, channels, all"),
        ({"allocation": "fair"}, "allocation is 'fair', expected one of uniform, global, isomor"),
        ({"floor": 1.1}, r"floor is 1.1, expected a number in \[0, 1\]"),
        ({"floor": None}, "floor is None, expected"),
        ({"cache": "file"}, "cache is 'file', expected None unless latency is given"),
        ({"measure": len}, "measure is .*, expected None unless latency is given"),
    ],
)
def test_other_bad_arguments(options, message):
    with pytest.raises(UserError, match=message):
        pruning.select(chain(6, 4), {}, ratio=0.5, **options)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"0": np.ones(6)}, r"scores\['1'\] is None, expected 4 numbers"),
        ({"0": np.ones(5), "1": np.ones(4)}, r"scores\['0'\] is .*, expected 6 numbers"),
        ({"0": [1, 2, np.nan, 3, 4, 5], "1": np.ones(4)}, r"scores\['0'\] is .*nan.*, expected 6"),
        ({"0": ["a"] * 6, "1": np.ones(4)}, r"scores\['0'\] is .*, expected 6 numbers"),
        ({"0": np.ones(6), "1": np.ones(4), "2": 1}, "scores has '2', expected names of the 2 gr"),
    ],
)
def test_bad_scores(scores, message):
    with pytest.raises(UserError, match=message):
        pruning.select(chain(6, 4), scores, ratio=0.5)


def test_nothing_in_scope():
    with pytest.raises(UserError, match="scope 'filters' holds none of the 1 groups"):
        pruning.select(chain(6), {"0": np.ones(6)}, ratio=0.5)
