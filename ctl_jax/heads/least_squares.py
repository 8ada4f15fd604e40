"""Ridge regression in the dual and in the primal, its coefficient chosen by leaving out one image.

Minimises |Y - 1 b' - X W|^2 + c |W|^2 over W and b, for X [n, D] whose columns have mean 0. The
prediction of image i by what is fitted to all others follows from the fit to all (Allen, The
Relationship between Variable Selection and Data Augmentation, 1974):

    y_i - p_i / leaving out i = (y_i - p_i) / (1 - h_i),  h = diag(1 1' / n + X (X'X + c I)^-1 X')
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.linalg import lapack

from ctl_jax.heads import calibration, costs

# Coefficients that are tried, times the mean squared length of a row of X, from the start to both
# sides as long as it gets better.
_STEPS = np.logspace(-4, 1.5, 12)
_START = 5
# How many of them at most.
MOST = 7
# Below so many FLOPs it is computed in float64.
_CHEAP = 2 * 10**10
# In the primal so many images at most are left out, one at a time.
LEFT_OUT = 1000


class Solution(NamedTuple):
    """Of a ridge regression.

    Attributes:
      weights: [n, K], of the images (dual), or [D, K], of the features (primal).
      bias: [K].
      coefficient: c.
      factor, offsets: see `calibration.temperature`, of predictions by leaving out.
      entropy: cross-entropy in nats of images that were left out.
      flops: that it took.
    """

    weights: np.ndarray
    bias: np.ndarray
    coefficient: float
    factor: float
    offsets: np.ndarray
    entropy: float
    flops: int


def precision(flops: int) -> type:
    """The type to compute in: float64 where that is cheap."""
    return np.float64 if flops <= _CHEAP else np.float32


class _Tried(NamedTuple):
    coefficient: float
    factor: float
    offsets: np.ndarray
    entropy: float
    kept: np.ndarray


def dual(gram: np.ndarray, targets: np.ndarray, labels: np.ndarray) -> Solution:
    """Ridge regression from products of images: X'a has weights a.

    Args:
      gram: X X', float32 or float64 [n, n], of X whose columns have mean 0; overwritten.
      targets: 0 and 1, [n, K].
      labels: what the targets are of, for `calibration.temperature`.
    """
    count, classes = targets.shape
    bias = targets.mean(0)
    centred = np.asfortranarray(targets - bias)
    size = float(np.trace(gram)) / count or 1.0
    # X's columns and the targets have no part along the ones. Something large there leaves the
    # weights as they are, and the inverse's diagonal little of the intercept's share to subtract.
    gram += size

    def attempt(coefficient: float) -> _Tried | None:
        matrix = np.array(gram.T, order="F")
        matrix[np.diag_indices(count)] += coefficient
        factor, failed = _of(gram, "potrf")(matrix, lower=1, overwrite_a=1)
        if failed:
            return None
        weights, _ = _of(gram, "potrs")(factor, centred, lower=1)
        inverse, _ = _of(gram, "trtri")(factor, lower=1, overwrite_c=1)
        # 1 - h_i is c times the inverse's diagonal, the residual c times the weights.
        diagonal = np.einsum("ij,ij->i", inverse.T, inverse.T)
        diagonal -= 1 / (count * (count * size + coefficient))
        left_out = targets - weights / np.maximum(diagonal, _tiny(gram))[:, None]
        return _Tried(coefficient, *calibration.temperature(left_out, labels), kept=weights)

    best, tries = _search(attempt, size)
    each = 2 * costs.cholesky(count) + 2 * costs.triangular(count, classes)
    return Solution(best.kept, bias, *best[:4], flops=tries * each)


def dual_flops(count: int, classes: int) -> int:
    """The most that `dual` takes."""
    return MOST * (2 * costs.cholesky(count) + 2 * costs.triangular(count, classes))


def primal(
    gram: np.ndarray,
    cross: np.ndarray,
    bias: np.ndarray,
    rows: np.ndarray,
    targets: np.ndarray,
    labels: np.ndarray,
    count: int,
) -> Solution:
    """Ridge regression from products of features.

    Args:
      gram: X'X, float32 or float64 [D, D].
      cross: X'(Y - 1 b'), [D, K].
      bias: means of the targets, b, [K].
      rows: of X, [m, D]: the images that are left out, one at a time.
      targets: theirs, [m, K].
      labels: theirs, for `calibration.temperature`.
      count: n.
    """
    size, (width, classes) = float(np.trace(gram)) / count or 1.0, cross.shape
    columns = np.asfortranarray(rows.T)

    def attempt(coefficient: float) -> _Tried | None:
        matrix = np.array(gram.T, order="F")
        matrix[np.diag_indices(width)] += coefficient
        factor, failed = _of(gram, "potrf")(matrix, lower=1, overwrite_a=1)
        if failed:
            return None
        solved, _ = _of(gram, "potrs")(factor, columns, lower=1)
        free = 1 - 1 / count - np.einsum("ij,ij->i", columns.T, solved.T)
        residual = targets - bias - solved.T @ cross
        left_out = targets - residual / np.maximum(free, _tiny(gram))[:, None]
        return _Tried(coefficient, *calibration.temperature(left_out, labels), kept=factor)

    best, tries = _search(attempt, size)
    weights, _ = _of(gram, "potrs")(best.kept, np.asfortranarray(cross), lower=1)
    each = _attempt_flops(width, classes, len(rows))
    total = tries * each + 2 * costs.triangular(width, classes)
    return Solution(weights, bias, *best[:4], flops=total)


def primal_flops(count: int, width: int, classes: int) -> int:
    """The most that `primal` takes."""
    each = _attempt_flops(width, classes, min(count, LEFT_OUT))
    return MOST * each + 2 * costs.triangular(width, classes)


def _attempt_flops(width: int, classes: int, rows: int) -> int:
    solving = costs.cholesky(width) + 2 * costs.triangular(width, rows)
    return solving + costs.product(rows, width, classes)


def _search(attempt: Callable[[float], _Tried | None], size: float) -> tuple[_Tried, int]:
    """The best coefficient, from one to its neighbours; and how many were tried."""
    tried: dict[int, _Tried | None] = {}

    def entropy(step: int) -> float:
        if not 0 <= step < len(_STEPS) or (step not in tried and len(tried) == MOST):
            return math.inf
        if step not in tried:
            tried[step] = attempt(float(_STEPS[step] * size))
        found = tried[step]
        return math.inf if found is None else found.entropy

    best = _START
    while not math.isfinite(entropy(best)):
        best += 1
    for direction in (1, -1):
        while entropy(best + direction) < entropy(best):
            best += direction
    found = tried[best]
    assert found is not None
    return found, len(tried)


def _of(array: np.ndarray, name: str) -> Callable[..., tuple[np.ndarray, int]]:
    """LAPACK's routine for an array's type."""
    return getattr(lapack, ("d" if array.dtype == np.float64 else "s") + name)


def _tiny(array: np.ndarray) -> float:
    """Below this, a number that should be above 0 is rounding."""
    return float(np.finfo(array.dtype).eps)
