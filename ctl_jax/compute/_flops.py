"""FLOPs of a JAX function, read off its jaxpr: nothing runs and nothing is compiled."""

import dataclasses
import functools
import math
import operator
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax import lax
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Primitive, Var, primitives

from ctl_jax.compute import _matmul
from ctl_jax.compute._elementwise import OPERATIONS, per_output
from ctl_jax.compute._products import MULTIPLY_ADDS
from ctl_jax.errors import UserError
from ctl_jax.jaxprs import CALLS, programs, shape_of

# What costs FLOPs that depend on an algorithm or on code that JAX does not show. (Any primitive
# that no table names is refused like these; here they are known to be.)
# fmt: off
UNCOUNTABLE = frozenset([
    "buffer_callback", "call_exported", "call_hi_primitive", "call_hi_primitive_linearized",
    "cholesky", "cholesky_update", "custom_jvp_call_jaxpr", "custom_lin", "eig", "eigh", "ffi_call",
    "fft", "geqp3", "geqrf", "hessenberg", "householder_product", "io_callback", "lu", "ormqr",
    "pallas_call", "pure_callback", "qr", "rnn_bwd", "rnn_fwd", "schur", "spsolve", "svd",
    "tpu_custom_call", "triangular_solve", "tridiagonal", "tridiagonal_solve",
])
# fmt: on

# Primitives that run one program, however often: what they cost is what it costs.
# fmt: off
_RUN = CALLS | frozenset([
    "compute_on", "cudnn_fusion", "custom_linear_solve", "custom_partitioning", "custom_vmap_call",
    "eval_jaxpr", "fused_call", "linear_call", "program_order", "remat_opt", "run_state", "scan",
    "shard_map", "xla_metadata_call",
])
# fmt: on

COUNTED = frozenset(
    [*MULTIPLY_ADDS, *OPERATIONS, *_RUN, "cond", "conv_general_dilated", "while"],
)

# A primitive of one of these names is another than JAX's if it is not among them.
_JAXS: dict[str, list[Primitive]] = {}
for _module in (lax, lax.linalg, primitives):
    for _value in vars(_module).values():
        if isinstance(_value, Primitive):
            _JAXS.setdefault(_value.name, []).append(_value)

Flops = Callable[[JaxprEqn], int]
_REGISTERED: dict[str, Flops] = {}

# What may be between the reversal of a kernel and its convolution (vmap and groups put it there).
_TRANSPARENT = frozenset(["convert_element_type", "copy", "reshape", "squeeze", "transpose"])


@dataclasses.dataclass(frozen=True)
class Count:
    """What one call of a function computes.

    Attributes:
      flops: of convolutions and matrix products, 2 per multiply-add.
      elementwise: operations of everything else, see `ctl_jax.compute._elementwise`.
      by_primitive: the same, split by the name of the JAX primitive; sorted by name.
    """

    flops: int
    elementwise: int
    by_primitive: Mapping[str, int]


def flops(fn: Callable[..., Any], *args: Any) -> int:
    """FLOPs of `fn(*args)` in convolutions and matrix products, 2 per multiply-add.

    Padded and masked positions are included, and zeros inserted by dilation left out, so that each
    of a convolution's two gradients costs what its forward pass costs. Sparse products count what
    is stored; fused attention counts what it computes, the scores once more in its gradient.

    Args:
      fn: a function of pytrees of arrays; a whole training step, for example.
      *args: arrays, or `jax.ShapeDtypeStruct`s for them; no values are read.

    Returns:
      The exact number.

    Raises:
      UserError: `fn` holds FLOPs whose number a jaxpr does not tell: a while loop around a matrix
        product, a matrix decomposition, a call out of JAX, a primitive that is not JAX's own and
        was not registered (see `register_flops`).

    Example:
      >>> flops(jnp.dot, jnp.ones((2, 3)), jnp.ones((3, 4)))
      48
    """
    return count(fn, *args).flops


def count(fn: Callable[..., Any], *args: Any) -> Count:
    """FLOPs and element-wise operations of `fn(*args)`.

    A conditional counts as its most expensive branch; a while loop without FLOPs as one turn, a
    `shard_map` as all its shards together.

    Args:
      fn: as for `flops`.
      *args: as for `flops`.

    Returns:
      The two numbers and where they come from.

    Raises:
      UserError: as for `flops`.
    """
    total = _count_jaxpr(jax.make_jaxpr(fn)(*args).jaxpr)
    by_primitive = Counter[str]()
    for (_, name), number in total.items():
        by_primitive[name] += number
    matmul_flops = _flops_of(total)
    # Unary plus drops what costs nothing.
    return Count(matmul_flops, total.total() - matmul_flops, dict(sorted((+by_primitive).items())))


def flops_along(fn: Callable[..., Any], size: int, *args: Any) -> tuple[int, int]:
    """FLOPs of `fn(*args)` for any length of one axis, from one trace.

    Args:
      fn: as for `flops`.
      size: the length that the axis has in `args`. A large prime, which no other axis is a multiple
        of: an axis of it is taken for this one.
      *args: as for `flops`.

    Returns:
      The FLOPs that do not depend on it, and those per unit of it.

    Raises:
      UserError: as for `flops`, or the FLOPs are not linear in the length.

    Example:
      >>> flops_along(lambda a, b, c: a @ b @ c, 1009, ones(2, 3), ones(3, 4), ones(4, 1009))
      (48, 16)
    """
    total = _count_jaxpr(jax.make_jaxpr(fn)(*args).jaxpr, size)
    along = sum(number for (kind, _), number in total.items() if kind == _ALONG)
    per_unit, rest = divmod(along, size)
    if rest or (per_unit and per_unit % size == 0):
        raise UserError(f"the FLOPs are not linear in the axis of length {size}")
    return _flops_of(total) - along, per_unit


def register_flops(primitive: str, fn: Flops | None = None) -> Callable[..., Any]:
    """Tells the counter what a primitive costs that it does not know; also a decorator.

    Args:
      primitive: its name, in all programs from now on. A later call for the same name replaces an
        earlier one.
      fn: a function of the equation that gives its FLOPs in products, an int, 2 per multiply-add.
        Shapes are in `eqn.invars[i].aval.shape` and `eqn.outvars[i].aval.shape`, parameters in
        `eqn.params`. Where it gives 0, the equation counts as one element-wise operation per
        output element. None: returns a decorator.

    Returns:
      `fn`, or the decorator.

    Raises:
      UserError: the counter has its own numbers for a primitive of this name.

    Example, for a kernel whose author says what it costs:
      >>> @register_flops("pallas_call")
      ... def declared(eqn):
      ...     return eqn.params["cost_estimate"].flops
    """
    if fn is None:
        return functools.partial(register_flops, primitive)
    if not isinstance(primitive, str) or not callable(fn):
        raise UserError(
            f"register_flops({primitive!r}, {fn!r}): expected a primitive's name and a function"
        )
    if primitive in COUNTED:
        raise UserError(
            f"register_flops({primitive!r}, ...): the FLOPs of primitive {primitive!r} are counted "
            "already; expected another name"
        )
    _REGISTERED[primitive] = fn
    return fn


# Element-wise operations of each primitive, its FLOPs, and those along the axis that is asked for.
_ELEMENTWISE, _FLOPS, _ALONG = range(3)
_Total = Counter[tuple[int, str]]


def _flops_of(total: _Total) -> int:
    return sum(number for (kind, _), number in total.items() if kind != _ELEMENTWISE)


def _rank(total: _Total) -> tuple[int, int]:
    return _flops_of(total), total.total()


def product_flops(jaxpr: Jaxpr) -> Callable[[JaxprEqn], int]:
    """For the convolutions and matrix products of a jaxpr: equation -> its FLOPs.

    A convolution needs its jaxpr around it: whether it is a gradient shows in its neighbours.
    """
    neighbours: list[dict[Var, JaxprEqn]] = []

    def flops_of(eqn: JaxprEqn) -> int:
        if eqn.primitive.name in MULTIPLY_ADDS:
            return 2 * MULTIPLY_ADDS[eqn.primitive.name](eqn)
        if not neighbours:  # most jaxprs have no convolution
            neighbours.append({var: eqn for eqn in jaxpr.eqns for var in eqn.outvars})
            neighbours.append(
                {var: eqn for eqn in jaxpr.eqns for var in eqn.invars if isinstance(var, Var)}
            )
        producers, consumers = neighbours
        return 2 * _matmul.conv_multiply_adds(
            eqn,
            kernel_reversed=_is_reversed(eqn, producers, lambda e: e.invars, 1),
            output_reversed=_is_reversed(eqn, consumers, lambda e: e.outvars, 0),
        )

    return flops_of


def equation_flops(eqn: JaxprEqn) -> int:
    """FLOPs of an equation that is no convolution, with all that it calls.

    Raises:
      UserError: as for `flops`.
    """
    return _flops_of(_count_equation(eqn, lambda eqn: 2 * MULTIPLY_ADDS[eqn.primitive.name](eqn)))


def _count_jaxpr(jaxpr: Jaxpr, size: int | None = None) -> _Total:
    """What a jaxpr computes; along an axis of a length apart from the rest."""
    total = _Total()
    flops_of = product_flops(jaxpr)
    for eqn in jaxpr.eqns:
        total.update(_count_equation(eqn, flops_of, size))
    return total


def _count_equation(eqn: JaxprEqn, flops_of: Flops, size: int | None = None) -> _Total:
    name = eqn.primitive.name
    if name in _REGISTERED:
        return _count_registered(eqn, size)
    _check_countable(eqn)
    if name in MULTIPLY_ADDS or name == "conv_general_dilated":
        return _Total({(_kind(eqn, size), name): flops_of(eqn)})
    if name in OPERATIONS:
        return _Total({(_ELEMENTWISE, name): OPERATIONS[name](eqn)})
    inner = [_count_jaxpr(program.jaxpr, size) for program in programs(eqn)]
    if name == "while":
        return _count_while(inner)
    if name == "cond":
        return max(inner, key=_rank)
    (total,) = inner
    return _Total({key: _repetitions(eqn) * value for key, value in total.items()})


def _kind(eqn: JaxprEqn, size: int | None) -> int:
    """Whether a product has an axis of that length, or that and others as one."""
    if size is None:
        return _FLOPS
    axes = [axis for var in (*eqn.invars, *eqn.outvars) for axis in shape_of(var)]
    return _ALONG if any(axis and axis % size == 0 for axis in axes) else _FLOPS


def _check_countable(eqn: JaxprEqn) -> None:
    name = eqn.primitive.name
    if name in UNCOUNTABLE:
        why = "its program is not in the jaxpr"
    elif name not in COUNTED:
        why = "it is not in the counter's tables"
    elif eqn.primitive not in _JAXS.get(name, [eqn.primitive]):
        raise UserError(
            f"cannot count the FLOPs of primitive {name!r}: it has the name of a primitive of "
            "JAX but is another; expected a name of its own"
        )
    else:
        return
    raise UserError(
        f"cannot count the FLOPs of primitive {name!r}: {why}; "
        f"ctl_jax.compute.register_flops({name!r}, fn) can tell them"
    )


def _count_registered(eqn: JaxprEqn, size: int | None) -> _Total:
    name = eqn.primitive.name
    number = _REGISTERED[name](eqn)
    try:
        flops = operator.index(number)
    except TypeError:
        flops = -1
    if flops < 0 or isinstance(number, bool):
        raise UserError(
            f"register_flops: the function for primitive {name!r} gave {number!r}, "
            "expected an int of at least 0"
        )
    if flops:
        return _Total({(_kind(eqn, size), name): flops})
    return _Total({(_ELEMENTWISE, name): per_output(eqn)})


def _count_while(parts: Sequence[_Total]) -> _Total:
    """One turn: how many there are is known at run time only, so there may be no FLOPs in it."""
    turn = sum(parts, _Total())
    if _flops_of(turn):
        raise UserError(
            f"a while loop holds {_flops_of(turn)} FLOPs a turn and an unknown number of turns; "
            "expected lax.scan, or lax.fori_loop with bounds that are Python ints"
        )
    return turn


def _repetitions(eqn: JaxprEqn) -> int:
    """How often the jaxpr of an equation runs."""
    if eqn.primitive.name == "scan":
        return int(eqn.params["length"])
    if eqn.primitive.name == "shard_map":
        # "newly_manual_axes" in jax 0.10.2; the name has changed before.
        axes = next(value for key, value in eqn.params.items() if key.endswith("manual_axes"))
        return math.prod(eqn.params["mesh"].shape[axis] for axis in axes)
    return 1


def _is_reversed(
    conv: JaxprEqn,
    neighbours: Mapping[Var, JaxprEqn],
    onwards: Callable[[JaxprEqn], Sequence[Var | Literal]],
    index: int,
) -> bool:
    """Whether an operand or the result of a convolution is another array back to front.

    A gradient reverses all spatial axes at once, `lax.conv_transpose` one after the other; the
    gradient of a reversed kernel is twice reversed, that is, not.

    Args:
      conv: the convolution.
      neighbours: the equation that made a variable, or one that reads it.
      onwards: the variables of an equation on its far side: what it reads, or what it makes.
      index: of `onwards(conv)`, where to start.
    """
    axes = 0
    var = onwards(conv)[index]
    while isinstance(var, Var) and (eqn := neighbours.get(var)) is not None:
        if eqn.primitive.name == "rev":
            axes += len(eqn.params["dimensions"])
        elif eqn.primitive.name not in _TRANSPARENT:
            break
        var = onwards(eqn)[0]
    rank = len(conv.params["window_strides"])
    return rank > 0 and axes // rank % 2 == 1
