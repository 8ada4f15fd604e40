"""Step two: how much each channel matters."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ctl_jax.errors import UserError
from ctl_jax.pruning.groups import Group, Groups
from ctl_jax.pruning.paths import leaf_paths

Scores = npt.NDArray[np.float64]

# From all weights that produce a channel, float64 [channels, weights], to its score [channels].
CRITERIA: dict[str, Callable[[Scores], Scores]] = {
    "l1": lambda weights: np.abs(weights).sum(axis=1),
    "l2": lambda weights: np.sqrt(np.square(weights).sum(axis=1)),
}


def score(groups: Groups, variables: Any, criterion: str = "l2") -> dict[str, Scores]:
    """Scores every channel of every group by the weights that produce it.

    A channel of a residual stream is produced by several kernels; its score is the norm of their
    slices taken together, as of one long filter (Li et al. 2017, "Pruning Filters for Efficient
    ConvNets", for l1 and a single kernel).

    Args:
      groups: from `trace`.
      variables: the tree that was traced, with arrays.
      criterion: "l1", the sum of absolute weights, or "l2", the root of the sum of their squares.

    Returns:
      Group name to scores, NumPy float64 [size]; higher matters more. Computed on the host.

    Raises:
      UserError: there is no such criterion; a kernel is missing, has another shape than when
        traced, or holds a value that is not finite.
    """
    if criterion not in CRITERIA:
        raise UserError(f"criterion is {criterion!r}, expected one of {', '.join(CRITERIA)}")
    leaves = dict(leaf_paths(variables))
    return {
        name: CRITERIA[criterion](_produced_by(group, groups.shapes, leaves))
        for name, group in groups.items()
    }


def _produced_by(
    group: Group, shapes: Mapping[str, tuple[int, ...]], leaves: Mapping[str, Any]
) -> Scores:
    """All weights that produce each channel of a group: [size, weights]."""
    slices = []
    for member in group.members:
        if member.role != "out":
            continue
        kernel = _kernel(member.path, shapes[member.path], leaves)
        filters = np.moveaxis(kernel, member.axis, 0)
        slices.append(filters[member.positions].reshape(group.size, -1))
    return np.concatenate(slices, axis=1)


def _kernel(path: str, shape: tuple[int, ...], leaves: Mapping[str, Any]) -> Scores:
    if path not in leaves:
        raise UserError(f"variables has no {path!r}, expected the tree that was traced")
    kernel = np.asarray(leaves[path]).astype(np.float64)
    if kernel.shape != shape:
        raise UserError(f"{path} has shape {kernel.shape}, expected {shape} as traced")
    wrong = int((~np.isfinite(kernel)).sum())
    if wrong:
        raise UserError(f"{path} has {wrong} values that are NaN or infinite, expected none")
    return kernel
