"""Walking a jaxpr: one rule a primitive, and what the rules learn."""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var

from ctl_jax.compute.flops import equation_flops, product_flops
from ctl_jax.errors import UserError
from ctl_jax.pruning.channels import FREE, Axis, Channels, Labels, elements

CONSTANT = "constant of the program"


class Array(NamedTuple):
    """What the walk knows of one array of the program.

    Attributes:
      axes: the labels of each axis (see `channels`).
      data: whether it depends on the inputs; what does not is a weight.
      given: whether it depends on the inputs or the parameters; what does not is a constant.
      readers: bit set of the products (indices into `Walk.products`) it was computed from.
      makers: those of them whose results it holds, with no product or residual addition since.
      buffer: which of `Walk.buffers` holds its values, -1 for none.
    """

    axes: tuple[Axis, ...]
    data: bool = False
    readers: int = 0
    makers: int = 0
    buffer: int = -1
    given: bool = False


@dataclasses.dataclass(frozen=True)
class Product:
    """A convolution or matrix product of data with a weight, the kernel.

    Attributes:
      reads: elements on the kernel's contracted axes.
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


@dataclasses.dataclass(frozen=True, eq=False)
class Grid:
    """Two axes that the program treats as one: `whole[i, j]` is of row `i` and column `j`.

    A channel of `whole` is cut where its row or its column is. Which of them may be is decided
    once the whole program is known; see `grids`.

    Attributes:
      whole: int64 [rows, columns], or None where a kernel has both axes itself.
      rows: the outer axis, such as attention's heads or the groups of a GroupNorm.
      columns: the inner axis.
      split: whether the program split `whole`, rather than made it of the two.
      flip: whether to decide against what is likely (see `Walk.guess`).
    """

    whole: Labels | None
    rows: Labels
    columns: Labels
    split: bool
    flip: bool = False


@dataclasses.dataclass
class Buffer:
    """An intermediate array: its shape and axes, and the equations between which it is alive."""

    itemsize: int
    shape: tuple[int, ...]
    axes: tuple[Axis, ...]
    birth: int
    death: int


@dataclasses.dataclass(frozen=True)
class Cost:
    """FLOPs of one product at full width, and the axes whose sizes they are proportional to."""

    flops: int
    axes: tuple[Axis, ...]


@dataclasses.dataclass(frozen=True)
class Read:
    """A product reads data that carries channels: the equation, the operand, its axis."""

    equation: int
    operand: int
    axis: int
    labels: Labels


Place = tuple[int, int]  # the number of an equation, and the how manieth guess at it


@dataclasses.dataclass(frozen=True)
class Guess:
    """A choice that the jaxpr left open: where, what was chosen, and the elements concerned."""

    place: Place
    choice: int
    ids: Labels


class Walk:
    """One pass over a program; the rules write down here what they learn.

    Attributes:
      channels: the elements, joined and frozen so far.
      guessed: where the program's own numbers might hold, and what was chosen (see `guess`).
      loose: reductions over positions that carry no channels: id of the equation -> axes.
      repeats: how often the equation that is walked now runs.
      inside: how many loops and branches it is in.
    """

    def __init__(self, channels: Channels, limit: int, guesses: Mapping[Place, int]) -> None:
        self.channels = channels
        self.products: list[Product] = []
        self.additions: list[Addition] = []
        self.grids: list[Grid] = []
        self.guessed: list[Guess] = []
        self.buffers: list[Buffer] = []
        self.costs: list[Cost] = []
        self.reads: list[Read] = []
        self.loose: dict[int, set[int]] = {}
        self.repeats = 1
        self.inside = 0
        self.now = 0
        self._guesses = guesses
        self._limit = limit
        self._product_flops: Callable[[JaxprEqn], int] = lambda eqn: 0

    def run(self, jaxpr: Jaxpr, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Walks the equations of `jaxpr`, whose constants are never cut; returns its outputs."""
        env: dict[Var, Array] = {}

        def constant(atom: Var | Literal) -> Array:
            fixed = self.channels.fixed(CONSTANT)
            shape = shape_of(atom)
            return Array(_sized((fixed,) * len(shape), shape))

        def read(atom: Var | Literal) -> Array:
            return constant(atom) if isinstance(atom, Literal) else env[atom]

        for var in jaxpr.constvars:
            env[var] = constant(var)
        for var, array in zip(jaxpr.invars, inputs, strict=True):
            env[var] = self._bound(var, array)
        outer, self._product_flops = self._product_flops, product_flops(jaxpr)
        for eqn in jaxpr.eqns:
            self.now += 1
            if self.now > self._limit:
                raise UserError(
                    f"the program has more than {self._limit} equations with its calls written "
                    "out; pass a larger max_equations if that is meant"
                )
            rule = RULES.get(eqn.primitive.name, _unknown)
            operands = [read(atom) for atom in eqn.invars]
            results = rule(self, eqn, operands)
            for var, result in zip(eqn.outvars, results, strict=True):
                env[var] = self._bound(var, result)
            for operand in operands:
                self.alive(operand)
        self._product_flops = outer
        return tuple(read(atom) for atom in jaxpr.outvars)

    def _bound(self, var: Var, array: Array) -> Array:
        """`array` as the value of `var`, in a buffer of its own if it is data and has none."""
        shape = shape_of(var)
        axes, buffer = _sized(array.axes, shape), array.buffer
        if array.data and buffer < 0:
            itemsize = getattr(getattr(var.aval, "dtype", None), "itemsize", 0)
            self.buffers.append(Buffer(itemsize, shape, axes, self.now, self.now))
            buffer = len(self.buffers) - 1
        elif axes is array.axes:
            return array
        return array._replace(axes=axes, buffer=buffer)

    def alive(self, array: Array) -> None:
        """Notes that the array is still needed at the equation that is walked now."""
        if array.buffer >= 0:
            self.buffers[array.buffer].death = self.now

    def freeze(self, axes: Sequence[Axis], reason: str) -> int:
        """Freezes what is on `axes`; returns the label for positions that come of them."""
        for axis in axes:
            self.channels.freeze(axis, reason)
        return self.channels.fixed(reason)

    def guess(self, axis: Axis, reason: str, ways: int = 2) -> int:
        """Which way to go where a number of the program may follow a width or be its own.

        Args:
          axis: what is affected.
          reason: what it is frozen for if no way was found right.
          ways: how many ways there are.

        Returns:
          0 for the likeliest way, ...; `ways` or more where none is left: `axis` is now frozen.
        """
        last, count = self.guessed[-1].place if self.guessed else (0, 0)
        place = (self.now, count + 1 if last == self.now else 0)
        choice = self._guesses.get(place, 0)
        self.guessed.append(Guess(place, choice, elements(axis)))
        if choice >= ways:
            self.freeze([axis], f"{reason} by numbers that do not follow the width")
        return choice

    def product(self, kernel: Array, reads: Sequence[int], makes: Sequence[int]) -> int:
        """Notes a product with `kernel`, whose axes are named; returns its bit for `derived`."""
        made = [kernel.axes[i] for i in makes]
        read = elements(*(kernel.axes[i] for i in reads))
        if not read.size and not elements(*made).size:
            return 0  # with a constant, as in interpolation
        self.products.append(Product(read, elements(*made)))
        carrying = [axis for axis in made if not isinstance(axis, int)]
        self.grids += [
            Grid(None, rows, columns, split=False) for rows, columns in itertools.pairwise(carrying)
        ]
        return 1 << (len(self.products) - 1)

    def read(self, operand: int, x: Array, axes: Sequence[int]) -> None:
        """Notes that the product that is walked now reads channels on these axes of its operand."""
        for i in axes:
            axis = x.axes[i]
            if not self.inside and not isinstance(axis, int):
                self.reads.append(Read(self.now - 1, operand, i, axis))

    def reduce(self, eqn: JaxprEqn, i: int, axis: Axis) -> None:
        """Notes that an equation takes all positions on axis `i` of its first operand together."""
        if isinstance(axis, int):
            # Perhaps as many as there are channels somewhere else: see `programs`.
            self.loose.setdefault(id(eqn), set()).add(i)
        else:
            self.channels.normalise(axis, eqn.primitive.name)

    def cost(self, eqn: JaxprEqn, axes: Sequence[Axis]) -> None:
        """Notes the FLOPs of a product, which are proportional to the sizes of these axes."""
        carrying = tuple(axis for axis in axes if not isinstance(axis, int))
        self.costs.append(Cost(self.repeats * self._product_flops(eqn), carrying))


Rule = Callable[[Walk, JaxprEqn, Sequence[Array]], Sequence[Array]]

# By the primitive's name. What has no rule here makes all it touches unprunable.
RULES: dict[str, Rule] = {}


def register_rule(*primitives: str) -> Callable[[Rule], Rule]:
    """Enters a rule into the table for the primitives of these names.

    A rule gets the walk, the equation and one `Array` an operand. It joins the axes whose channels
    must be cut together, freezes those that must not be cut, and returns one `Array` a result. An
    axis may pass its labels on only if the program, run again on narrower arrays, would treat each
    channel that is left as before. Axes of size 1 are FREE on both sides.

    Example, for a primitive that does the same to every position:
      >>> @register_rule("my_activation")
      ... def _my_activation(walk, eqn, operands):
      ...     return [derived(operands[0].axes, operands)]
    """

    def enter(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(primitives, rule))
        return rule

    return enter


def derived(axes: Sequence[Axis], operands: Sequence[Array], product: int = 0) -> Array:
    """The array with these axes that is computed from `operands`, by the product of this bit."""
    data, given, readers, makers = False, False, product, 0
    for x in operands:
        data |= x.data
        given |= x.given
        readers |= x.readers
        makers |= x.makers
    return Array(tuple(axes), data, readers, product or makers, given=given)


def view(axes: Sequence[Axis], x: Array) -> Array:
    """The array with these axes that holds the values of `x` as they are."""
    return x._replace(axes=tuple(axes))


def _unknown(walk: Walk, eqn: JaxprEqn, operands: Sequence[Array]) -> list[Array]:
    """The rule where there is none: whatever it does with an axis, nothing on it is cut."""
    label = walk.freeze([axis for x in operands for axis in x.axes], eqn.primitive.name)
    with contextlib.suppress(UserError):  # What it costs may be unknown, too.
        if flops := equation_flops(eqn):
            walk.costs.append(Cost(walk.repeats * flops, ()))
    return [derived((label,) * len(shape_of(var)), operands) for var in eqn.outvars]


def shape_of(atom: Var | Literal) -> tuple[int, ...]:
    """The shape of a variable or literal of a jaxpr."""
    return getattr(atom.aval, "shape", ())  # tokens have none


def _sized(axes: tuple[Axis, ...], shape: tuple[int, ...]) -> tuple[Axis, ...]:
    """`axes`, with FREE where the size is 1: a single channel cannot be cut, and broadcasts."""
    if 1 not in shape:
        return axes
    return tuple([FREE if n == 1 else axis for axis, n in zip(axes, shape, strict=True)])
