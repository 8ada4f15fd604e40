"""Comparison of a function's programs at two widths: the same program, but for the widths?

Python may compute a number from a width: the `sqrt(d)` by which a layer divides, LoRA's alpha over
its rank, how often a loop turns. In the jaxpr it is a literal like any other, and in a pruned
network another one. So the function is traced at other widths, too, and both programs are compared
equation by equation. Shapes differ, of course; what was made of them must not. Three things may:

- numbers that come to the same: `n - 1 > 0`;
- the count by which a sum over channels is divided: over the channels that stay, the mean is one;
- what a rule of the interpreter has looked into: where a slice, a split or a padding of channels
  starts.

Derivatives that a function states itself (`jax.custom_vjp`) are no part of the program that is
traced, and not compared.
"""

import enum
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

from ctl_jax.jaxprs import CALLS, opened, programs, shape_of

# Parameters of equations that say what they do.
_PLAIN = bool | int | float | complex | str | bytes | np.generic | np.dtype | enum.Enum

Pair = tuple[Any, Any]
# By the id of an equation: axes of its first operand.
Loose = Mapping[int, Collection[int]]


class _Value(NamedTuple):
    """What both programs know of a variable of theirs.

    Attributes:
      known: the number at all of its positions, in either program, where it follows from literals.
      total: of a sum, over how many positions it goes in either program.
    """

    known: Pair | None = None
    total: Pair | None = None

    @property
    def differs(self) -> bool:
        return self.known is not None and not _equal(*self.known)


class _Change(Exception):
    """The programs differ; the message says in what."""


def change(full: ClosedJaxpr, other: ClosedJaxpr, loose: Loose) -> str | None:
    """The first thing in which two programs differ by more than their widths.

    Args:
      full: a function at its full widths.
      other: the same function at others.
      loose: where `full` reduces over positions that carry no channels.

    Returns:
      What it is in `full` and in `other`, such as "the 4 of 'div' becomes 2.645751"; None if the
      programs are the same.
    """
    comparison = _Comparison(loose)
    try:
        given = [_Value()] * len(full.jaxpr.invars)
        for value in comparison.closed(full, other, given):
            if value.differs:
                raise _Change(f"the {_shown(value.known, 'a result')}")
        for a, b in zip(full.jaxpr.outvars, other.jaxpr.outvars, strict=True):
            if shape_of(a) != shape_of(b):
                raise _Change(f"a result of shape {shape_of(a)} becomes one of {shape_of(b)}")
    except _Change as found:
        return str(found)
    return None


class _Comparison:
    def __init__(self, loose: Loose) -> None:
        self._loose = loose

    def closed(
        self, full: ClosedJaxpr, other: ClosedJaxpr, given: Sequence[_Value]
    ) -> list[_Value]:
        """Compares two programs with their constants."""
        if len(full.consts) != len(other.consts):
            raise _Change(f"{len(full.consts)} constants become {len(other.consts)}")
        consts = [_constant(a, b) for a, b in zip(full.consts, other.consts, strict=True)]
        return self.open(full.jaxpr, other.jaxpr, consts, given)

    def open(
        self, full: Jaxpr, other: Jaxpr, consts: Sequence[_Value], given: Sequence[_Value]
    ) -> list[_Value]:
        """Compares two programs whose constants and inputs are known as far as these say."""
        inputs = [*full.constvars, *full.invars], [*other.constvars, *other.invars]
        _check_counts("inputs", *inputs)
        _check_counts("results", full.outvars, other.outvars)
        partner = dict(zip(*inputs, strict=True))
        values = dict(zip(inputs[0], [*consts, *given], strict=True))

        def both(a: Var | Literal, b: Var | Literal) -> _Value:
            if isinstance(a, Literal) and isinstance(b, Literal):
                return _Value((a.val, b.val))
            if isinstance(a, Literal) or isinstance(b, Literal) or partner[a] is not b:
                raise _Change("an operation on other operands")
            return values[a]

        for i, (a, b) in enumerate(zip(full.eqns, other.eqns, strict=False)):
            if a.primitive is not b.primitive:
                raise _Change(f"{_name(a)} becomes {_name(b)} (operation {i + 1})")
            _check_counts(f"operands of {_name(a)}", a.invars, b.invars)
            operands = [both(x, y) for x, y in zip(a.invars, b.invars, strict=True)]
            results = self._equation(a, b, operands)
            for x, y, value in zip(a.outvars, b.outvars, results, strict=True):
                partner[x], values[x] = y, value
        _check_counts("operations", full.eqns, other.eqns)
        return [both(a, b) for a, b in zip(full.outvars, other.outvars, strict=True)]

    def _equation(self, a: JaxprEqn, b: JaxprEqn, operands: Sequence[_Value]) -> list[_Value]:
        name = a.primitive.name
        called = name in CALLS
        for key, value in a.params.items():
            if key != "name" and not (called and isinstance(value, ClosedJaxpr | Jaxpr)):
                self._parameter(a, b, key, value, b.params[key])
        if called:
            (full,), (other,) = programs(a), programs(b)
            return self.closed(full, other, operands)
        if name == "iota":
            _check_size(a, b, a.outvars[0], b.outvars[0], a.params["dimension"])
        if (folded := _folded(a, b, operands)) is not None:
            return [_Value(folded)]
        for value in operands:
            if value.differs and not _is_mean(name, operands):
                raise _Change(f"the {_shown(value.known, _name(a))}")
        for axis in self._loose.get(id(a), ()):
            _check_size(a, b, a.invars[0], b.invars[0], axis)
        total = None
        if name == "reduce_sum":
            total = _summed(a), _summed(b)
        elif name in _VIEWS:
            total = operands[0].total
        return [_Value(None, total)] * len(a.outvars)

    def _inner(self, full: Any, other: Any, operands: Sequence[_Value]) -> list[_Value]:
        if isinstance(full, ClosedJaxpr):
            return self.closed(full, other, operands)
        return self.open(full, other, [_Value()] * len(full.constvars), operands)

    def _parameter(self, a: JaxprEqn, b: JaxprEqn, key: str, full: Any, other: Any) -> None:
        name = a.primitive.name
        if (name, key) in _SIZES:
            same = _SIZES[name, key](a, b, full, other)
        else:
            same = self._same(full, other)
        if not same:
            raise _Change(f"{key}={full!r} of {_name(a)} becomes {other!r}")

    def _same(self, full: Any, other: Any) -> bool:
        """Whether a parameter of an equation means the same in both programs."""
        if full is other:
            return True
        if isinstance(full, ClosedJaxpr | Jaxpr):
            results = self._inner(full, other, [_Value()] * len(opened(full).invars))
            if odd := next((value for value in results if value.differs), None):
                raise _Change(f"the {_shown(odd.known, 'a branch or turn')}")
            return True
        if type(full) is not type(other):
            return False
        if isinstance(full, tuple | list):
            return len(full) == len(other) and all(map(self._same, full, other))
        if isinstance(full, Mapping):
            return full.keys() == other.keys() and all(self._same(full[k], other[k]) for k in full)
        if isinstance(full, np.ndarray | jax.Array):
            return _equal(full, other)
        # Not functions that JAX keeps for later, nor the shapes of what was compared by itself.
        return full == other if isinstance(full, _PLAIN) else True


# What leaves a number at all positions what it is.
_VIEWS = frozenset(
    ["broadcast_in_dim", "convert_element_type", "copy", "reshape", "squeeze",
     "stop_gradient", "transpose"]
)  # fmt: skip

_FOLDED: dict[str, Callable[..., Any]] = {
    "abs": np.abs, "add": np.add, "and": np.logical_and, "ceil": np.ceil, "div": np.true_divide,
    "eq": np.equal, "exp": np.exp, "floor": np.floor, "ge": np.greater_equal, "gt": np.greater,
    "le": np.less_equal, "log": np.log, "lt": np.less, "max": np.maximum, "min": np.minimum,
    "mul": np.multiply, "ne": np.not_equal, "neg": np.negative, "not": np.logical_not,
    "or": np.logical_or, "pow": np.power, "rsqrt": lambda x: 1 / np.sqrt(x), "sqrt": np.sqrt,
    "square": np.square, "sub": np.subtract,
}  # fmt: skip


def _folded(a: JaxprEqn, b: JaxprEqn, operands: Sequence[_Value]) -> Pair | None:
    """The numbers that an equation on known numbers gives, if they can be worked out here."""
    name = a.primitive.name
    known = [value.known for value in operands if value.known is not None]
    if not known or len(known) < len(operands) or len(a.outvars) > 1:
        return None
    left, right = [pair[0] for pair in known], [pair[1] for pair in known]
    if name in _VIEWS:
        return left[0], right[0]
    with np.errstate(all="ignore"):
        if name == "reduce_sum":
            return left[0] * _summed(a), right[0] * _summed(b)
        if name == "integer_pow":
            return left[0] ** a.params["y"], right[0] ** a.params["y"]
        if name in _FOLDED and not (name == "div" and np.result_type(*left).kind in "iu"):
            return _FOLDED[name](*left), _FOLDED[name](*right)
    return None


def _is_mean(name: str, operands: Sequence[_Value]) -> bool:
    """Whether an equation divides a sum by how many it sums (or by one less, for a variance)."""
    if name not in ("div", "mul") or len(operands) < 2:
        return False
    orders = [operands] if name == "div" else [operands, operands[::-1]]
    for summed, by in orders:
        if summed.total is None or by.known is None:
            continue
        given = [float(n) for n in by.known] if name == "div" else [1 / n for n in by.known]
        if any(np.allclose(given, [n - less for n in summed.total], rtol=1e-6) for less in (0, 1)):
            return True
    return False


def _summed(eqn: JaxprEqn) -> int:
    shape = shape_of(eqn.invars[0])
    return math.prod(shape[i] for i in eqn.params["axes"])


def _any(a: JaxprEqn, b: JaxprEqn, full: Any, other: Any) -> bool:
    """Sizes of a result: its axes are compared where they are read."""
    return len(full) == len(other)


def _by_axis(a: JaxprEqn, b: JaxprEqn, full: Any, other: Any) -> bool:
    """One number an axis of the operand: the same, but where the axis has another size."""
    if full is None or other is None:
        return full is other
    sizes = zip(shape_of(a.invars[0]), shape_of(b.invars[0]), strict=True)
    return all(m != n or x == y for (m, n), x, y in zip(sizes, full, other, strict=True))


def _parts(a: JaxprEqn, b: JaxprEqn, full: Any, other: Any) -> bool:
    axis = a.params["axis"]
    resized = shape_of(a.invars[0])[axis] != shape_of(b.invars[0])[axis]
    return len(full) == len(other) and (resized or tuple(full) == tuple(other))


def _groups(a: JaxprEqn, b: JaxprEqn, full: int, other: int) -> bool:
    """A depthwise convolution stays one; any other keeps the number of its groups."""
    into = a.params["dimension_numbers"].rhs_spec[1]
    return full == other or shape_of(a.invars[1])[into] == shape_of(b.invars[1])[into] == 1


# Parameters of primitives that are sizes: (primitive, parameter) -> whether two may be the same.
_SIZES: dict[tuple[str, str], Callable[[JaxprEqn, JaxprEqn, Any, Any], bool]] = {
    ("broadcast_in_dim", "shape"): _any,
    ("iota", "shape"): _any,
    ("random_bits", "shape"): _any,
    ("reshape", "new_sizes"): _any,
    ("rng_bit_generator", "shape"): _any,
    ("dynamic_slice", "slice_sizes"): _by_axis,
    ("gather", "slice_sizes"): _by_axis,
    ("pad", "padding_config"): _by_axis,
    ("slice", "limit_indices"): _by_axis,
    ("slice", "start_indices"): _by_axis,
    ("slice", "strides"): _by_axis,
    ("split", "sizes"): _parts,
    ("conv_general_dilated", "feature_group_count"): _groups,
}


def _constant(a: Any, b: Any) -> _Value:
    if np.shape(a) == np.shape(b) == () and np.result_type(a).kind in "biuf":
        return _Value((a, b))
    if a is not b and not _equal(a, b):
        raise _Change(f"a constant of shape {np.shape(a)} becomes another of {np.shape(b)}")
    return _Value()


def _equal(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if np.shape(a) != np.shape(b):
        return False
    if isinstance(a, jax.core.Tracer) or isinstance(b, jax.core.Tracer):
        return False
    if jax.dtypes.issubdtype(getattr(a, "dtype", None), jax.dtypes.prng_key):
        a, b = jax.random.key_data(a), jax.random.key_data(b)
    a, b = np.asarray(a), np.asarray(b)
    return bool(((a == b) | ((a != a) & (b != b))).all())


def _check_counts(what: str, full: Sequence[Any], other: Sequence[Any]) -> None:
    if len(full) != len(other):
        raise _Change(f"{len(full)} {what} become {len(other)}")


def _check_size(
    a: JaxprEqn, b: JaxprEqn, full: Var | Literal, other: Var | Literal, axis: int
) -> None:
    """For what numbers the positions of an axis, or takes all of them together."""
    before, after = shape_of(full)[axis], shape_of(other)[axis]
    if before != after:
        raise _Change(f"{_name(a)} over {before} positions becomes one over {after}")


def _name(eqn: JaxprEqn) -> str:
    return repr(eqn.primitive.name)


def _shown(known: Pair | None, where: str) -> str:
    assert known is not None, "only what is known can differ"
    before, after = known
    return f"{float(before):.7g} of {where} becomes {float(after):.7g}"
