"""Small networks that several files prune."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from ctl_jax import pruning

# Of `residual`.
SHAPES = {"stem": (3, 4), "one": (4, 6), "two": (6, 4), "head": (8, 2)}


@functools.cache
def chain(*widths: int) -> pruning.Groups:
    """Groups "0", "1", ... of these sizes, all but the last inside a block."""

    def apply(v, x):
        for kernel in v:
            x = jnp.tanh(x @ kernel)
        return x

    kernels = [np.ones(pair, np.float32) for pair in itertools.pairwise((3, *widths, 2))]
    return pruning.trace(apply, kernels, np.ones((1, 3), np.float32))


def hidden(v: dict[str, jax.Array], x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What `residual` reads: the stem's channels, then those of the block, then the stream."""
    stem = jnp.tanh(x @ v["stem"])
    inside = jnp.tanh(stem @ v["one"])
    return stem, inside, stem + inside @ v["two"]


def residual(v: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """A block of dense layers, and a head that reads each channel at two positions."""
    return hidden(v, x)[2].reshape(len(x) // 2, -1) @ v["head"]
