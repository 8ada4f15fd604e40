"""Correction of kernels that read a cut group, by the channels that stay.

A channel that goes is, on real data, partly a linear combination of those that stay. With x_d the
channels that go and x_k those that stay, as a kernel reads them,

    A = argmin |x_d - x_k A|^2 + n ridge m |A|^2 = (x_k'x_k + n ridge m)^-1 x_k'x_d

predicts them (n values of each channel, m the mean square of those that stay), and the kernel's
rows for x_k gain A times its rows for x_d. For matrix products and 1 x 1 convolutions that is the
least-squares reconstruction of their outputs: He et al. 2017, "Channel Pruning for Accelerating
Very Deep Neural Networks"; Meng et al. 2024, "OSSCAR: One-Shot Structured Pruning in Vision and
Language Models with Combinatorial Optimization". Larger windows have one A for all their places, as
in Kim et al. 2020, "Neuron Merging: Compensating for Pruned Neurons": the products are of channels,
not of channels times places, so that a few images are enough, and cost little beside the forward
pass.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Sequence
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import JaxprEqn

from ctl_jax import compute
from ctl_jax.errors import UserError
from ctl_jax.jaxprs import evaluate
from ctl_jax.pruning._groups import PRODUCTS, Groups
from ctl_jax.pruning._keep import Keep
from ctl_jax.trees import Floats, Ints, leaf_paths

Axes = tuple[int, ...]
# Of each kernel that can be corrected x_k'x, float32 [channels that stay, channels].
Products = dict[str, jax.Array]

# Relative to the mean square of the channels that stay.
RIDGE = 0.01


@dataclasses.dataclass(frozen=True, eq=False)
class Correction:
    """Kernels that are corrected for a cut.

    Attributes:
      variables: the tree that was traced, at its full widths: `prune` cuts it.
      paths: the kernels that are corrected.
      notes: how many readers of cut groups are not.
    """

    variables: Any
    paths: tuple[str, ...]
    notes: tuple[str, ...]


def correct(
    groups: Groups, variables: Any, keep: Keep, batches: Iterable[Any], ridge: float = RIDGE
) -> Correction:
    """Corrects the kernels that read channels of cut groups, from activations of the full network.

    These are convolutions and matrix products of data with a parameter as it is, outside of loops.
    Convolutions in groups (`feature_group_count`), depthwise ones too, read few channels or one,
    and stay as they are.

    Args:
      groups: from `trace`, whose function is run: one forward pass of the full network.
      variables: the tree that was traced, with arrays.
      keep: from `select`.
      batches: inputs of the function, arrays, or tuples where it has several. Each size of a batch
        compiles once; some functions are other programs on a batch of 1 than on more.
      ridge: how much the correction is held back, relative to the mean square of the channels that
        stay: with more of it kernels stay nearer to what they are.

    Returns:
      See `Correction`; leaves that are not corrected are the same objects.

    Raises:
      UserError: there is no batch, the function is another program on it than as traced, or
        activations are not finite.

    Example:
      >>> corrected = correct(groups, variables, keep, [images]).variables
      >>> small = prune(corrected, groups, keep)
    """
    keep.check(groups)
    axes: dict[str, Axes] = {}
    step = jax.jit(_step(groups, keep, axes))
    totals: dict[str, Any] = {}
    batch = None
    for batch in batches:
        inputs = batch if isinstance(batch, tuple) else (batch,)
        for path, product in jax.device_get(step(variables, *inputs)).items():
            totals[path] = totals.get(path, 0) + product.astype(np.float64)
    if batch is None:
        raise UserError("batches holds no batch, expected at least one")
    leaves: list[Any]
    treedef: Any
    leaves, treedef = jax.tree.flatten(variables)
    for i, (path, leaf) in enumerate(leaf_paths(variables)):
        if path in totals:
            if not np.isfinite(totals[path]).all():
                raise UserError(f"{path} reads NaN or infinite values, expected finite ones")
            stays = _stays(keep, path, axes[path])
            leaves[i] = _corrected(np.asarray(leaf), axes[path], stays, totals[path], ridge)
    return Correction(treedef.unflatten(leaves), tuple(totals), _notes(groups, keep, totals))


def correction_flops(groups: Groups, variables: Any, keep: Keep, *inputs: Any) -> tuple[int, int]:
    """FLOPs of `correct`, from the widths that are kept alone.

    Args:
      groups: from `trace`.
      variables: the tree that was traced, perhaps abstract.
      keep: which widths.
      *inputs: of the function, perhaps abstract.

    Returns:
      Those of a batch of these inputs, for the forward pass and the products; and those of the
      solutions, whatever the number of batches.
    """
    step = _step(groups, keep, {})
    of_batch, solutions = compute.flops(step, variables, *inputs), 0
    for path, product in jax.eval_shape(step, variables, *inputs).items():
        kept, size = product.shape
        outputs = prod(groups.shapes[path]) // size
        # An LU factorisation, two triangular solutions a column, and the product with the kernel.
        solutions += 2 * kept**3 // 3 + 2 * kept * (size - kept) * (kept + outputs)
    return of_batch, solutions


def _step(groups: Groups, keep: Keep, axes: dict[str, Axes]) -> Callable[..., Products]:
    """One batch: x_k'x of each kernel that can be corrected, whose read axes `axes` is told."""
    cut = _cut(keep)
    wanted = {reading.equation for reading in groups.readings if reading.group in cut}

    def step(variables: Any, *inputs: Any) -> Products:
        # Programs hand parameters on as the very objects that they are given.
        paths = {id(leaf): path for path, leaf in leaf_paths(variables)}
        found: Products = {}

        def look(number: int, eqn: JaxprEqn, operands: Sequence[Any]) -> None:
            if number not in wanted:
                return
            if eqn.primitive.name not in PRODUCTS:
                raise UserError(
                    f"equation {number} of the traced function is {eqn.primitive.name} for these "
                    "inputs, expected the product that it is as traced, on batches of that size"
                )
            for side in (0, 1):
                path = paths.get(id(operands[side]))
                reads = _reads(eqn, operands, side) if path else None
                if path and reads:
                    x, axes[path] = reads
                    stays = _stays(keep, path, axes[path])
                    product = jnp.matmul(x[:, stays].T, x, precision=lax.Precision.HIGHEST)
                    found[path] = found[path] + product if path in found else product

        assert groups.apply_fn is not None, "these groups are not from trace"
        evaluate(groups.apply_fn, (variables, *inputs), wanted, look)
        return found

    return step


def _reads(eqn: JaxprEqn, operands: Sequence[Any], side: int) -> tuple[jax.Array, Axes] | None:
    """What the kernel on one side of a product reads, float32 [values, channels], and its axes.

    None where it is no product of data and a kernel whose outputs each read all channels.
    """
    x, params = operands[1 - side], eqn.params
    if eqn.primitive.name == "dot_general":
        contracted, batch = params["dimension_numbers"]
        if batch[0]:
            return None
        of_x, of_kernel = tuple(contracted[1 - side]), tuple(contracted[side])
    elif eqn.primitive.name == "conv_general_dilated" and side == 1:
        if params["feature_group_count"] > 1 or params["batch_group_count"] > 1:
            return None
        numbers = params["dimension_numbers"]
        x = _seen(x, numbers.lhs_spec[2:], numbers.rhs_spec[2:], operands[1].shape, params)
        of_x, of_kernel = (numbers.lhs_spec[1],), (numbers.rhs_spec[1],)
    else:
        return None
    others = [axis for axis in range(x.ndim) if axis not in of_x]
    channels = prod(x.shape[axis] for axis in of_x)
    return x.transpose(*others, *of_x).reshape(-1, channels).astype(jnp.float32), of_kernel


def _seen(x: jax.Array, axes: Axes, of_kernel: Axes, kernel: Axes, params: Any) -> jax.Array:
    """The map without the rows and columns that a window of one place strides over."""
    for axis, window, stride in zip(axes, of_kernel, params["window_strides"], strict=True):
        if kernel[window] == 1 and stride > 1:
            x = lax.slice_in_dim(x, 0, None, stride, axis)
    return x


def _stays(keep: Keep, path: str, axes: Axes) -> Ints:
    """Which of the channels that a kernel reads stay, counted over its axes together."""
    shape, positions = keep.layout.shapes[path], keep.positions.get(path, {})
    kept = [positions.get(axis, np.arange(shape[axis])) for axis in axes]
    sizes = [shape[axis] for axis in axes]
    return np.ravel_multi_index(np.ix_(*kept), sizes).ravel()


def _corrected(
    kernel: np.ndarray, axes: Axes, stays: Ints, product: Floats, ridge: float
) -> np.ndarray:
    """The kernel with corrected rows where channels stay; what it loses is as it was."""
    front = tuple(range(len(axes)))
    moved = np.moveaxis(kernel, axes, front)
    rows = moved.reshape(product.shape[1], -1).astype(np.float64)
    goes = np.setdiff1d(np.arange(len(rows)), stays)
    square = product[:, stays]
    held = ridge * np.trace(square) / len(stays)
    if held > 0 and goes.size:
        square = square + held * np.eye(len(stays))
        rows[stays] += np.linalg.solve(square, product[:, goes]) @ rows[goes]
    found = rows.reshape(moved.shape).astype(kernel.dtype)
    return np.ascontiguousarray(np.moveaxis(found, front, axes))


def _cut(keep: Keep) -> set[str]:
    return {name for name, kept in keep.items() if len(kept) < keep.sizes[name]}


def _notes(groups: Groups, keep: Keep, corrected: Collection[str]) -> tuple[str, ...]:
    cut = _cut(keep)
    readers = {m.path for name in cut for m in groups[name].members if m.role == "in"}
    left = sorted(readers - set(corrected))
    if not left:
        return ()
    return (f"{len(left)} of {len(readers)} readers are not corrected, such as {left[0]!r}",)
