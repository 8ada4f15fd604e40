"""Ridge regression in the dual and in the primal; other images choose the coefficient, or its own.

Minimises |Y - 1 b' - X W|^2 + c |W|^2 over W and b, for X [n, D] whose columns have mean 0. Without
other images, each is predicted by what is fitted to the rest, which follows from the fit to all
(Allen, The Relationship between Variable Selection and Data Augmentation, 1974):

    y_i - (p_i leaving out i) = (y_i - p_i) / (1 - h_i),  h = diag(1 1' / n + X (X'X + c I)^-1 X')

Both forms try coefficients until the cross-entropy of the predictions, each calibrated, gets worse.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.linalg import lapack

from ctl_jax.heads import calibration, linalg_flops
from ctl_jax.heads.solver import one_hot

# Coefficients that are tried, times the mean squared length of a row of X, from the start to both
# sides as long as it gets better.
_STEPS = np.logspace(-4, 1.5, 12)
_START = 5
# How many of them at most.
MOST = 7
# Below so many FLOPs it is computed in float64.
_CHEAP = 2 * 10**10
# Images by which coefficients are compared, at most; but in the dual all are left out in turn.
JUDGES = 500


class Solution(NamedTuple):
    """Of a ridge regression.

    Attributes:
      weights: [n, K], of the images (dual), or [D, K], of the features (primal).
      bias: [K].
      coefficient: c.
      factor, offsets: see `calibration.temperature`, of images that were not fitted.
      entropy: their cross-entropy in nats.
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


class Others(NamedTuple):
    """Images that were not fitted, at most `JUDGES`.

    Attributes:
      products: theirs with those that are, x X' [m, n], for the dual.
      labels: int [m], or 0 and 1 [m, K].
    """

    products: np.ndarray
    labels: np.ndarray


def dual(
    gram: np.ndarray, targets: np.ndarray, labels: np.ndarray, others: Others | None = None
) -> Solution:
    """Ridge regression from products of images: W = X'a has weights a.

    Args:
      gram: X X', float32 or float64 [n, n], of X whose columns have mean 0; overwritten.
      targets: 0 and 1, [n, K].
      labels: what the targets are of, as of `Others`.
      others: choose the coefficient; without them, each image when it is left out.
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
        if others:
            predicted, judges = others.products @ weights + bias, others.labels
        else:
            inverse, _ = _of(gram, "trtri")(factor, lower=1, overwrite_c=1)
            # 1 - h_i is c times the inverse's diagonal, the residual c times the weights.
            diagonal = np.einsum("ij,ij->i", inverse.T, inverse.T)
            diagonal -= 1 / (count * (count * size + coefficient))
            predicted = targets - weights / np.maximum(diagonal, _tiny(gram))[:, None]
            judges = labels
        return _Tried(coefficient, *calibration.temperature(predicted, judges), kept=weights)

    best, tries = _search(attempt, size)
    each = _dual_attempt(count, classes, len(others.labels) if others else None)
    return Solution(best.kept, bias, *best[:4], flops=tries * each)


def dual_flops(count: int, classes: int, judges: int = JUDGES) -> int:
    """The most that `dual` takes, with so many others or without them."""
    return MOST * max(_dual_attempt(count, classes, each) for each in (None, judges))


def _dual_attempt(count: int, classes: int, judges: int | None) -> int:
    solving = linalg_flops.cholesky(count) + 2 * linalg_flops.triangular(count, classes)
    if judges is None:
        return solving + linalg_flops.cholesky(count)
    return solving + linalg_flops.product(judges, count, classes)


def primal(
    gram: np.ndarray,
    cross: np.ndarray,
    bias: np.ndarray,
    rows: np.ndarray,
    labels: np.ndarray,
    left_out_of: int | None,
) -> Solution:
    """Ridge regression from products of features.

    Args:
      gram: X'X, float32 or float64 [D, D].
      cross: X'(Y - 1 b'), [D, K].
      bias: means of the targets, b, [K].
      rows: [m, D]: the images that choose the coefficient, centred as X.
      labels: theirs, as of `Others`.
      left_out_of: n, where those rows are among X's; each is then left out. Else None.
    """
    width, classes = cross.shape
    size = float(np.trace(gram)) / width or 1.0
    columns = np.asfortranarray(rows.T)

    def attempt(coefficient: float) -> _Tried | None:
        matrix = np.array(gram.T, order="F")
        matrix[np.diag_indices(width)] += coefficient
        factor, failed = _of(gram, "potrf")(matrix, lower=1, overwrite_a=1)
        if failed:
            return None
        solved, _ = _of(gram, "potrs")(factor, columns, lower=1)
        predicted = bias + solved.T @ cross
        if left_out_of is not None:
            free = 1 - 1 / left_out_of - np.einsum("ij,ij->i", columns.T, solved.T)
            targets = one_hot(labels, classes, rows.dtype.type)
            predicted = targets - (targets - predicted) / np.maximum(free, _tiny(gram))[:, None]
        return _Tried(coefficient, *calibration.temperature(predicted, labels), kept=factor)

    best, tries = _search(attempt, size)
    weights, _ = _of(gram, "potrs")(best.kept, np.asfortranarray(cross), lower=1)
    total = tries * _primal_attempt(width, classes, len(rows)) + 2 * linalg_flops.triangular(
        width, classes
    )
    return Solution(weights, bias, *best[:4], flops=total)


def primal_flops(width: int, classes: int) -> int:
    """The most that `primal` takes."""
    return MOST * _primal_attempt(width, classes, JUDGES) + 2 * linalg_flops.triangular(
        width, classes
    )


def _primal_attempt(width: int, classes: int, judges: int) -> int:
    solving = linalg_flops.cholesky(width) + 2 * linalg_flops.triangular(width, judges)
    return solving + linalg_flops.product(judges, width, classes)


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
    # In float32 what is nearly singular may need more.
    while not math.isfinite(entropy(best)) and best < len(_STEPS) - 1:
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
