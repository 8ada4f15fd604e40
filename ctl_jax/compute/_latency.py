"""Seconds that one call of a function takes on this device."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ctl_jax.errors import UserError


def latency(fn: Callable[..., Any], *args: Any, calls: int = 10, warmup: int = 2) -> float:
    """Median wall-clock time of one compiled call of `fn(*args)`, in seconds.

    The function is compiled first, then called `warmup` times unmeasured. Each measured call starts
    when the device is idle and ends when its results are there (`jax.block_until_ready`), so
    dispatch, some 20 microseconds, is part of it; compiling is not, nor is copying arguments to the
    device. The median ignores the odd call that something else on the machine held up.

    Args:
      fn: a function of pytrees of arrays that `jax.jit` can compile.
      *args: arrays, or `jax.ShapeDtypeStruct`s in their place, which stand for zeros.
      calls: how many are measured.
      warmup: how many come before.

    Returns:
      Seconds.

    Raises:
      UserError: `calls` is below 1 or `warmup` below 0.

    Example:
      >>> latency(jnp.dot, jax.ShapeDtypeStruct((512, 512), jnp.float32), jnp.ones((512, 512)))
      0.0008...
    """
    for name, value, least in (("calls", calls, 1), ("warmup", warmup, 0)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UserError(f"{name} is {value!r}, expected an integer of at least {least}")
    arrays = jax.tree.map(_array, args)
    compiled = jax.jit(fn).lower(*arrays).compile()
    for _ in range(warmup):
        jax.block_until_ready(compiled(*arrays))
    seconds = []
    for _ in range(calls):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*arrays))
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _array(leaf: Any) -> Any:
    """The leaf on its device, zeros in the place of an abstract one."""
    if not isinstance(leaf, jax.ShapeDtypeStruct):
        return jnp.asarray(leaf)
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jnp.broadcast_to(jax.random.key(0, impl=leaf.dtype), leaf.shape)
    return jnp.zeros(leaf.shape, leaf.dtype, device=leaf.sharding)
