"""Widths that a group may have, and the order in which allocations give them up."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctl_jax import pruning
from ctl_jax.pruning._allocation import ALLOCATIONS, Range, ladder, pools

from .networks import chain


@functools.cache
def flattened() -> pruning.Groups:
    """A group whose reader has four positions a channel, and one whose producer has (heads)."""

    def apply(v, x):
        x = (x @ v["conv"]).reshape(x.shape[0], -1)  # 4 positions of 6 channels
        x = jnp.tanh(x @ v["q"]).reshape(x.shape[0], 3, -1)  # 3 heads of 4
        return jnp.tanh(x * 2).sum(1) @ v["out"]

    variables = {"conv": jnp.ones((2, 6)), "q": jnp.ones((24, 12)), "out": jnp.ones((4, 2))}
    return pruning.trace(apply, variables, jnp.ones((2, 4, 2)))


@pytest.mark.parametrize(
    ("size", "round_to", "minimum", "floor", "least"),
    [
        (10, 1, 1, 0.0, 1),
        (10, 1, 3, 0.0, 3),
        (10, 1, 12, 0.0, 10),
        (10, 1, 3, 0.35, 4),  # 3.5
        (10, 1, 1, 0.3, 3),  # though 0.3 * 10 may be more
        (10, 4, 1, 0.0, 4),
        (10, 4, 5, 0.0, 8),
        (10, 4, 9, 0.0, 10),
        (10, 16, 1, 0.0, 10),
    ],
)
def test_least_width(size, round_to, minimum, floor, least):
    groups = chain(size, 4)
    assert Range.of(groups["0"], round_to, minimum, floor) == Range(size, least, round_to)


def test_a_channel_of_several_positions_counts_for_each_of_them():
    groups = flattened()
    ((name, group),) = [(n, g) for n, g in groups.items() if n == "q"]
    (positions,) = [m.positions.shape[1] for m in group.members if m.role == "out"]
    assert (name, positions) == ("q", 3)
    assert Range.of(group, 6, 1, 0.0) == Range(4, 2, 2)  # 6 of 12 positions
    assert Range.of(group, 3, 1, 0.0) == Range(4, 1, 1)
    assert Range.of(group, 4, 1, 0.0) == Range(4, 4, 4)
    # Those of a reader do not count.
    assert Range.of(groups["conv"], 4, 1, 0.0) == Range(6, 4, 4)


def steps_of(
    groups: pruning.Groups, scores: dict[str, list[float]], allocation: str, round_to: int = 1
) -> list[tuple[int, int]]:
    """Group and gain of each step, in their order."""
    ranges = {name: Range.of(groups[name], round_to, 1, 0.0) for name in groups}
    ranked = {name: -np.sort(-np.asarray(value, float)) for name, value in scores.items()}
    steps = ladder(groups, np.zeros(len(groups), np.int64), ranges, ranked, allocation).ordered
    return list(zip(steps.group.tolist(), steps.gain.tolist(), strict=True))


def test_uniform_widens_where_the_share_is_reached_first():
    # Shares: of 4 channels 1.5/4, 2.5/4, 3.5/4; of 6 channels 1.5/6, ..., 5.5/6.
    steps = steps_of(chain(4, 6), {"0": [0] * 4, "1": [9] * 6}, "uniform")
    assert [group for group, _ in steps] == [1, 0, 1, 1, 0, 1, 0, 1]


def test_global_widens_by_score():
    scores = {"0": [9, 1, 4, 2], "1": [8, 3, 3, 5]}
    steps = steps_of(chain(4, 4), scores, "global")
    assert [group for group, _ in steps] == [1, 0, 1, 1, 0, 0]
    assert {gain for _, gain in steps} == {1}


def test_global_ranks_steps_by_their_mean_score():
    # Pairs after the first: means 4.5 and 1 against 3.5 and 3, and a last one alone.
    scores = {"0": [9, 9, 7, 2, 2, 0], "1": [9, 9, 4, 3, 3, 3, 2.5]}
    steps = steps_of(chain(6, 7), scores, "global", round_to=2)
    assert steps == [(0, 2), (1, 2), (1, 2), (1, 1), (0, 2)]


def test_infinite_scores_rank_first_and_last():
    scores = {"0": [np.inf, np.inf, np.inf, -np.inf], "1": [5.0, 4, 3, 2]}
    assert [group for group, _ in steps_of(chain(4, 4), scores, "global")] == [0, 0, 1, 1, 1, 0]


@given(data=st.data())
def test_a_ladder_leads_from_the_least_to_the_full_widths(data):
    sizes = data.draw(st.lists(st.integers(2, 20), min_size=2, max_size=2))
    groups = chain(*sizes)
    round_to, floor = data.draw(st.integers(1, 5)), data.draw(st.sampled_from([0.0, 0.3, 1.0]))
    ranges = {name: Range.of(groups[name], round_to, 1, floor) for name in groups}
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    ranked = {name: -np.sort(-rng.integers(0, 5, groups[name].size) / 3) for name in groups}
    for allocation in ALLOCATIONS:
        steps = ladder(groups, np.zeros(2, np.int64), ranges, ranked, allocation)
        before = steps.widths(-1.0)
        assert before.tolist() == [ranges[name].least for name in groups]
        for share in np.linspace(0, 1, 13):
            widths = steps.widths(share)
            assert (widths >= before).all()
            for width, allowed in zip(widths, ranges.values(), strict=True):
                assert width % allowed.step == 0 or width == allowed.size
            before = widths
        assert before.tolist() == sizes
        assert (np.diff(steps.ordered.share) >= 0).all()
        whole = steps.climb(steps.group, steps.gain)
        assert whole.tolist() == sizes
        if allocation == "uniform":  # the two say the same
            for share in np.linspace(0, 1, 13):
                widths = [allowed.width(share) for allowed in ranges.values()]
                assert steps.widths(share).tolist() == widths


def conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)


def test_pools():
    """Two 3x3 blocks of different widths are isomorphic; a 1x1 one is not, nor the stem."""

    def apply(v, x):
        x = jnp.tanh(conv(x, v["stem"]["kernel"]))
        for name in ("one", "two", "three"):
            block = v[name]
            y = jnp.tanh(conv(x, block["first"]["kernel"]) + block["first"]["bias"][None, None])
            x = x + conv(y, block["last"]["kernel"])
        return x.mean((1, 2)) @ v["head"]["kernel"]

    def block(size: int, width: int) -> dict[str, dict[str, jax.Array]]:
        return {
            "first": {"kernel": jnp.ones((size, size, 8, width)), "bias": jnp.ones((1, width))},
            "last": {"kernel": jnp.ones((1, 1, width, 8))},
        }

    variables = {
        "stem": {"kernel": jnp.ones((3, 3, 3, 8))},
        "one": block(3, 5),
        "two": block(1, 5),
        "three": block(3, 7),
        "head": {"kernel": jnp.ones((8, 2))},
    }
    groups = pruning.trace(apply, variables, jnp.ones((1, 4, 4, 3)))
    stem, one, two, three = (
        f"{name}/kernel" for name in ("stem", "one/first", "two/first", "three/first")
    )
    assert list(groups) == [stem, one, two, three]
    names = list(groups)
    assert list(pools(groups, names, "isomorphic")) == [[stem], [one, three], [two]]
    assert list(pools(groups, names, "global")) == [names]
    assert list(pools(groups, names, "uniform")) == [[name] for name in names]
    assert list(pools(groups, [], "global")) == []
