"""Closed-form costs: against the sums written out, and against the counter on pruned networks."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctl_jax import compute, pruning
from ctl_jax.errors import UserError
from ctl_jax.pruning._cost_model import KINDS, Costs, Terms


def random_costs(seed: int) -> Costs:
    """Costs of no program: any axes, any terms, lives in any order."""
    rng = np.random.default_rng(seed)
    groups, axes, values = rng.integers(1, 5), rng.integers(1, 9), rng.integers(1, 12)
    per_width = rng.integers(0, 3, (axes, groups)) * rng.integers(0, 2, (axes, groups))
    fixed = rng.integers(0, 5, axes)
    per_width[0], fixed[0] = 0, 1

    def terms(count: int, factors: int) -> Terms:
        return Terms(rng.integers(0, 9, count), rng.integers(0, axes, (count, factors)))

    birth = rng.integers(0, 6, values)
    return Costs(
        names=tuple(f"g{i}" for i in range(groups)),
        sizes=rng.integers(1, 10, groups),
        fixed=fixed,
        per_width=per_width.astype(float),
        flop_terms=terms(rng.integers(0, 6), 3),
        param_terms=terms(rng.integers(1, 6), 2),
        memory_terms=terms(values, 2),
        birth=birth,
        death=birth + rng.integers(0, 4, values),
    )


def written_out(costs: Costs, terms: Terms, widths: np.ndarray) -> list[int]:
    sizes = [int(n) for n in costs.fixed + costs.per_width @ widths]
    return [
        int(c) * int(np.prod([sizes[axis] for axis in axes]))
        for c, axes in zip(terms.coefficients, terms.axes, strict=True)
    ]


@given(seed=st.integers(0, 2**32 - 1))
def test_costs_are_their_terms_written_out(seed):
    costs = random_costs(seed)
    many = np.random.default_rng(seed + 1).integers(1, costs.sizes + 1, (3, len(costs.sizes)))
    for widths in many:
        assert costs.flops(widths) == sum(written_out(costs, costs.flop_terms, widths))
        assert costs.params(widths) == sum(written_out(costs, costs.param_terms, widths))
        values = written_out(costs, costs.memory_terms, widths)
        lives = list(zip(values, costs.birth, costs.death, strict=True))
        alive = [sum(v for v, b, d in lives if b <= t <= d) for t in range(11)]
        assert costs.memory(widths) == max(alive)
    for kind in KINDS:
        each = [getattr(costs, kind)(widths) for widths in many]
        np.testing.assert_array_equal(costs.evaluate(kind, many), each)


@functools.cache
def network() -> tuple[pruning.Groups, dict[str, jax.Array]]:
    """A convolution, a residual stream, a flattened map and a head."""

    def apply(v, x):
        conv = functools.partial(
            jax.lax.conv_general_dilated,
            window_strides=(2, 2),
            padding="SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        x = jnp.tanh(conv(x, v["a"]) + v["bias"][None, None, None])
        x = jnp.tanh(conv(x, v["b"])).reshape(x.shape[0], -1)
        x = jnp.tanh(x @ v["c"])
        return (x + jnp.tanh(x @ v["d"]) @ v["e"]) @ v["f"]

    shapes = {
        "a": (3, 3, 3, 6),
        "bias": (6,),
        "b": (3, 3, 6, 5),
        "c": (20, 8),
        "d": (8, 7),
        "e": (7, 8),
        "f": (8, 2),
    }
    variables = {name: jnp.ones(shape) for name, shape in shapes.items()}
    return pruning.trace(apply, variables, jnp.ones((2, 8, 8, 3))), variables


@settings(max_examples=25)  # each is a trace
@given(data=st.data())
def test_flops_and_params_are_those_of_the_pruned_network(data):
    groups, variables = network()
    widths = {name: data.draw(st.integers(1, group.size)) for name, group in groups.items()}
    keep = pruning.Keep({name: np.arange(n) for name, n in widths.items()}, groups.layout)
    small = jax.eval_shape(lambda v: pruning.prune(v, groups, keep), variables)
    assert groups.costs.flops(keep) == compute.flops(groups.apply_fn, small, *groups.inputs)
    assert groups.costs.params(keep) == sum(leaf.size for leaf in jax.tree.leaves(small))
    for kind in KINDS:
        cost = getattr(groups.costs, kind)
        assert cost(widths) == cost(keep) == cost(np.array(list(widths.values())))
        assert cost(keep) <= cost()


def test_costs_of_the_full_network():
    groups, variables = network()
    assert groups.costs.flops() == compute.flops(groups.apply_fn, variables, *groups.inputs)
    chex.assert_trees_all_equal(groups.costs.vector(), np.array([g.size for g in groups.values()]))


@pytest.mark.parametrize(
    "product",
    [
        jax.lax.composite(jnp.matmul, name="ctl.matmul"),
        lambda x, y: jax.lax.ragged_dot(x, y[None], jnp.array([x.shape[0]])),
        lambda x, y: x @ jax.lax.linalg.symmetric_product(y, jnp.zeros((8, 8))),
    ],
    ids=["composite", "ragged_dot", "symmetric_product"],
)
def test_products_that_no_rule_knows_cost_what_they_are_at_full_width(product):
    def apply(v, x):
        return jnp.tanh(product(jnp.tanh(x @ v["a"]), v["b"])) @ v["c"]

    v = {"a": jnp.ones((3, 8)), "b": jnp.ones((8, 8)), "c": jnp.ones((8, 2))}
    groups = pruning.trace(apply, v, jnp.ones((4, 3)))
    assert groups.costs.flops() == compute.flops(apply, v, jnp.ones((4, 3)))


def test_a_function_without_groups_still_costs():
    groups = pruning.trace(lambda v, x: x @ v, jnp.ones((3, 2)), jnp.ones((4, 3)))
    assert len(groups) == 0
    assert (groups.costs.flops(), groups.costs.params({})) == (48, 6)


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ({"x": 2}, "widths: group 'a' is in costs only, expected the groups"),
        ([1, 2], "widths is .1, 2., expected 4 integers"),
        (np.ones(4), "widths is .*, expected 4 integers"),
        ([6, 5, 8, 0], "widths: group 'd' has 0 channels, expected 1 to 7"),
        ([7, 5, 8, 1], "widths: group 'a' has 7 channels, expected 1 to 6"),
    ],
)
def test_bad_widths(widths, message):
    groups, _ = network()
    assert list(groups) == ["a", "b", "c", "d"]
    with pytest.raises(UserError, match=message):
        groups.costs.flops(widths)


def test_widths_of_another_group():
    groups, _ = network()
    widths = dict.fromkeys(itertools.chain(groups, ["z"]), 1)
    with pytest.raises(UserError, match="group 'z' is in widths only"):
        groups.costs.memory(widths)
