"""The criterion that looks at activations, where channels are read.

Kernels say how a channel is made; the values that arrive where a convolution or a matrix product
reads it say how much is in it. `Groups.readings` names these places, and `jaxprs.evaluate` shows
what arrives there, of which the mean is taken. All of it is one jitted function, so that what no
reading needs is never computed, and one number a channel comes back.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import JaxprEqn

from ctl_jax import compute
from ctl_jax.errors import UserError
from ctl_jax.jaxprs import evaluate
from ctl_jax.pruning._groups import PRODUCTS, Reading
from ctl_jax.pruning.criteria import criterion
from ctl_jax.pruning.criteria.request import Parts, Request
from ctl_jax.pruning.criteria.slices import Vector

# Of a reading the mean of |a| at each position of its axis, float32 [n], and of how many values.
Mean = tuple[jax.Array, float]


def _flops_of_activation(request: Request, batch: Any) -> int:
    """FLOPs of `activation` on a batch, perhaps abstract: a forward pass."""
    return compute.flops(_step(request), request.variables, _inputs(request, batch))


@criterion("activation", needs="activations", by_role=False, flops=_flops_of_activation)
def activation(request: Request) -> Parts:
    """mean |a| over the examples, pixels and tokens where a product reads the channel.

    Molchanov et al. 2017, "Pruning Convolutional Neural Networks for Resource Efficient Inference"
    (criterion "mean activation"), of absolute values, for activations that are not positive. A part
    is a product that reads the group; one that reads a channel at several positions (a flattened
    feature map) takes their mean. Every example counts the same, whatever the size of its batch.
    """
    readings = request.groups.readings
    unread = [name for name in request.groups if name not in {r.group for r in readings}]
    if unread:
        raise UserError(
            f"group {unread[0]!r} is read by no convolution or matrix product outside of a loop, "
            "expected one for criterion 'activation'"
        )
    step = _step(request)
    totals = [np.zeros(len(reading.channels)) for reading in readings]
    counts = [0.0] * len(readings)
    for batch in request.data():
        inputs = _inputs(request, batch)
        for i, (means, count) in enumerate(jax.device_get(step(request.variables, inputs))):
            totals[i] += count * means.astype(np.float64)
            counts[i] += count
    parts: Parts = {name: [] for name in request.groups}
    for reading, total, count in zip(readings, totals, counts, strict=True):
        size = request.groups[reading.group].size
        parts[reading.group].append(_by_channel(reading, total / count, size))
    return parts


def _inputs(request: Request, batch: Any) -> tuple[Any, ...]:
    """The inputs of the function that are in a batch: its only one, or a tuple of several."""
    several = len(request.groups.inputs)
    if several == 1:
        return (batch,)
    if not isinstance(batch, tuple) or len(batch) != several:
        found = (
            f"a tuple of {len(batch)}" if isinstance(batch, tuple) else f"a {type(batch).__name__}"
        )
        raise UserError(f"a batch is {found}, expected a tuple of the {several} inputs as traced")
    return batch


def _by_channel(reading: Reading, means: Vector, size: int) -> Vector:
    ours = reading.channels >= 0
    channels, found = reading.channels[ours], means[ours]
    if not np.isfinite(found).all():
        raise UserError(
            f"activations of group {reading.group!r} are NaN or infinite where equation "
            f"{reading.equation} reads them, expected finite numbers"
        )
    times = np.bincount(channels, minlength=size)
    return np.bincount(channels, found, minlength=size) / np.maximum(times, 1)


def _step(request: Request) -> Callable[[Any, tuple[Any, ...]], list[Mean]]:
    """One batch: the mean of each reading."""
    readings = request.groups.readings
    wanted: dict[int, list[int]] = {}
    for i, reading in enumerate(readings):
        wanted.setdefault(reading.equation, []).append(i)

    @jax.jit
    def step(variables: Any, inputs: tuple[Any, ...]) -> list[Mean]:
        assert request.apply_fn is not None
        found: dict[int, Mean] = {}

        def look(number: int, eqn: JaxprEqn, operands: Sequence[Any]) -> None:
            for i in wanted.get(number, ()):
                found[i] = _mean(readings[i], eqn, operands)

        evaluate(request.apply_fn, (variables, *inputs), wanted, look)
        for i, reading in enumerate(readings):
            if i not in found:
                raise UserError(
                    f"apply_fn has no equation {reading.equation} outside of loops, expected the "
                    f"product that reads group {reading.group!r} in the function that was traced"
                )
        return [found[i] for i in range(len(readings))]

    return step


def _mean(reading: Reading, eqn: JaxprEqn, operands: Sequence[Any]) -> Mean:
    shape = jnp.shape(operands[reading.operand]) if reading.operand < len(operands) else ()
    here = eqn.primitive.name in PRODUCTS
    if not here or shape[reading.axis : reading.axis + 1] != reading.channels.shape:
        raise UserError(
            f"equation {reading.equation} of apply_fn is {eqn.primitive.name} of "
            f"{', '.join(str(jax.typeof(value)) for value in operands)}, expected the product that "
            f"reads group {reading.group!r} in the function that was traced"
        )
    x = operands[reading.operand]
    others = [i for i in range(x.ndim) if i != reading.axis]
    means = jnp.abs(x).astype(jnp.float32).mean(others)
    return means, x.size / len(reading.channels)
