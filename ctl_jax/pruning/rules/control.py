"""Rules for equations that hold programs of their own: calls, loops, branches."""

from collections.abc import Sequence
from typing import Any

from ctl_jax.jaxprs import CALLS, Program, programs
from ctl_jax.pruning._interpreter import (
    AbstractArray,
    Cost,
    Interpreter,
    Operands,
    Results,
    register_rule,
)
from ctl_jax.pruning._union_find import merged

# A label that is new in a loop's carry reaches all of it in as many turns as the carry has parts
# that feed one another; more than this is not met in networks.
MOST_TURNS = 8


@register_rule(*CALLS)
def _call(interp: Interpreter, operands: Operands, **_: Any) -> Results:
    """A function called with these operands: walked as if it stood here."""
    (program,) = programs(interp.eqn)
    return interp.run(program, operands)


@register_rule("scan")
def _scan(
    interp: Interpreter,
    operands: Operands,
    *,
    jaxpr: Program,
    length: int,
    num_consts: int = 0,
    num_carry: int = 0,
    ft_in: Any = None,
    **_: Any,
) -> Results:
    """The body sees one slice of each stacked array; what it carries is one array to it."""
    if ft_in is not None:  # since jax 0.11, instead of the numbers
        consts, carry, stacked = map(list, ft_in.update(operands).unpack())
    else:
        first, last = num_consts, num_consts + num_carry
        consts, carry, stacked = map(
            list, (operands[:first], operands[first:last], operands[last:])
        )
    steps = interp.freeze(x.axes[0] for x in stacked)
    slices = [x._replace(axes=x.axes[1:]) for x in stacked]
    interp.repeats *= length
    results = _loop(interp, jaxpr, consts, carry, slices)
    interp.repeats //= length or 1
    carried, made = results[: len(carry)], results[len(carry) :]
    return [
        *carried,
        *(x._replace(axes=(steps, *x.axes), buffer=-1) for x in made),
    ]


@register_rule("while")
def _while(
    interp: Interpreter,
    operands: Operands,
    *,
    cond_jaxpr: Program,
    cond_nconsts: int,
    body_jaxpr: Program,
    body_nconsts: int,
    **_: Any,
) -> Results:
    """As a scan without stacked arrays; its condition reads what it carries, too."""
    first, last = cond_nconsts, cond_nconsts + body_nconsts
    carried = _loop(interp, body_jaxpr, operands[first:last], operands[last:], [])
    interp.run(cond_jaxpr, [*operands[:first], *carried])
    return carried


@register_rule("cond")
def _cond(
    interp: Interpreter, operands: Operands, *, branches: Sequence[Program], **_: Any
) -> Results:
    """All branches must agree; the dearest one counts, as in `compute.flops`."""
    costs = interp.costs
    found: list[Results] = []
    dearest: list[Cost] = []
    for branch in branches:
        interp.costs = []
        found.append(interp.run(branch, operands[1:]))
        dearest = max(dearest, interp.costs, key=lambda costs: sum(cost.flops for cost in costs))
    interp.costs = costs + dearest
    results, *others = found
    for other in others:
        results = [_both(interp, x, y) for x, y in zip(results, other, strict=True)]
    # Which branch runs depends on the first operand.
    index = operands[0]
    return [
        x._replace(data=x.data or index.data, given=x.given or index.given, buffer=-1)
        for x in results
    ]


def _loop(
    interp: Interpreter,
    body: Program,
    consts: Sequence[AbstractArray],
    carry: Sequence[AbstractArray],
    slices: Sequence[AbstractArray],
) -> list[AbstractArray]:
    """Walks a loop's body until what it carries has the same labels before and after a turn."""
    # A turn that is walked again leaves its joins and additions; all else is noted once.
    noted = (
        interp.products,
        interp.grids,
        interp.guessed,
        interp.buffers,
        interp.costs,
        interp.reads,
    )
    marks = [len(notes) for notes in noted]
    reductions = interp.channels.count_normalised()
    for _ in range(MOST_TURNS):
        for notes, mark in zip(noted, marks, strict=True):
            del notes[mark:]  # type: ignore[attr-defined]
        interp.channels.take_back(reductions)
        results = interp.run(body, [*consts, *carry, *slices])
        before, carry = carry, [_both(interp, x, y) for x, y in zip(carry, results, strict=False)]
        if all(_settled(x, y) for x, y in zip(before, carry, strict=True)):
            break
    else:
        interp.freeze([axis for x in carry for axis in x.axes], "loop")
    return [*(x._replace(buffer=-1) for x in carry), *results[len(carry) :]]


def _both(interp: Interpreter, x: AbstractArray, y: AbstractArray) -> AbstractArray:
    """An array that is one of these two: their axes are joined."""
    axes = []
    for a, b in zip(x.axes, y.axes, strict=True):
        interp.channels.join(a, b)
        axes.append(merged(a, b))
    readers, makers = x.readers | y.readers, x.makers | y.makers
    given = x.given or y.given
    return AbstractArray(tuple(axes), x.data or y.data, readers, makers, x.buffer, given)


def _settled(before: AbstractArray, after: AbstractArray) -> bool:
    """Whether another turn would learn nothing: arrays of labels are joined, so they may differ."""
    same = all(
        a == b if isinstance(a, int) and isinstance(b, int) else type(a) is type(b)
        for a, b in zip(before.axes, after.axes, strict=True)
    )
    return same and all(
        getattr(before, what) == getattr(after, what) for what in ("data", "given", "readers")
    )
