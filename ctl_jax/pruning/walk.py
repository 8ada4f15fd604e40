"""Walking a jaxpr: one rule a primitive, and what the rules learn."""

import dataclasses
import functools
import operator
from collections.abc import Callable, Sequence

from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var

from ctl_jax.pruning.channels import FREE, Axis, Channels, Labels, elements

CONSTANT = "constant of the program"


@dataclasses.dataclass(frozen=True)
class Array:
    """What the walk knows of one array of the program.

    Attributes:
      axes: the labels of each axis (see `channels`).
      data: whether it depends on the inputs; what does not is a weight.
      readers: bit set of the products (indices into `Walk.products`) it was computed from.
      makers: those of them whose results it holds, with no product or residual addition since.
    """

    axes: tuple[Axis, ...]
    data: bool = False
    readers: int = 0
    makers: int = 0


@dataclasses.dataclass(frozen=True)
class Product:
    """A convolution or matrix product of data with a weight, the kernel.

    Attributes:
      reads: elements on the kernel's contracted axis.
      makes: elements on the kernel's remaining axes: the channels that it produces.
    """

    reads: Labels
    makes: Labels


@dataclasses.dataclass(frozen=True)
class Addition:
    """A residual addition: a sum of two activations that made different channels one.

    Attributes:
      joined: elements on the joined axis.
      left, right: bit sets of the products that each side was computed from.
    """

    joined: Labels
    left: int
    right: int


class Walk:
    """One pass over a program; the rules write down here what they learn."""

    def __init__(self, channels: Channels) -> None:
        self.channels = channels
        self.products: list[Product] = []
        self.additions: list[Addition] = []

    def run(self, jaxpr: Jaxpr, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Walks the equations of `jaxpr`, whose constants are never cut; returns its outputs."""
        env: dict[Var, Array] = {}

        def bind(var: Var, array: Array) -> None:
            env[var] = dataclasses.replace(array, axes=_sized(array.axes, var))

        def constant(atom: Var | Literal) -> Array:
            fixed = self.channels.fixed(CONSTANT)
            return Array(_sized((fixed,) * len(shape_of(atom)), atom))

        def read(atom: Var | Literal) -> Array:
            return constant(atom) if isinstance(atom, Literal) else env[atom]

        for var in jaxpr.constvars:
            bind(var, constant(var))
        for var, array in zip(jaxpr.invars, inputs, strict=True):
            bind(var, array)
        for eqn in jaxpr.eqns:
            rule = RULES.get(eqn.primitive.name, _unknown)
            results = rule(self, eqn, [read(atom) for atom in eqn.invars])
            for var, result in zip(eqn.outvars, results, strict=True):
                bind(var, result)
        return tuple(read(atom) for atom in jaxpr.outvars)

    def freeze(self, axes: Sequence[Axis], reason: str) -> int:
        """Freezes what is on `axes`; returns the label for positions that come of them."""
        for axis in axes:
            self.channels.freeze(axis, reason)
        return self.channels.fixed(reason)

    def product(self, kernel: Array, reads: Sequence[int], makes: Sequence[int]) -> int:
        """Notes a product with `kernel`, whose axes are named; returns its bit for `derived`."""
        self.products.append(
            Product(
                elements(*(kernel.axes[i] for i in reads)),
                elements(*(kernel.axes[i] for i in makes)),
            )
        )
        return 1 << (len(self.products) - 1)


Rule = Callable[[Walk, JaxprEqn, Sequence[Array]], Sequence[Array]]

# By the primitive's name. What has no rule here makes all it touches unprunable.
RULES: dict[str, Rule] = {}


def register_rule(*primitives: str) -> Callable[[Rule], Rule]:
    """Enters a rule into the table for the primitives of these names.

    A rule gets the walk, the equation and one `Array` an operand. It joins the axes whose channels
    must be cut together, freezes those that must not be cut, and returns one `Array` a result. An
    axis may pass its labels on only if the program, run again on narrower arrays, would treat each
    channel that is left as before. Axes of size 1 are FREE on both sides.
    """

    def enter(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(primitives, rule))
        return rule

    return enter


def derived(axes: Sequence[Axis], operands: Sequence[Array], product: int = 0) -> Array:
    """The array with these axes that is computed from `operands`, by the product of this bit."""
    readers = functools.reduce(operator.or_, (x.readers for x in operands), product)
    makers = functools.reduce(operator.or_, (x.makers for x in operands), 0)
    return Array(tuple(axes), any(x.data for x in operands), readers, product or makers)


def _unknown(walk: Walk, eqn: JaxprEqn, operands: Sequence[Array]) -> list[Array]:
    """The rule where there is none: whatever it does with an axis, nothing on it is cut."""
    label = walk.freeze([axis for x in operands for axis in x.axes], eqn.primitive.name)
    return [derived((label,) * len(shape_of(var)), operands) for var in eqn.outvars]


def shape_of(atom: Var | Literal) -> tuple[int, ...]:
    """The shape of a variable or literal of a jaxpr."""
    return getattr(atom.aval, "shape", ())  # tokens have none


def _sized(axes: tuple[Axis, ...], atom: Var | Literal) -> tuple[Axis, ...]:
    """`axes`, with FREE where the size is 1: a single channel cannot be cut, and broadcasts."""
    return tuple(FREE if n == 1 else axis for axis, n in zip(axes, shape_of(atom), strict=True))
