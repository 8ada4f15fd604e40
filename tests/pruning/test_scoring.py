"""Scores against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctl_jax import pruning
from ctl_jax.errors import UserError

NORMS = {"l1": lambda w: sum(abs(w)), "l2": lambda w: sum(w * w) ** 0.5}


def apply(v, x):
    x = x @ v["stem"]
    return (x + jnp.tanh(x @ v["one"]) @ v["two"]) @ v["head"]


@pytest.fixture(scope="module")
def variables():
    rng = np.random.default_rng(0)
    shapes = {"stem": (3, 4), "one": (4, 6), "two": (6, 4), "head": (4, 2)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def groups(variables):
    return pruning.trace(apply, variables, np.ones((2, 3), np.float32))


def test_every_criterion_is_tested():
    assert NORMS.keys() == pruning.CRITERIA.keys()


@pytest.mark.parametrize("criterion", pruning.CRITERIA)
def test_norm_of_all_producing_slices_together(groups, variables, criterion):
    scores = pruning.score(groups, variables, criterion)
    assert list(scores) == list(groups) == ["stem", "one"]
    norm, wide = NORMS[criterion], {k: v.astype(np.float64) for k, v in variables.items()}
    together = np.concatenate([wide["stem"], wide["two"]])
    np.testing.assert_allclose(scores["stem"], [norm(w) for w in together.T], rtol=1e-12)
    np.testing.assert_allclose(scores["one"], [norm(w) for w in wide["one"].T], rtol=1e-12)
    assert all(value.dtype == np.float64 for value in scores.values())


def test_jax_and_half_precision_leaves(groups, variables):
    half = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), variables)
    back = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), half)
    for name, value in pruning.score(groups, half).items():
        np.testing.assert_array_equal(value, pruning.score(groups, back)[name])


def test_bad_input(groups, variables):
    with pytest.raises(UserError, match="criterion is 'l3', expected one of l1, l2"):
        pruning.score(groups, variables, "l3")
    with pytest.raises(UserError, match=r"two has shape \(6, 3\), expected \(6, 4\)"):
        pruning.score(groups, variables | {"two": np.ones((6, 3))})
    with pytest.raises(UserError, match="variables has no 'one'"):
        pruning.score(groups, {k: v for k, v in variables.items() if k != "one"})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(groups, variables, value):
    broken = variables["two"].copy()
    broken[1, 2] = value
    with pytest.raises(UserError, match="two has 1 values that are NaN or infinite"):
        pruning.score(groups, variables | {"two": broken})
