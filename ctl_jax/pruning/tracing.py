"""Step one: which channels go together, read off the program."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import Jaxpr

import ctl_jax.pruning.rules  # noqa: F401  (fills the table)
from ctl_jax.errors import UserError
from ctl_jax.pruning import accounts, probe
from ctl_jax.pruning.channels import Channels, Labels
from ctl_jax.pruning.grids import resolve
from ctl_jax.pruning.groups import Groups
from ctl_jax.pruning.partition import Partition, Slot, partition
from ctl_jax.pruning.paths import leaf_paths
from ctl_jax.pruning.probe import Analysis
from ctl_jax.pruning.walk import Array, Place, Walk, shape_of

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

    Where the jaxpr leaves open what the program would do at other widths (it splits an axis of
    channels, into heads or equal parts, or pads one), the function is traced again with a channel
    more in each group concerned. What does not come out as it should is not cut.

    A number that Python computes from a width (the `sqrt(d)` of attention) is a literal in the
    jaxpr. Where primitives show that this may matter (a reduction over channels, a product of two
    activations) the groups say so or are frozen; elsewhere it can not be seen.

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
        jaxpr = jax.make_jaxpr(apply_fn)(variables, *inputs).jaxpr
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), "")
        raise UserError(
            f"apply_fn can not be traced with these variables and inputs: "
            f"{type(error).__name__}: {first}"
        ) from error
    abstract, abstract_inputs = jax.tree.map(_abstract, (variables, inputs))
    found = probe.settle(
        lambda guesses: analyse(jaxpr, list(shapes), guesses, max_equations),
        lambda wide, guesses: analyse(
            jax.make_jaxpr(apply_fn)(wide, *abstract_inputs).jaxpr,
            list(shapes),
            guesses,
            max_equations,
        ),
        abstract,
    )
    return dataclasses.replace(
        found.groups, apply_fn=apply_fn, variables=abstract, inputs=abstract_inputs
    )


def analyse(
    jaxpr: Jaxpr, paths: Sequence[str], guesses: Mapping[Place, int], max_equations: int
) -> Analysis:
    """The groups of a program whose first inputs are the parameters of these paths."""
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
        weights.append(Array(tuple(slot.ids for slot in slots[len(slots) - len(shapes[path]) :])))
    walk = Walk(Channels(size), max_equations, guesses)
    fixed = walk.channels.fixed(INPUT)
    data = [Array((fixed,) * len(shape_of(var)), data=True) for var in jaxpr.invars[len(weights) :]]
    outputs = walk.run(jaxpr, [*weights, *data])
    for output in outputs:
        walk.alive(output)
        walk.freeze(output.axes, OUTPUT)
    resolve(walk.channels, walk.grids, size)
    parts = partition(walk, outputs, slots, shapes)
    groups = Groups(
        parts.groups,
        shapes,
        parts.frozen,
        accounts.readings(walk, parts),
        functools.partial(accounts.costs, walk, parts, slots, shapes),
    )
    return Analysis(
        groups,
        tuple(walk.guessed),
        tuple(_names(guess.ids, parts) for guess in walk.guessed),
        tuple(shape_of(var) for var in jaxpr.outvars),
    )


def _names(ids: Labels, parts: Partition) -> frozenset[str]:
    """The groups that some elements are in."""
    names = list(parts.groups)
    return frozenset(names[i] for i in np.unique(parts.index[ids]) if i >= 0)


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    dtype = leaf.dtype if hasattr(leaf, "dtype") else np.result_type(leaf)
    return jax.ShapeDtypeStruct(np.shape(leaf), dtype)
