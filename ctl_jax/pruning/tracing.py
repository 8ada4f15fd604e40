"""Step one: which channels go together, read off the program."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import ctl_jax.pruning.rules  # noqa: F401  (fills the table)
from ctl_jax.errors import UserError
from ctl_jax.pruning.channels import Channels
from ctl_jax.pruning.groups import Groups
from ctl_jax.pruning.partition import Slot, partition
from ctl_jax.pruning.paths import leaf_paths
from ctl_jax.pruning.walk import Array, Walk, shape_of

INPUT = "input of the function"
OUTPUT = "output of the function"


def trace(apply_fn: Callable[..., Any], variables: Any, *inputs: Any) -> Groups:
    """Finds the channel groups of `apply_fn(variables, *inputs)`.

    The function is traced once to its jaxpr, on shapes alone: no weight is read, nothing is
    compiled or run. Each primitive joins axes by its rule; one without a rule makes the axes that
    it touches unprunable. Inputs, outputs and constants keep their size. So let the function
    return only what must: a train-mode function that also returns new BatchNorm statistics would
    freeze every channel that has some.

    A number that Python computes from a width (the `sqrt(d)` of attention) is a literal in the
    jaxpr. Where primitives show that this may matter (a reduction over channels, a product of two
    activations) the channels are frozen; elsewhere it can not be seen.

    Args:
      apply_fn: a function of JAX arrays; any library's, any tree of results.
      variables: tree of the parameters and statistics, as arrays or `jax.ShapeDtypeStruct`.
      *inputs: trees of the other arguments, likewise.

    Returns:
      The groups.

    Raises:
      UserError: `variables` has no leaves, or two of one path.

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
    jaxpr = jax.make_jaxpr(apply_fn)(variables, *inputs).jaxpr
    slots: list[Slot] = []
    weights = []
    size = 0
    for path, shape in shapes.items():
        for axis, n in enumerate(shape):
            # A single channel can not be cut: it is no element (see `register_rule`).
            count = n if n > 1 else 0
            slots.append(Slot(path, axis, np.arange(size, size + count)))
            size += count
        weights.append(Array(tuple(slot.ids for slot in slots[len(slots) - len(shape) :])))
    walk = Walk(Channels(size))
    fixed = walk.channels.fixed(INPUT)
    data = [Array((fixed,) * len(shape_of(var)), data=True) for var in jaxpr.invars[len(weights) :]]
    outputs = walk.run(jaxpr, [*weights, *data])
    for output in outputs:
        walk.freeze(output.axes, OUTPUT)
    return partition(walk, outputs, slots, shapes)
