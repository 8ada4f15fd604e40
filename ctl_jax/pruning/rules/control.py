"""Rules for equations that hold programs of their own: calls, loops, branches."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from ctl_jax.pruning.channels import merged
from ctl_jax.pruning.walk import Array, Cost, Walk, register_rule

# A label that is new in a loop's carry reaches all of it in as many turns as the carry has parts
# that feed one another; more than this is not met in networks.
MOST_TURNS = 8


@register_rule(
    "call", "closed_call", "composite", "custom_jvp_call", "custom_vjp_call", "jit", "remat2",
    "checkpoint",  # remat2 by the name it has in other versions of jax
)  # fmt: skip
def _call(walk: Walk, eqn: JaxprEqn, operands: Sequence[Array]) -> Sequence[Array]:
    """A function called with these operands: walked as if it stood here."""
    params = eqn.params
    return walk.run(_open(params["jaxpr"] if "jaxpr" in params else params["call_jaxpr"]), operands)


@register_rule("scan")
def _scan(walk: Walk, eqn: JaxprEqn, operands: Sequence[Array]) -> Sequence[Array]:
    """The body sees one slice of each stacked array; what it carries is one array to it."""
    params = eqn.params
    if "ft_in" in params:  # since jax 0.11
        consts, carry, stacked = map(list, params["ft_in"].update(operands).unpack())
    else:
        first, last = params["num_consts"], params["num_consts"] + params["num_carry"]
        consts, carry, stacked = map(
            list, (operands[:first], operands[first:last], operands[last:])
        )
    steps = walk.freeze([x.axes[0] for x in stacked], "scan")
    slices = [x._replace(axes=x.axes[1:]) for x in stacked]
    walk.repeats *= params["length"]
    results = _loop(walk, _open(params["jaxpr"]), consts, carry, slices)
    walk.repeats //= params["length"] or 1
    carried, made = results[: len(carry)], results[len(carry) :]
    return [
        *carried,
        *(x._replace(axes=(steps, *x.axes), buffer=-1) for x in made),
    ]


@register_rule("while")
def _while(walk: Walk, eqn: JaxprEqn, operands: Sequence[Array]) -> Sequence[Array]:
    """As a scan without stacked arrays; its condition reads what it carries, too."""
    params = eqn.params
    first = params["cond_nconsts"]
    last = first + params["body_nconsts"]
    carried = _loop(walk, _open(params["body_jaxpr"]), operands[first:last], operands[last:], [])
    with _inside(walk):
        walk.run(_open(params["cond_jaxpr"]), [*operands[:first], *carried])
    return carried


@register_rule("cond")
def _cond(walk: Walk, eqn: JaxprEqn, operands: Sequence[Array]) -> Sequence[Array]:
    """All branches must agree; the dearest one counts, as in `compute.flops`."""
    costs = walk.costs
    branches: list[tuple[Array, ...]] = []
    dearest: list[Cost] = []
    for branch in eqn.params["branches"]:
        walk.costs = []
        with _inside(walk):
            branches.append(walk.run(_open(branch), operands[1:]))
        dearest = max(dearest, walk.costs, key=lambda found: sum(cost.flops for cost in found))
    walk.costs = costs + dearest
    results = branches[0]
    for other in branches[1:]:
        results = tuple(_both(walk, x, y) for x, y in zip(results, other, strict=True))
    # Which branch runs depends on the first operand.
    index = operands[0]
    return [
        x._replace(data=x.data or index.data, given=x.given or index.given, buffer=-1)
        for x in results
    ]


def _open(jaxpr: Any) -> Jaxpr:
    return jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr


@contextlib.contextmanager
def _inside(walk: Walk) -> Iterator[None]:
    walk.inside += 1
    try:
        yield
    finally:
        walk.inside -= 1


def _loop(
    walk: Walk,
    body: Jaxpr,
    consts: Sequence[Array],
    carry: Sequence[Array],
    slices: Sequence[Array],
) -> list[Array]:
    """Walks a loop's body until what it carries has the same labels before and after a turn."""
    # A turn that is walked again leaves its joins and additions; all else is noted once.
    noted = (walk.products, walk.grids, walk.guessed, walk.buffers, walk.costs, walk.reads)
    marks, now = [len(notes) for notes in noted], walk.now
    reductions = walk.channels.count_normalised()
    for _ in range(MOST_TURNS):
        for notes, mark in zip(noted, marks, strict=True):
            del notes[mark:]  # type: ignore[attr-defined]
        walk.channels.take_back(reductions)
        walk.now = now
        with _inside(walk):
            results = walk.run(body, [*consts, *carry, *slices])
        before, carry = carry, [_both(walk, x, y) for x, y in zip(carry, results, strict=False)]
        if all(_settled(x, y) for x, y in zip(before, carry, strict=True)):
            break
    else:
        walk.freeze([axis for x in carry for axis in x.axes], "loop")
    return [*(x._replace(buffer=-1) for x in carry), *results[len(carry) :]]


def _both(walk: Walk, x: Array, y: Array) -> Array:
    """An array that is one of these two: their axes are joined."""
    axes = []
    for a, b in zip(x.axes, y.axes, strict=True):
        walk.channels.join(a, b)
        axes.append(merged(a, b))
    readers, makers = x.readers | y.readers, x.makers | y.makers
    given = x.given or y.given
    return Array(tuple(axes), x.data or y.data, readers, makers, x.buffer, given)


def _settled(before: Array, after: Array) -> bool:
    """Whether another turn would learn nothing: arrays of labels are joined, so they may differ."""
    same = all(
        a == b if isinstance(a, int) and isinstance(b, int) else type(a) is type(b)
        for a, b in zip(before.axes, after.axes, strict=True)
    )
    return same and all(
        getattr(before, what) == getattr(after, what) for what in ("data", "given", "readers")
    )
