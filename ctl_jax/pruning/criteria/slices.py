"""Sums over the slices of a parameter: one number for each channel on one of its axes.

The slice of a channel is all weights of the parameter at the channel's positions. Sums are taken
over the whole parameter in place, a cache-sized block at a time, in the parameter's own precision
within a block and in float64 across blocks: no copy of the weights is made, and reading them once
from memory is what it costs. Only where the result leaves the range of float32 is it taken again
in float64.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from ctl_jax.errors import UserError
from ctl_jax.pruning._groups import Member

Kernel = npt.NDArray[np.floating[Any]]
Vector = npt.NDArray[np.float64]

# Values a block: two of them fit in a core's second-level cache.
_BLOCK = 1 << 16
# At most so many rows are summed up in single precision: an error of 1e-6 or less.
_ROWS = 1 << 11
# Squares of float32 outside of these have underflowed, or are about to overflow.
_SMALLEST, _LARGEST = 1e-30, 1e36


def kernel_of(path: str, leaves: Mapping[str, Any]) -> Kernel:
    """A parameter's values on the host, float32 or float64; without a copy where they are.

    Complex ones get a last axis: the real and the imaginary part are two weights.

    Raises:
      UserError: the leaf holds no values, or no numbers.
    """
    leaf = leaves[path]
    if isinstance(leaf, jax.ShapeDtypeStruct):
        raise UserError(f"{path} is {leaf}, without values; expected an array")
    kernel = np.asarray(leaf)
    kind = kernel.dtype
    if kind in (np.float32, np.float64):
        return kernel
    if jnp.issubdtype(kind, np.complexfloating):
        return np.stack([kernel.real, kernel.imag], axis=-1)
    if jnp.issubdtype(kind, np.integer) and kind.itemsize > 2:
        return kernel.astype(np.float64)
    if not jnp.issubdtype(kind, np.number):
        raise UserError(f"{path} is of dtype {kind}, expected numbers")
    return kernel.astype(np.float32)


def absolutes(kernel: Kernel, axis: int) -> Vector:
    """The sum of |w| over all other axes: [size of the axis]."""
    return _in_range(_total, kernel, axis, _sum_of_absolutes)


def squares(kernel: Kernel, axis: int) -> Vector:
    """The sum of w^2 over all other axes: [size of the axis]."""
    return _in_range(_total, kernel, axis, _sum_of_squares)


def largest(kernel: Kernel, axis: int) -> Vector:
    """The largest |w| over all other axes: [size of the axis]."""
    before, size, after = _sizes(kernel, axis)
    result = np.zeros(size)
    if after == 1:
        for block in _blocks(kernel.reshape(before, size), size):
            np.maximum(result, np.abs(block).max(axis=0), out=result)
        return result
    rows = [np.abs(b).max(axis=1) for b in _blocks(kernel.reshape(before * size, after), after)]
    return np.concatenate(rows).reshape(before, size).max(axis=0).astype(np.float64)


def distances(kernel: Kernel, member: Member) -> Vector:
    """The sum of Euclidean distances from each channel's slice to all others: [channels]."""
    return _in_range(_distances, kernel, member.axis, member.positions)


def by_channel(vector: Vector, member: Member, *, largest: bool = False) -> Vector:
    """From values by position on the member's axis to values by channel: their sum or largest."""
    found = vector[member.positions]
    return found.max(axis=1) if largest else found.sum(axis=1)


def relative(values: Vector, to: Vector | np.float64) -> Vector:
    """`values / to`, and 0 where `to` is."""
    return np.divide(values, to, out=np.zeros_like(values), where=np.not_equal(to, 0))


def _in_range(
    measure: Callable[..., Vector], kernel: Kernel, axis: int, *arguments: object
) -> Vector:
    """`measure`, repeated in float64 if float32 was too short for the squares."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        result = measure(kernel, axis, *arguments)
        if kernel.dtype != np.float64 and not (
            result.min(initial=1) > _SMALLEST and result.max(initial=1) < _LARGEST
        ):
            result = measure(kernel.astype(np.float64), axis, *arguments)
    return result


def _sizes(kernel: Kernel, axis: int) -> tuple[int, int, int]:
    shape = kernel.shape
    return math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])


def _blocks(matrix: Kernel, width: int) -> Iterator[Kernel]:
    step = min(max(1, _BLOCK // max(width, 1)), _ROWS)
    for start in range(0, len(matrix), step):
        yield matrix[start : start + step]


def _total(kernel: Kernel, axis: int, reduce: Callable[[Kernel, str], Kernel]) -> Vector:
    before, size, after = _sizes(kernel, axis)
    if after == 1:
        result = np.zeros(size)
        for block in _blocks(kernel.reshape(before, size), size):
            result += reduce(block, "ij->j")
        return result
    # Each row of values that are together belongs to one position.
    rows = [reduce(b, "ij->i") for b in _blocks(kernel.reshape(before * size, after), after)]
    return np.concatenate(rows).reshape(before, size).sum(axis=0, dtype=np.float64)


def _sum_of_squares(block: Kernel, out: str) -> Kernel:
    return np.einsum(f"ij,{out}", block, block)


def _sum_of_absolutes(block: Kernel, out: str) -> Kernel:
    return np.einsum(out, np.abs(block))


def _distances(kernel: Kernel, axis: int, positions: npt.NDArray[np.int64]) -> Vector:
    filters = np.moveaxis(kernel, axis, 0).reshape(kernel.shape[axis], -1)
    if not np.array_equal(positions, np.arange(len(filters))[:, None]):
        filters = filters[positions].reshape(len(positions), -1)
    # Distances stay the same, and the products below lose fewer digits.
    filters = filters - filters.mean(axis=0)
    norms = np.einsum("ij,ij->i", filters, filters)
    result = np.empty(len(filters))
    step = max(1, 16 * _BLOCK // len(filters))
    for start in range(0, len(filters), step):
        rows = slice(start, start + step)
        apart = filters[rows] @ filters.T
        apart *= -2
        apart += norms[rows, None]
        apart += norms
        np.maximum(apart, 0, out=apart)
        apart[np.arange(len(apart)), np.arange(start, start + len(apart))] = 0  # from itself
        result[rows] = np.sqrt(apart, out=apart).sum(axis=1, dtype=np.float64)
    return result
