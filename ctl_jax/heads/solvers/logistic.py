"""Logistic regression by L-BFGS: softmax over classes, or a sigmoid for each.

Minimises the sum over images of cross-entropy + c / 2 |W|^2, as scikit-learn does with C = 1 / c
(of two classes of one label its single weight vector is the difference of ours, and its C is half).
Coefficients are tried from strong to weak, each from the solution before, as long as images that
are not fitted are predicted better: dev, or a fifth of the training images, which are fitted then.

Of fewer images than features, X is replaced by the Cholesky factor L of X X' [n, n], which is the
same problem with W = X' inv(L)' V. FLOPs: 4 n D K an evaluation of the loss and its gradient, or
4 n^2 K; with n (n + 1) D and those of L.
"""

import contextlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import scipy.optimize
import scipy.special
from scipy.linalg import LinAlgError, cholesky, solve_triangular

from ctl_jax.heads import calibration, least_squares, linalg_flops
from ctl_jax.heads.least_squares import JUDGES
from ctl_jax.heads.solver import Fitted, Problem, Size, Solver

# Coefficients that are tried, times the mean squared length of a row of X.
_STEPS = (1.0, 0.1, 0.01, 0.001)
# Evaluations of the loss for each, at most.
_EVALUATIONS = 40
# The gradient's largest number where it is solved, of the mean loss.
_TOLERANCE = 1e-4
# Of so many training images one judges, where there is no dev.
_FIFTH = 5
# A fit may be too sure of itself: below 1 its logits shrink.
_LEAST = 0.05
# Added to the diagonal of X X', times its mean, since X's columns have mean 0 and its rank is below
# n: the first of these with which rounding leaves it positive definite.
_JITTERS = (1e-6, 1e-5, 1e-4, 1e-3)
# Corrections that L-BFGS keeps: fewer where each is large.
_MEMORY, _LARGE = 10, 10**7


class Solution(NamedTuple):
    """Of a logistic regression.

    Attributes:
      kernel: float64 [D, K].
      bias: float64 [K].
      evaluations: of the loss and its gradient that it took.
    """

    kernel: np.ndarray
    bias: np.ndarray
    evaluations: int


# Blocks of rows that can be read again and again.
Blocks = Callable[[], Iterable[np.ndarray]]


def minimise(
    blocks: Blocks,
    labels: np.ndarray,
    start: Solution,
    coefficient: float,
    *,
    tolerance: float = _TOLERANCE,
    evaluations: int = _EVALUATIONS,
) -> Solution:
    """The head of least loss.

    Args:
      blocks: rows of X in order, [any, D] at a time, of the type to compute in.
      labels: int [n], or 0 and 1 [n, K].
      start: where to begin.
      coefficient: c.
      tolerance: the largest number of the gradient of the mean loss where it ends.
      evaluations: after so many it ends, too, with the best that was seen.
    """
    shape, count = start.kernel.shape, len(labels)
    size = shape[0] * shape[1]
    best, best_loss, made = np.append(start.kernel, start.bias), np.inf, 0

    def loss(point: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal best, best_loss, made
        if made == evaluations:
            raise StopIteration
        made += 1
        kernel, bias = point[:size].reshape(shape), point[size:]
        total, of_kernel, of_bias = _cross_entropy(blocks(), labels, kernel, bias)
        total += coefficient / 2 * float(np.vdot(kernel, kernel))
        gradient = np.append(of_kernel + coefficient * kernel, of_bias)
        if total < best_loss:
            best, best_loss = point.copy(), total
        return total / count, gradient / count

    options = {
        "maxcor": _MEMORY if size <= _LARGE else 3,
        "gtol": tolerance,
        "ftol": 0.0,
        "maxiter": evaluations,
        "maxfun": evaluations + 1,
    }
    with contextlib.suppress(StopIteration):
        scipy.optimize.minimize(loss, best, jac=True, method="L-BFGS-B", options=options)
    return Solution(best[:size].reshape(shape), best[size:], made)


def _cross_entropy(
    blocks: Iterable[np.ndarray], labels: np.ndarray, kernel: np.ndarray, bias: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """Sum over images, and its gradients."""
    total, start = 0.0, 0
    of_kernel, of_bias = np.zeros_like(kernel), np.zeros_like(bias)
    for block in blocks:
        mine = labels[start : start + len(block)]
        start += len(block)
        logits = block @ kernel.astype(block.dtype) + bias.astype(block.dtype)
        if labels.ndim == 2:
            targets = mine.astype(block.dtype)
            total += float(np.sum(np.logaddexp(0, logits) - targets * logits, dtype=np.float64))
            errors = scipy.special.expit(logits) - targets
        else:
            logs = logits - scipy.special.logsumexp(logits, axis=1, keepdims=True)
            rows = np.arange(len(block))
            total -= float(np.sum(logs[rows, mine], dtype=np.float64))
            errors = np.exp(logs)
            errors[rows, mine] -= 1
        of_kernel += block.T @ errors
        of_bias += errors.sum(0)
    return total, of_kernel, of_bias


class _Data(NamedTuple):
    """What is fitted, and what judges.

    Attributes:
      blocks: of X, or of L.
      columns: of those.
      size: mean squared length of a row.
      fitted: which rows are fitted while coefficients are tried, bool [n].
      judges: rows [m, columns] of images that are not.
      judge_labels: theirs.
      back: from a kernel on those columns to one on X's.
      flops: that all this takes.
    """

    blocks: Blocks
    columns: int
    size: float
    fitted: np.ndarray
    judges: np.ndarray
    judge_labels: np.ndarray
    back: Callable[[np.ndarray], np.ndarray]
    flops: int


class _Chosen(NamedTuple):
    """A coefficient, what was fitted with it and how it is calibrated, see `calibration`."""

    coefficient: float
    solution: Solution
    factor: float
    offsets: np.ndarray
    entropy: float


def fit(problem: Problem) -> Fitted:
    """A head on standardised features; see `heads.fit`."""
    data = _data(problem)
    chosen, flops = _choose(data, problem.labels, problem.num_classes)
    solution = chosen.solution
    if not data.fitted.all():
        solution = minimise(data.blocks, problem.labels, solution, chosen.coefficient)
        each = _evaluation(len(data.fitted), data.columns, problem.num_classes)
        flops += solution.evaluations * each
    head = {
        "kernel": chosen.factor * data.back(solution.kernel),
        "bias": chosen.factor * solution.bias + chosen.offsets,
    }
    notes = {
        "coefficient": chosen.coefficient,
        "temperature": chosen.factor,
        "cross_entropy": chosen.entropy,
    }
    return Fitted(head, notes, data.flops + flops)


def _choose(data: _Data, labels: np.ndarray, classes: int) -> tuple[_Chosen, int]:
    """The coefficient, and the FLOPs of trying some."""
    solution = Solution(np.zeros((data.columns, classes)), np.zeros(classes), 0)
    blocks, mine = _some(data.blocks, data.fitted), labels[data.fitted]
    each = _evaluation(len(mine), data.columns, classes)
    if not len(data.judges):
        coefficient = _STEPS[1] * data.size
        solution = minimise(blocks, mine, solution, coefficient)
        chosen = _Chosen(coefficient, solution, 1.0, np.zeros(classes), 0.0)
        return chosen, each * solution.evaluations
    best, flops = None, 0
    for step in _STEPS:
        solution = minimise(blocks, mine, solution, step * data.size)
        scores = data.judges @ solution.kernel + solution.bias
        calibrated = calibration.temperature(scores, data.judge_labels, least=_LEAST)
        flops += each * solution.evaluations
        flops += linalg_flops.product(len(data.judges), data.columns, classes)
        if best is not None and calibrated[-1] >= best.entropy:
            break
        best = _Chosen(step * data.size, solution, *calibrated)
    assert best is not None
    return best, flops


def _data(problem: Problem) -> _Data:
    count, width = problem.features.shape
    fitted = np.ones(count, bool)
    if problem.dev:
        features, labels = problem.dev
        drawn = problem.draw(len(labels), JUDGES)
    else:
        features, labels = problem.features, problem.labels
        drawn = problem.draw(count, min(count // _FIFTH, JUDGES))
        fitted[drawn] = False
    dtype = least_squares.precision(_most(count, width, problem.num_classes))
    judges = features.rows(drawn, dtype)
    if count > width:
        return _Data(
            problem.features.readings(dtype),
            width,
            float(np.sum(np.square(judges)) / max(len(judges), 1)),
            fitted,
            judges,
            labels[drawn],
            lambda kernel: kernel,
            0,
        )
    rows = problem.features.matrix(dtype)
    gram = rows @ rows.T
    size = float(np.trace(gram)) / count or 1.0
    factor, tries = _factor(gram, size)
    turned = solve_triangular(factor, rows @ judges.T, lower=True, check_finite=False).T
    return _Data(
        lambda: [factor],
        count,
        size,
        fitted,
        turned,
        labels[drawn],
        lambda kernel: rows.T @ solve_triangular(factor, kernel, lower=True, trans=1),
        _reduction(count, width, problem.num_classes, len(drawn), tries),
    )


def _factor(gram: np.ndarray, size: float) -> tuple[np.ndarray, int]:
    """The Cholesky factor of X X', and how many were tried."""
    for tries, jitter in enumerate(_JITTERS, 1):
        matrix = gram.copy()
        matrix[np.diag_indices(len(matrix))] += jitter * size
        with contextlib.suppress(LinAlgError):
            return cholesky(matrix, lower=True, overwrite_a=True, check_finite=False), tries
    raise LinAlgError("X X' has negative eigenvalues beyond rounding")


def _some(blocks: Blocks, chosen: np.ndarray) -> Blocks:
    """Some of the rows."""
    if chosen.all():
        return blocks

    def part() -> Iterable[np.ndarray]:
        start = 0
        for block in blocks():
            yield block[chosen[start : start + len(block)]]
            start += len(block)

    return part


def flops(size: Size) -> int:
    """The most that `fit` takes: more images than features take no less than as many."""
    count, width, classes = size.examples, size.features, size.classes
    return max(_most(min(count, width), width, classes), _most(count, width, classes))


def _most(count: int, width: int, classes: int) -> int:
    columns = min(count, width)
    evaluations = (len(_STEPS) + 1) * _EVALUATIONS * _evaluation(count, columns, classes)
    judging = len(_STEPS) * linalg_flops.product(JUDGES, columns, classes)
    reduction = _reduction(count, width, classes, JUDGES, len(_JITTERS)) if count <= width else 0
    return evaluations + judging + reduction


def _reduction(count: int, width: int, classes: int, judges: int, tries: int) -> int:
    products = linalg_flops.gram(width, count) + linalg_flops.product(judges, width, count)
    products += linalg_flops.product(width, count, classes)
    solving = linalg_flops.triangular(count, judges) + linalg_flops.triangular(count, classes)
    return products + tries * linalg_flops.cholesky(count) + solving


def _evaluation(count: int, columns: int, classes: int) -> int:
    return 2 * linalg_flops.product(count, columns, classes)


SOLVER = Solver(fit, flops)
