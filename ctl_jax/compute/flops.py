"""FLOPs of a JAX function, read off its jaxpr: nothing runs and nothing is compiled."""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

from ctl_jax.compute import elementwise, matmul
from ctl_jax.errors import UserError

# What costs FLOPs that depend on an algorithm or on code that JAX does not show.
# fmt: off
_UNCOUNTABLE = frozenset([
    "cholesky", "cholesky_update", "custom_linear_solve", "eig", "eigh", "fft", "ffi_call",
    "geqrf", "hessenberg", "householder_product", "io_callback", "lu", "pallas_call",
    "pure_callback", "qr", "ragged_dot_general", "scaled_matmul_wrapper", "schur", "svd",
    "triangular_solve", "tridiagonal", "tridiagonal_solve",
])
# fmt: on

_MATMULS = frozenset(["conv_general_dilated", "dot_general"])

# What may lie between the reversal of a kernel and its convolution (vmap and groups put it there).
_TRANSPARENT = frozenset(["convert_element_type", "copy", "reshape", "squeeze", "transpose"])


@dataclasses.dataclass(frozen=True)
class Count:
    """What one call of a function computes.

    Attributes:
      flops: of convolutions and matrix products, 2 per multiply-add.
      elementwise: operations of everything else, see `ctl_jax.compute.elementwise`.
      by_primitive: the same, split by the name of the JAX primitive; sorted by name.
    """

    flops: int
    elementwise: int
    by_primitive: Mapping[str, int]


def flops(fn: Callable[..., Any], *args: Any) -> int:
    """FLOPs of `fn(*args)` in convolutions and matrix products, 2 per multiply-add.

    Padded positions are included, and zeros inserted by dilation left out, so that each of a
    convolution's two gradients costs what its forward pass costs.

    Args:
      fn: a function of pytrees of arrays; a whole training step, for example.
      *args: arrays, or `jax.ShapeDtypeStruct`s for them; no values are read.

    Returns:
      The exact number.

    Raises:
      UserError: `fn` holds FLOPs whose number a jaxpr does not tell: a while loop around a matrix
        product, a matrix decomposition, a call out of JAX.

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
    by_primitive = _count_jaxpr(jax.make_jaxpr(fn)(*args).jaxpr)
    matmul_flops = _flops_of(by_primitive)
    # Unary plus drops what costs nothing.
    return Count(
        matmul_flops, by_primitive.total() - matmul_flops, dict(sorted((+by_primitive).items()))
    )


def _flops_of(by_primitive: Counter[str]) -> int:
    return sum(by_primitive[name] for name in _MATMULS)


def _rank(by_primitive: Counter[str]) -> tuple[int, int]:
    return _flops_of(by_primitive), by_primitive.total()


def product_flops(jaxpr: Jaxpr) -> Callable[[JaxprEqn], int]:
    """For the convolutions and matrix products of a jaxpr: equation -> its FLOPs.

    A convolution needs its jaxpr around it: whether it is a gradient shows in its neighbours.
    """
    neighbours: list[dict[Var, JaxprEqn]] = []

    def flops_of(eqn: JaxprEqn) -> int:
        if eqn.primitive.name == "dot_general":
            return 2 * matmul.dot_multiply_adds(eqn)
        if not neighbours:  # most jaxprs have no convolution
            neighbours.append({var: eqn for eqn in jaxpr.eqns for var in eqn.outvars})
            neighbours.append(
                {var: eqn for eqn in jaxpr.eqns for var in eqn.invars if isinstance(var, Var)}
            )
        producers, consumers = neighbours
        return 2 * matmul.conv_multiply_adds(
            eqn,
            kernel_reversed=_is_reversed(eqn, producers, lambda e: e.invars, 1),
            output_reversed=_is_reversed(eqn, consumers, lambda e: e.outvars, 0),
        )

    return flops_of


def _count_jaxpr(jaxpr: Jaxpr) -> Counter[str]:
    total: Counter[str] = Counter()
    flops_of = product_flops(jaxpr)
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if name in _UNCOUNTABLE:
            raise UserError(f"cannot count the FLOPs of primitive {name!r}: no jaxpr tells them")
        if name in _MATMULS:
            total[name] += flops_of(eqn)
        elif name == "while":
            total += _count_while(eqn)
        elif name == "cond":
            branch: Counter[str]
            branch = max((_count_jaxpr(sub) for sub in _subjaxprs(eqn)), key=_rank)
            total += branch
        elif name in elementwise.HOLD_A_SCALAR_FUNCTION or not (inner := list(_subjaxprs(eqn))):
            total[name] += elementwise.operations(eqn)
        else:
            for key, value in _count_all(inner).items():
                total[key] += _repetitions(eqn) * value
    return total


def _count_all(jaxprs: Iterable[Jaxpr]) -> Counter[str]:
    return sum((_count_jaxpr(jaxpr) for jaxpr in jaxprs), Counter())


def _count_while(eqn: JaxprEqn) -> Counter[str]:
    """One turn: how many there are is known at run time only, so there may be no FLOPs in it."""
    turn = _count_all(_subjaxprs(eqn))
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


def _subjaxprs(eqn: JaxprEqn) -> Iterator[Jaxpr]:
    for value in eqn.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, Jaxpr):
                yield item


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
