"""Element-wise operations, each against a number worked out by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from ctl_jax import compute

X = jax.ShapeDtypeStruct((6, 8), jnp.float32)
IMAGES = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)


def max_pool(x):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "VALID")


CASES = {
    "one per output element": (lambda x: jnp.exp(x) * x, X, 2 * 48),
    "a reduction reads each element": (lambda x: jnp.max(x, axis=1), X, 48),
    "argmax too": (lambda x: lax.argmax(x, 1, jnp.int32), X, 48),
    "scalars broadcast for nothing": (lambda x: x + 1, X, 48),
    "moving data costs nothing": (
        lambda x: jnp.concatenate([x.T.reshape(6, 8), x[::-1]]).astype(jnp.bfloat16),
        X,
        0,
    ),
    "reading by static index": (lambda x: lax.dynamic_slice(x, (1, 2), (2, 2)), X, 0),
    "a scatter adds each update": (
        lambda x: lax.scatter_add(
            x,
            jnp.zeros((1, 1), jnp.int32),
            x[:1],
            lax.ScatterDimensionNumbers((1,), (0,), (0,)),
        ),
        X,
        8,
    ),
    "a window reads all its elements": (max_pool, IMAGES, 2 * 3 * 3 * 3 * 9),
    "max pooling backwards": (
        lambda x: jax.vjp(max_pool, x)[1](max_pool(x)),
        IMAGES,
        3 * 2 * 3 * 3 * 3 * 9,
    ),
    "a loop repeats": (lambda x: lax.fori_loop(0, 5, lambda i, y: y * y, x), X, 5 * 48 + 5),
}


@pytest.mark.parametrize("name", CASES)
def test_by_hand(name):
    fn, x, expected = CASES[name]
    count = compute.count(fn, x)
    assert count.elementwise == expected, count.by_primitive
    assert count.flops == 0
