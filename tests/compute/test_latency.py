"""Seconds a call: the median of calls of the compiled function."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctl_jax import compute
from ctl_jax.compute._latency import latency
from ctl_jax.errors import UserError


def sleeper(seconds):
    """A function that takes these seconds, one after the other, when called; and its calls."""
    left = list(seconds)

    def wait(x):
        time.sleep(left.pop(0))
        return x

    return lambda x: jax.pure_callback(wait, jax.ShapeDtypeStruct(x.shape, x.dtype), x), left


def test_the_median_of_the_calls_after_warming_up():
    fn, left = sleeper([0.2, 0.001, 0.02, 0.3, 0.02])
    seconds = latency(fn, jnp.ones(2), calls=3, warmup=2)
    assert 0.02 <= seconds < 0.15
    assert left == []


def test_compiling_is_not_measured():
    def slow_to_trace(x):
        time.sleep(0.3)
        return x + 1

    assert latency(slow_to_trace, 1.0, calls=1, warmup=0) < 0.2


def test_abstract_arguments_stand_for_zeros():
    seen = []

    def fn(tree, key, x):
        jax.debug.callback(lambda *leaves: seen.append(leaves), tree["a"], tree["b"], x)
        return jax.random.normal(key[0], (2,)) + x

    abstract = {
        "a": jax.ShapeDtypeStruct((2,), jnp.int32),
        "b": jax.ShapeDtypeStruct((1, 1), jnp.bfloat16),
    }
    key = jax.eval_shape(lambda: jax.random.split(jax.random.key(0, impl="rbg"), 3))
    assert compute.latency(fn, abstract, key, np.ones(2, np.float32), calls=1, warmup=0) > 0
    jax.effects_barrier()
    ((a, b, x),) = seen
    assert (a.dtype, b.dtype, b.shape) == (jnp.int32, jnp.bfloat16, (1, 1))
    assert (a.tolist(), b.tolist(), x.tolist()) == ([0, 0], [[0]], [1, 1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"calls": 0}, "calls is 0, expected an integer of at least 1"),
        ({"calls": 2.0}, "calls is 2.0, expected"),
        ({"calls": True}, "calls is True, expected"),
        ({"warmup": -1}, "warmup is -1, expected an integer of at least 0"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(UserError, match=message):
        latency(jnp.sin, 1.0, **options)
