"""Walking a jaxpr: one rule a primitive, and what the rules learn."""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var

from ctl_jax.compute import equation_flops, product_flops
from ctl_jax.errors import UserError
from ctl_jax.jaxprs import CALLS, Program, interpret, numbers, opened, places, shape_of
from ctl_jax.pruning._union_find import FREE, Axis, Labels, UnionFind, elements

CONSTANT = "constant of the program"


class AbstractArray(NamedTuple):
    """What the interpreter knows of one array of the program.

    Attributes:
      axes: the labels of each axis (see `channels`).
      data: whether it depends on the inputs; what does not is a weight.
      given: whether it depends on the inputs or the parameters; what does not is a constant.
      readers: bit set of the products (indices into `Interpreter.products`) it was computed from.
      makers: those of them whose results it holds, with no product or residual addition since.
      buffer: which of `Interpreter.buffers` holds its values, -1 for none.
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
    once the whole program is known; see `reshapes`.

    Attributes:
      whole: int64 [rows, columns], or None where a kernel has both axes itself.
      rows: the outer axis, such as attention's heads or the groups of a GroupNorm.
      columns: the inner axis.
      split: whether the program split `whole`, rather than made it of the two.
      flip: whether to decide against what is likely (see `Interpreter.guess`).
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


Place = tuple[int, int]  # the number of an equation, and of the guess at it


@dataclasses.dataclass(frozen=True)
class Guess:
    """A choice that the jaxpr left open: where, what was chosen, and the elements concerned."""

    place: Place
    choice: int
    ids: Labels


@dataclasses.dataclass
class _Scope:
    """A program that is walked.

    Attributes:
      flops: FLOPs of a product in it.
      first: the number of its first equation.
      numbered: whether its equations have numbers, or a rule made it up.
      seen: whether `jaxprs.evaluate` would show its equations.
      eqn: the equation that is walked now.
      places: of each program that this one runs, where its equations' numbers start.
    """

    flops: Callable[[JaxprEqn], int]
    first: int = 0
    numbered: bool = True
    seen: bool = True
    eqn: JaxprEqn = dataclasses.field(init=False)
    places: dict[Jaxpr, list[int]] | None = None


class Interpreter:
    """One pass over a program; the rules write down here what they learn.

    Attributes:
      channels: the elements, joined and frozen so far.
      guessed: where the program's own numbers might hold, and what was chosen (see `guess`).
      loose: reductions over positions that carry no channels: id of the equation -> axes.
      repeats: how often the equation that is walked now runs.
      now: how many equations there are up to it, in the order of the program.
    """

    def __init__(self, channels: UnionFind, limit: int, guesses: Mapping[Place, int]) -> None:
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
        self.now = 0
        self._guesses = guesses
        self._limit = limit
        self._scope: _Scope | None = None

    def run(self, program: Program, inputs: Sequence[AbstractArray]) -> tuple[AbstractArray, ...]:
        """Walks a program, whose constants are never cut; returns its outputs.

        A rule may run what its equation holds, any number of times; or another program that stands
        for the equation, such as the jaxpr of a reference implementation.
        """
        jaxpr = opened(program)
        if numbers(jaxpr)[-1] > self._limit:
            raise UserError(
                f"the program has more than {self._limit} equations with its calls written "
                "out; pass a larger max_equations if that is meant"
            )
        outer = self._scope
        self._scope = scope = self._inner(jaxpr)
        if scope.numbered:
            self.now = scope.first
        bound = [self._bound(*pair) for pair in zip(jaxpr.invars, inputs, strict=True)]
        consts = [self._constant(var) for var in jaxpr.constvars]
        results = interpret(jaxpr, consts, bound, self._apply, self._constant, scope.first)
        self._scope = outer
        return tuple(results)

    def _inner(self, jaxpr: Jaxpr) -> "_Scope":
        """The scope of a program that the equation walked now runs, if there is one."""
        flops, outer = product_flops(jaxpr), self._scope
        if outer is None:
            return _Scope(flops)
        if outer.places is None:
            outer.places = {}
            for held, first in places(outer.eqn, self.now - 1):
                outer.places.setdefault(held, []).append(first)
        firsts = outer.places.get(jaxpr)
        if firsts is None:  # made by the rule
            return _Scope(flops, numbered=False, seen=False)
        # Branches of a `cond` may be one program at several places; a loop's is walked repeatedly.
        first = firsts.pop(0) if len(firsts) > 1 else firsts[0]
        seen = outer.seen and outer.eqn.primitive.name in CALLS
        return _Scope(flops, first, outer.numbered, seen)

    def _constant(self, atom: Var | Literal) -> AbstractArray:
        fixed, shape = self.channels.fixed(CONSTANT), shape_of(atom)
        return AbstractArray(_sized((fixed,) * len(shape), shape))

    def _apply(
        self, number: int, eqn: JaxprEqn, operands: list[AbstractArray]
    ) -> list[AbstractArray]:
        """The results of an equation by its rule, in buffers of theirs."""
        scope = self._scope
        assert scope is not None, "`run` enters one"
        scope.eqn, scope.places = eqn, None
        if scope.numbered:
            self.now = number + 1
        results = RULES.get(eqn.primitive.name, _unknown)(self, operands, **eqn.params)
        bound = [self._bound(*pair) for pair in zip(eqn.outvars, results, strict=True)]
        for operand in operands:
            self.alive(operand)
        return bound

    @property
    def eqn(self) -> JaxprEqn:
        """The equation that is walked now."""
        assert self._scope is not None, "no program is walked"
        return self._scope.eqn

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of its operands."""
        return [shape_of(atom) for atom in self.eqn.invars]

    @property
    def result_shapes(self) -> list[tuple[int, ...]]:
        """The shapes of its results."""
        return [shape_of(var) for var in self.eqn.outvars]

    def _bound(self, var: Var, array: AbstractArray) -> AbstractArray:
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

    def alive(self, array: AbstractArray) -> None:
        """Notes that the array is still needed at the equation that is walked now."""
        if array.buffer >= 0:
            self.buffers[array.buffer].death = self.now

    def freeze(self, axes: Iterable[Axis] = (), reason: str | None = None) -> int:
        """Freezes what is on `axes`; returns the label for positions that come of them.

        The reason is by default the primitive that is walked now.
        """
        reason = reason or self.eqn.primitive.name
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

    def product(self, kernel: AbstractArray, reads: Sequence[int], makes: Sequence[int]) -> int:
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

    def read(self, operand: int, x: AbstractArray, axes: Sequence[int]) -> None:
        """Notes that the product that is walked now reads channels on these axes of its operand."""
        for i in axes:
            axis = x.axes[i]
            if self._scope and self._scope.seen and not isinstance(axis, int):
                self.reads.append(Read(self.now - 1, operand, i, axis))

    def reduce(self, i: int, axis: Axis) -> None:
        """Notes that the equation takes all positions on axis `i` of its first operand together."""
        if isinstance(axis, int):
            # Perhaps as many as there are channels somewhere else: see `programs`.
            self.loose.setdefault(id(self.eqn), set()).add(i)
        else:
            self.channels.normalise(axis, self.eqn.primitive.name)

    def cost(self, axes: Sequence[Axis]) -> None:
        """Notes the FLOPs of a product, which are proportional to the sizes of these axes."""
        assert self._scope is not None, "no program is walked"
        carrying = tuple(axis for axis in axes if not isinstance(axis, int))
        self.costs.append(Cost(self.repeats * self._scope.flops(self.eqn), carrying))


Operands = Sequence[AbstractArray]
Results = Sequence[AbstractArray]
# (interp, operands, **parameters of the equation) -> results
Rule = Callable[..., Results]

# By the primitive's name. What has no rule here makes all it touches unprunable.
RULES: dict[str, Rule] = {}


def register_rule(*primitives: str) -> Callable[[Rule], Rule]:
    """Enters a rule into the table for the primitives of these names.

    A rule gets the interpreter, one `AbstractArray` an operand, and the equation's parameters by
    their names; `interp.eqn` is the equation itself. It joins the axes whose channels must be cut
    together, freezes those that must not be cut, and returns one `AbstractArray` a result. An axis
    may pass its labels on only if the program, run again on narrower arrays, would treat each
    channel that is left as before. Axes of size 1 are FREE on both sides.

    Examples, for a primitive that does the same to every position, and for one that calls the
    jaxpr in its parameter `body`:
      >>> @register_rule("my_activation")
      ... def _my_activation(interp, operands, **_):
      ...     return [derived(operands[0].axes, operands)]
      >>> @register_rule("my_call")
      ... def _my_call(interp, operands, *, body, **_):
      ...     return interp.run(body, operands)
    """

    def enter(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(primitives, rule))
        return rule

    return enter


def derived(
    axes: Sequence[Axis], operands: Sequence[AbstractArray], product: int = 0
) -> AbstractArray:
    """The array with these axes that is computed from `operands`, by the product of this bit."""
    data, given, readers, makers = False, False, product, 0
    for x in operands:
        data |= x.data
        given |= x.given
        readers |= x.readers
        makers |= x.makers
    return AbstractArray(tuple(axes), data, readers, product or makers, given=given)


def view(axes: Sequence[Axis], x: AbstractArray) -> AbstractArray:
    """The array with these axes that holds the values of `x` as they are."""
    return x._replace(axes=tuple(axes))


def _unknown(interp: Interpreter, operands: Operands, /, **_: Any) -> Results:
    """The rule where there is none: whatever it does with an axis, nothing on it is cut."""
    label = interp.freeze(axis for x in operands for axis in x.axes)
    with contextlib.suppress(UserError):  # What it costs may be unknown, too.
        if flops := equation_flops(interp.eqn):
            interp.costs.append(Cost(interp.repeats * flops, ()))
    return [derived((label,) * len(shape), operands) for shape in interp.result_shapes]


def _sized(axes: tuple[Axis, ...], shape: tuple[int, ...]) -> tuple[Axis, ...]:
    """`axes`, with FREE where the size is 1: a single channel cannot be cut, and broadcasts."""
    if 1 not in shape:
        return axes
    return tuple([FREE if n == 1 else axis for axis, n in zip(axes, shape, strict=True)])
