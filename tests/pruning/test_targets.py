"""Targets: met from below, by widths of which none can be a step wider."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctl_jax import compute, pruning
from ctl_jax.errors import UserError
from ctl_jax.pruning._allocation import ALLOCATIONS, Range
from ctl_jax.pruning._cost_model import KINDS


@functools.cache
def network() -> tuple[pruning.Groups, dict[str, jax.Array]]:
    """Convolutions at two resolutions around a residual stream."""

    def apply(v, x):
        def conv(x, kernel, stride=1):
            numbers = ("NHWC", "HWIO", "NHWC")
            strides = (stride, stride)
            return jax.lax.conv_general_dilated(
                x, kernel, strides, "SAME", dimension_numbers=numbers
            )

        x = jnp.tanh(conv(x, v["a"]))
        x = jnp.tanh(conv(x, v["b"], 2))
        x = x + conv(jnp.tanh(conv(x, v["c"])), v["d"])
        return jnp.tanh(x).mean((1, 2)) @ v["e"]

    shapes = {
        "a": (3, 3, 3, 16),
        "b": (3, 3, 16, 24),
        "c": (1, 1, 24, 48),
        "d": (3, 3, 48, 24),
        "e": (24, 2),
    }
    variables = {name: jnp.ones(shape) for name, shape in shapes.items()}
    return pruning.trace(apply, variables, jnp.ones((1, 16, 16, 3))), variables


def random_scores(groups: pruning.Groups, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.random(group.size) * rng.random() for name, group in groups.items()}


@given(
    kind=st.sampled_from(KINDS),
    share=st.floats(0.01, 0.99),
    allocation=st.sampled_from(ALLOCATIONS),
    round_to=st.sampled_from([1, 4, 5]),
    floor=st.sampled_from([0.0, 0.2]),
    seed=st.integers(0, 9),
)
def test_a_target_is_met_from_below_and_nothing_more_fits(
    kind, share, allocation, round_to, floor, seed
):
    groups, _ = network()
    cost = getattr(groups.costs, kind)
    ranges = {name: Range.of(groups[name], round_to, 1, floor) for name in groups}
    lowest = cost({name: allowed.least for name, allowed in ranges.items()})
    options = {"scope": "channels", "allocation": allocation, "round_to": round_to, "floor": floor}
    scores = random_scores(groups, seed)
    if share * cost() < lowest:
        with pytest.raises(UserError, match=f"{kind} is {share}, expected at least 0") as error:
            pruning.select(groups, scores, **{kind: share}, **options)
        assert f"{lowest} of the full {cost()}" in str(error.value)
        return
    keep = pruning.select(groups, scores, **{kind: share}, **options)
    assert cost(keep) <= share * cost()
    widths = {name: len(kept) for name, kept in keep.items()}
    for name, allowed in ranges.items():
        width = widths[name]
        assert width >= allowed.least
        assert width % round_to == 0 or width == allowed.size
        wider = min(width + allowed.step, allowed.size)
        assert wider == width or cost({**widths, name: wider}) > share * cost()
    assert keep.notes[0] == f"{kind} {cost(keep) / cost():.6g} of the full, asked {share}"


@pytest.mark.parametrize("allocation", ALLOCATIONS)
def test_flops_are_those_that_the_counter_finds(allocation):
    groups, variables = network()
    scores = random_scores(groups, 0)
    keep = pruning.select(groups, scores, flops=0.5, scope="channels", allocation=allocation)
    small = pruning.prune(variables, groups, keep)
    full = compute.flops(groups.apply_fn, variables, *groups.inputs)
    share = compute.flops(groups.apply_fn, small, *groups.inputs) / full
    assert 0.49 < share <= 0.5
    assert keep.notes == (f"flops {share:.6g} of the full, asked 0.5",)


def test_uniform_keeps_about_the_same_share_of_each():
    groups, _ = network()
    keep = pruning.select(groups, random_scores(groups, 0), params=0.4, scope="channels")
    shares = [len(kept) / groups[name].size for name, kept in keep.items()]
    assert max(shares) - min(shares) < 0.1


def test_global_cuts_where_scores_are_low():
    groups, _ = network()
    scores = {name: np.full(group.size, 1.0) for name, group in groups.items()}
    scores["c"] = np.linspace(0, 0.5, 48)
    options = {"params": 0.8, "scope": "channels", "allocation": "global"}
    keep = pruning.select(groups, scores, **options)
    assert len(keep["c"]) < 48
    assert all(len(keep[name]) == groups[name].size for name in groups if name != "c")


def test_absolute_targets_and_fractions_agree():
    groups, _ = network()
    scores = random_scores(groups, 3)
    for kind in KINDS:
        full = getattr(groups.costs, kind)()
        share = pruning.select(groups, scores, **{kind: 0.75}, scope="channels")
        for number in (int(0.75 * full), float(int(0.75 * full))):
            absolute = pruning.select(groups, scores, **{kind: number}, scope="channels")
            assert absolute == share
            left = getattr(groups.costs, kind)(absolute)
            assert absolute.notes == (f"{kind} {left} of the full {full}, asked {number}",)


@pytest.mark.parametrize("amount", [1.0, 10**12, 1e15])
def test_a_target_that_the_full_network_meets(amount):
    groups, _ = network()
    keep = pruning.select(groups, random_scores(groups, 0), flops=amount, scope="channels")
    assert all(len(kept) == groups[name].size for name, kept in keep.items())
    assert keep.notes == (f"flops {amount} is not below the full network's: everything stays",)


def test_the_lowest_target_named_can_be_reached():
    groups, _ = network()
    scores = random_scores(groups, 0)
    with pytest.raises(UserError, match=r"flops is 0\.0001, expected at least") as error:
        pruning.select(groups, scores, flops=0.0001, minimum=3)
    least = float(str(error.value).split("at least ")[1].split(":")[0])
    keep = pruning.select(groups, scores, flops=least, minimum=3)
    assert {name: len(keep[name]) for name in groups.in_scope("filters")} == {"a": 3, "c": 3}
    with pytest.raises(UserError, match="params is 1, expected at least 5") as error:
        pruning.select(groups, scores, params=1)
    least = int(str(error.value).split("at least ")[1].split(":")[0])
    assert groups.costs.params(pruning.select(groups, scores, params=least)) == least


def test_own_ratios_and_frozen_parameters_hold_while_a_target_is_met():
    groups, _ = network()
    scores = random_scores(groups, 0)
    keep = pruning.select(groups, scores, flops=0.5, scope="channels", ratios={"a": 0.25, "b": 0.0})
    assert (len(keep["a"]), len(keep["b"])) == (12, 24)
    assert 0.48 < groups.costs.flops(keep) / groups.costs.flops() <= 0.5
    keep = pruning.select(groups, scores, flops=0.8, scope="channels", frozen=["d"])
    assert (len(keep["b"]), len(keep["c"])) == (24, 48)
    assert 0.77 < groups.costs.flops(keep) / groups.costs.flops() <= 0.8


@pytest.mark.parametrize("amount", [0, -1, 0.0, float("nan"), float("inf"), "0.5", True])
@pytest.mark.parametrize("kind", KINDS)
def test_bad_target(kind, amount):
    groups, _ = network()
    with pytest.raises(UserError, match=rf"{kind} is {amount!r}, expected a share of the full"):
        pruning.select(groups, random_scores(groups, 0), **{kind: amount})
