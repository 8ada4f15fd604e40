"""Step one: which channels go together, read off the program."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr

import ctl_jax.pruning.rules  # noqa: F401  (fills the table)
from ctl_jax.errors import UserError
from ctl_jax.jaxprs import shape_of
from ctl_jax.pruning import _grouping, _verify
from ctl_jax.pruning._grouping import Partition, Slot, partition
from ctl_jax.pruning._groups import Group, Groups
from ctl_jax.pruning._interpreter import AbstractArray, Interpreter, Place
from ctl_jax.pruning._reshapes import resolve
from ctl_jax.pruning._union_find import Labels, UnionFind
from ctl_jax.pruning._verify import Analysis, described
from ctl_jax.trees import leaf_paths

INPUT = "input of the function"
OUTPUT = "output of the function"
MAX_EQUATIONS = 1_000_000


def trace(
    apply_fn: Callable[..., Any],
    variables: Any,
    *inputs: Any,
    max_equations: int = MAX_EQUATIONS,
) -> Groups:
    """Finds the channel groups of `apply_fn(variables, *inputs)`.

    The function is traced to its jaxpr, on shapes alone: no weight is read, nothing is compiled or
    run. Each primitive joins axes by its rule; one without a rule makes the axes that it touches
    unprunable. Inputs, outputs and constants keep their size. So let the function return only what
    must: a train-mode function that also returns new BatchNorm statistics would freeze every
    channel that has some.

    Then the function is traced again, at other widths (see `verify`): where the jaxpr leaves open
    what it would do there (it splits an axis of channels, into heads or equal parts, or pads one),
    where it may hold numbers that Python computed from a width (`sqrt(d)`, alpha over rank), and
    because it may not run there at all. What does not come out as it should is not cut; `explain`
    says why.

    Args:
      apply_fn: a function of JAX arrays; any library's, any tree of results.
      variables: tree of the parameters and statistics, as arrays or `jax.ShapeDtypeStruct`.
      *inputs: trees of the other arguments, likewise.
      max_equations: a bound on the size of the program, its calls written out.

    Returns:
      The groups.

    Raises:
      UserError: `variables` has no leaves, or two of one path; the function can not be traced, or
        is larger than `max_equations`.

    Example:
      >>> groups = trace(lambda v, x: model.apply(v, x, train=False), variables, images)
      >>> print(groups)
    """
    leaves = leaf_paths(variables)
    if not leaves:
        raise UserError(f"variables is {variables!r}, expected a tree with at least one array")
    shapes = {path: tuple(np.shape(leaf)) for path, leaf in leaves}
    if len(shapes) < len(leaves):
        twice = next(path for path, n in Counter(path for path, _ in leaves).items() if n > 1)
        raise UserError(f"variables has two leaves at {twice!r}, expected one a path")
    try:
        program = jax.make_jaxpr(apply_fn)(variables, *inputs)
    except Exception as error:
        raise UserError(
            f"apply_fn can not be traced with these variables and inputs: {described(error)}"
        ) from error
    abstract, abstract_inputs = jax.tree.map(_abstract, (variables, inputs))
    paths = list(shapes)

    def at_widths(others: Any) -> ClosedJaxpr:
        return jax.make_jaxpr(apply_fn)(others, *abstract_inputs)

    def settled(whole: Sequence[tuple[Group, str]]) -> Analysis:
        return _verify.settle(
            lambda guesses: analyse(program.jaxpr, paths, guesses, whole, max_equations),
            lambda wide, guesses: analyse(
                at_widths(wide).jaxpr, paths, guesses, whole, max_equations
            ),
            abstract,
        )

    found, left = _verify.left_whole(settled, program, at_widths, abstract)
    return dataclasses.replace(
        found.groups,
        left=left,
        apply_fn=apply_fn,
        variables=abstract,
        inputs=abstract_inputs,
        _change=functools.cache(
            lambda widths: _verify.change(found, program, at_widths, abstract, dict(widths))
        ),
    )


def analyse(
    jaxpr: Jaxpr,
    paths: Sequence[str],
    guesses: Mapping[Place, int],
    whole: Sequence[tuple[Group, str]],
    max_equations: int,
) -> Analysis:
    """The groups of a program whose first inputs are the parameters of these paths.

    `whole` are groups that must not be cut, and why.
    """
    slots: list[Slot] = []
    weights = []
    shapes = {}
    size = 0
    for path, var in zip(paths, jaxpr.invars, strict=False):
        shapes[path] = shape_of(var)
        for axis, n in enumerate(shapes[path]):
            # A single channel can not be cut: it is no element (see `register_rule`).
            count = n if n > 1 else 0
            slots.append(Slot(path, axis, np.arange(size, size + count)))
            size += count
        of_path = slots[len(slots) - len(shapes[path]) :]
        weights.append(AbstractArray(tuple(slot.ids for slot in of_path), given=True))
    interp = Interpreter(UnionFind(size), max_equations, guesses)
    fixed = interp.channels.fixed(INPUT)
    data = [
        AbstractArray((fixed,) * len(shape_of(var)), data=True, given=True)
        for var in jaxpr.invars[len(weights) :]
    ]
    outputs = interp.run(jaxpr, [*weights, *data])
    for output in outputs:
        interp.alive(output)
        interp.freeze(output.axes, OUTPUT)
    at = {(slot.path, slot.axis): slot.ids for slot in slots}
    for group, reason in whole:
        interp.freeze([at[m.path, m.axis][m.positions.ravel()] for m in group.members], reason)
    resolve(interp.channels, interp.grids, size)
    parts = partition(interp, outputs, slots, shapes)
    groups = Groups(
        parts.groups,
        shapes,
        parts.frozen,
        _grouping.readings(interp, parts),
        functools.partial(_grouping.costs, interp, parts, slots, shapes),
    )
    return Analysis(
        groups,
        tuple(interp.guessed),
        tuple(_names(guess.ids, parts) for guess in interp.guessed),
        tuple(shape_of(var) for var in jaxpr.outvars),
        interp.loose,
    )


def _names(ids: Labels, parts: Partition) -> frozenset[str]:
    """The groups that some elements are in."""
    names = list(parts.groups)
    return frozenset(names[i] for i in np.unique(parts.index[ids]) if i >= 0)


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    dtype = leaf.dtype if hasattr(leaf, "dtype") else np.result_type(leaf)
    # As JAX takes a float64 of NumPy; from 0.11 on it warns of others.
    taken = jax.dtypes.canonicalize_dtype(dtype, allow_extended_dtype=True)
    return jax.ShapeDtypeStruct(np.shape(leaf), taken)
