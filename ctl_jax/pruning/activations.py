"""The criterion that looks at activations: an interpreter that looks where channels are read.

Kernels say how a channel is made; the values that arrive where a convolution or a matrix product
reads it say how much is in it. `Groups.readings` names these places by the number of the equation,
as the walk of the trace counts them. The interpreter goes through the program in the same order and
takes the mean there. All of it is one jitted function, so that what no reading needs is never
computed, and one number a channel comes back.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

from ctl_jax.errors import UserError
from ctl_jax.pruning.groups import Reading
from ctl_jax.pruning.measure import Parts, Request
from ctl_jax.pruning.slices import Vector
from ctl_jax.pruning.walk import RULES

_PRODUCTS = ("conv_general_dilated", "dot_general")
# Programs inside of an equation, in the order in which the rules of the trace walk them. A call has
# one of these; it is entered. Loops and branches are only counted.
_CALLED = ("jaxpr", "call_jaxpr")
_LOOPS = {"scan": ("jaxpr",), "while": ("body_jaxpr", "cond_jaxpr"), "cond": ("branches",)}

# Of a reading the mean of |a| at each position of its axis, float32 [n], and of how many values.
Mean = tuple[jax.Array, float]


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
        program = jax.make_jaxpr(request.apply_fn)(variables, *inputs)
        found: dict[int, Mean] = {}

        def look(number: int, eqn: JaxprEqn, operands: Sequence[Any]) -> None:
            for i in wanted.get(number, ()):
                found[i] = _mean(readings[i], eqn, operands)

        arguments = jax.tree.leaves((variables, inputs))
        _evaluate(program.jaxpr, program.consts, arguments, 0, wanted, look)
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
    here = eqn.primitive.name in _PRODUCTS
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


def _evaluate(
    jaxpr: Jaxpr,
    consts: Sequence[Any],
    arguments: Sequence[Any],
    first: int,
    wanted: Mapping[int, Any],
    look: Callable[[int, JaxprEqn, Sequence[Any]], None],
) -> list[Any]:
    """The outputs of `jaxpr`, whose equations are numbered from `first`."""
    env: dict[Var, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    env.update(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Var | Literal) -> Any:
        return atom.val if isinstance(atom, Literal) else env[atom]

    number = first
    for eqn in jaxpr.eqns:
        operands = [read(atom) for atom in eqn.invars]
        look(number, eqn, operands)
        start, number = number + 1, number + 1 + _inner(eqn)
        if _is_call(eqn) and any(start <= i < number for i in wanted):
            (body,) = _bodies(eqn)
            found = _evaluate(body.jaxpr, body.consts, operands, start, wanted, look)
        else:
            found = _bind(eqn, operands)
        env.update(zip(eqn.outvars, found, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _bind(eqn: JaxprEqn, operands: Sequence[Any]) -> list[Any]:
    bound = eqn.primitive.get_bind_params(eqn.params)
    functions, params = bound if isinstance(bound, tuple) else ((), bound)
    with eqn.ctx.manager:
        results = eqn.primitive.bind(*functions, *operands, **params)
    return list(results) if eqn.primitive.multiple_results else [results]


def _is_call(eqn: JaxprEqn) -> bool:
    return RULES.get(eqn.primitive.name) is RULES["jit"]


def _bodies(eqn: JaxprEqn) -> list[ClosedJaxpr]:
    """The programs inside of an equation."""
    keys = _CALLED if _is_call(eqn) else _LOOPS.get(eqn.primitive.name, ())
    bodies: list[ClosedJaxpr] = []
    for key in keys:
        found = eqn.params.get(key, ())
        bodies += [
            body if isinstance(body, ClosedJaxpr) else ClosedJaxpr(body, ())
            for body in (found if isinstance(found, tuple) else (found,))
        ]
    return bodies


def _inner(eqn: JaxprEqn) -> int:
    """How many equations there are inside of one."""
    return sum(1 + _inner(inner) for body in _bodies(eqn) for inner in body.jaxpr.eqns)
