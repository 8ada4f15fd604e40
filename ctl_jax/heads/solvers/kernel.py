"""Kernel ridge regression with radial basis functions, exp(-|x - z|^2 / w), on features.

Widths w are multiples of the median of |x - z|^2 over the images that are landmarks z: all of up to
2000, which is exact; of more a sample (Nystroem: Williams & Seeger, Using the Nystrom Method to
Speed Up Kernel Machines, 2000), on which the width is chosen, and all images fit the weights.

Memory: [m, D] and some [m, m] of m landmarks. FLOPs: m (m + 1) D for products of landmarks, and
those of `least_squares.dual` for each width; of more images than landmarks also 2 n m D for
distances, n m (m + 1) for products of basis functions, and those of `least_squares.primal`.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from ctl_jax.heads import least_squares, linalg_flops
from ctl_jax.heads.least_squares import JUDGES, Others, Solution
from ctl_jax.heads.shards import Features
from ctl_jax.heads.solver import Fitted, Problem, Size, Solver, one_hot

# Landmarks at most.
LANDMARKS = 2000
# Widths that are tried, as multiples of the median.
_WIDTHS = (1.0, 2.5, 6.0)
# Added to the diagonal of the landmarks' kernel matrix, whose diagonal is 1.
_JITTER = 1e-7


class _Basis(NamedTuple):
    """Radial basis functions.

    Attributes:
      landmarks: [m, D], standardised.
      reads: [D], 1 of features that vary over the landmarks, and 0 of others.
      rate: 1 / w.
    """

    landmarks: np.ndarray
    reads: np.ndarray
    rate: float

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Values [b, m] of rows [b, D]."""
        return np.exp(-self.rate * _squares(rows * self.reads, self.landmarks * self.reads))


def fit(problem: Problem) -> Fitted:
    """A head of radial basis functions of standardised features; see `heads.fit`."""
    count, width = problem.features.shape
    classes = problem.num_classes
    chosen = problem.draw(count, LANDMARKS)
    dtype = least_squares.precision(_exact_flops(len(chosen), width, classes))
    landmarks = problem.features.rows(chosen, dtype)
    basis, offsets, solution, flops = _exact(problem, landmarks, chosen)
    if count > len(chosen):
        offsets, solution = _nystroem(problem, basis)
        flops += _products(count, width, classes) + solution.flops
    kernel = solution.factor * solution.weights
    bias = solution.factor * solution.bias + solution.offsets - offsets @ kernel
    notes = {
        "coefficient": solution.coefficient,
        "width": 1 / basis.rate,
        "temperature": solution.factor,
        "cross_entropy": solution.entropy,
    }
    hidden = {"landmarks": landmarks, "scale": np.sqrt(basis.rate) * basis.reads}
    return Fitted({"kernel": kernel, "bias": bias, "hidden": hidden}, notes, flops)


def _exact(
    problem: Problem, landmarks: np.ndarray, chosen: np.ndarray
) -> tuple[_Basis, np.ndarray, Solution, int]:
    """The best width for the landmarks alone, the functions' means, what is fitted, its FLOPs."""
    count, width = landmarks.shape
    dtype = landmarks.dtype.type
    reads = np.any(landmarks != landmarks[0], axis=0).astype(dtype)
    squares = _squares(landmarks * reads, landmarks * reads)
    median = float(np.median(squares[np.triu_indices(count, 1)])) if count > 1 else 0.0
    labels = problem.labels[chosen]
    targets = one_hot(labels, problem.num_classes, dtype)
    flops = linalg_flops.gram(width, count)
    if problem.dev:
        judged, judge_labels = _judges(problem, dtype)
        apart = _squares(judged * reads, landmarks * reads)
        flops += linalg_flops.product(len(judged), width, count)
    found = []
    for multiple in _WIDTHS:
        rate = 1 / (multiple * (median or 1.0))
        values = np.exp(-rate * squares)
        means = values.mean(0)
        others = None
        if problem.dev:
            # Weights add up to 0, so what is the same for all landmarks has no part in it.
            others = Others(np.exp(-rate * apart) - means, judge_labels)
        values += means.mean() - means - means[:, None]
        solution = least_squares.dual(values, targets, labels, others)
        flops += solution.flops
        found.append((_Basis(landmarks, reads, rate), means, solution))
    basis, means, solution = min(found, key=lambda each: each[-1].entropy)
    return basis, means, solution, flops


def _nystroem(problem: Problem, basis: _Basis) -> tuple[np.ndarray, Solution]:
    """The functions' means over all images, and weights of functions that all images fit."""
    count, _ = problem.features.shape
    size, classes = len(basis.landmarks), problem.num_classes
    dtype = basis.landmarks.dtype.type
    gram, cross = np.zeros((size, size)), np.zeros((size, classes))
    means, bias, start = np.zeros(size), np.zeros(classes), 0
    for block in problem.features.blocks(dtype):
        # Sums of numbers near 1, of which what is around their means is left.
        values = basis(block).astype(np.float64)
        targets = one_hot(problem.labels[start : start + len(block)], classes, np.float64)
        gram += values.T @ values
        cross += values.T @ targets
        means += values.sum(0) / count
        bias += targets.sum(0) / count
        start += len(block)
    gram -= count * np.outer(means, means)
    cross -= count * np.outer(means, bias)
    # With L L' = k(z, z), ridge regression on (k(x, z) - means) inv(L)' penalises as the kernel's.
    inside = basis(basis.landmarks).astype(np.float64)
    # What values were rounded by grows by the inverse of the least eigenvalue.
    inside[np.diag_indices(size)] += max(_JITTER, float(np.sqrt(np.finfo(dtype).eps)))
    factor = cholesky(inside, lower=True, overwrite_a=True, check_finite=False)

    def turned(array: np.ndarray) -> np.ndarray:
        return solve_triangular(factor, array, lower=True, check_finite=False)

    rows, labels = _judges(problem, dtype)
    solution = least_squares.primal(
        turned(turned(gram).T).astype(dtype),
        turned(cross).astype(dtype),
        bias.astype(dtype),
        turned((basis(rows) - means).T).T.astype(dtype),
        labels,
        left_out_of=None if problem.dev else count,
    )
    weights = solve_triangular(factor, solution.weights, lower=True, trans=1, check_finite=False)
    return means, solution._replace(weights=weights)


def _judges(problem: Problem, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """Rows and labels of images of dev, or of training images where there is none."""
    features: Features
    features, labels = problem.dev or (problem.features, problem.labels)
    chosen = problem.draw(len(labels), JUDGES)
    return features.rows(chosen, dtype), labels[chosen]


def _squares(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Squared distances, [len(rows), len(others)]."""
    squares = np.einsum("ij,ij->i", rows, rows)[:, None] + np.einsum("ij,ij->i", others, others)
    return np.maximum(squares - 2 * (rows @ others.T), 0)


def flops(size: Size) -> int:
    """The most that `fit` takes."""
    count, width, classes = size.examples, size.features, size.classes
    exact = _exact_flops(min(count, LANDMARKS), width, classes)
    if count <= LANDMARKS:
        return exact
    products = _products(count, width, classes)
    return exact + products + least_squares.primal_flops(LANDMARKS, classes)


def _exact_flops(count: int, width: int, classes: int) -> int:
    products = linalg_flops.gram(width, count) + linalg_flops.product(JUDGES, width, count)
    return products + len(_WIDTHS) * least_squares.dual_flops(count, classes)


def _products(count: int, width: int, classes: int) -> int:
    """Of what `_nystroem` gives to `least_squares.primal`, and of what it does with the result."""
    size = LANDMARKS
    distances = linalg_flops.product(count + JUDGES, width, size) + linalg_flops.gram(width, size)
    sums = linalg_flops.gram(count, size) + linalg_flops.product(count, size, classes)
    turning = linalg_flops.triangular(size, 2 * size + 2 * classes + JUDGES)
    return distances + sums + linalg_flops.cholesky(size) + turning


def hidden(size: Size) -> dict[str, tuple[int, ...]]:
    """Shapes of the basis functions' arrays."""
    count = min(size.examples, LANDMARKS)
    return {"landmarks": (count, size.features), "scale": (size.features,)}


SOLVER = Solver(fit, flops, hidden)
