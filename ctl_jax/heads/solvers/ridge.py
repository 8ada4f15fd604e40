"""Ridge regression to 0 and 1 on features; its coefficient is chosen by dev, or by leaving one out.

Memory: [D, D] where there are more images than features, which are then read once, in blocks;
[n, D] and [n, n] otherwise. FLOPs: n D (D + 1) for products of features and 2 n D K with the
labels (n (n + 1) D and 2 n D K, and with up to 500 images of dev), and those of `least_squares`
for each coefficient.
"""

import numpy as np

from ctl_jax.heads import least_squares, linalg_flops
from ctl_jax.heads.least_squares import JUDGES, Others, Solution
from ctl_jax.heads.solver import Fitted, Problem, Size, Solver, one_hot


def fit(problem: Problem) -> Fitted:
    """A head on standardised features; see `heads.fit`."""
    count, width = problem.features.shape
    kernel, solution, flops = _dual(problem) if count <= width else _primal(problem)
    notes = {
        "coefficient": solution.coefficient,
        "temperature": solution.factor,
        "cross_entropy": solution.entropy,
    }
    head = {
        "kernel": solution.factor * kernel,
        "bias": solution.factor * solution.bias + solution.offsets,
    }
    return Fitted(head, notes, flops + solution.flops)


def _dual(problem: Problem) -> tuple[np.ndarray, Solution, int]:
    count, width = problem.features.shape
    dtype = least_squares.precision(_dual_flops(count, width, problem.num_classes))
    rows = problem.features.matrix(dtype)
    others, judges = None, 0
    if problem.dev:
        features, labels = problem.dev
        chosen = problem.draw(len(labels), JUDGES)
        others, judges = Others(features.rows(chosen, dtype) @ rows.T, labels[chosen]), len(chosen)
    solution = least_squares.dual(rows @ rows.T, problem.targets(dtype), problem.labels, others)
    products = _dual_products(count, width, problem.num_classes, judges)
    return rows.T @ solution.weights, solution, products


def _primal(problem: Problem) -> tuple[np.ndarray, Solution, int]:
    count, width = problem.features.shape
    classes = problem.num_classes
    dtype = least_squares.precision(_primal_flops(count, width, classes))
    # Sums over many blocks keep their digits in float64.
    gram, cross, total = np.zeros((width, width)), np.zeros((width, classes)), np.zeros(classes)
    start = 0
    for block in problem.features.blocks(dtype):
        targets = one_hot(problem.labels[start : start + len(block)], classes, dtype)
        gram += block.T @ block
        cross += block.T @ targets
        total += targets.sum(0)
        start += len(block)
    features, labels = problem.dev or (problem.features, problem.labels)
    chosen = problem.draw(len(labels), JUDGES)
    # Columns have mean 0, so the targets' means have no part in the products.
    solution = least_squares.primal(
        gram.astype(dtype),
        cross.astype(dtype),
        (total / count).astype(dtype),
        features.rows(chosen, dtype),
        labels[chosen],
        left_out_of=None if problem.dev else count,
    )
    return solution.weights, solution, _primal_products(count, width, classes)


def flops(size: Size, judges: int = JUDGES) -> int:
    """The most that `fit` takes: more images than features take no less than as many.

    Args:
      size: of the problem.
      judges: images of dev at most.
    """
    count, width, classes = size.examples, size.features, size.classes
    if count <= width:
        return _dual_flops(count, width, classes, judges)
    primal = _primal_flops(count, width, classes)
    return max(_dual_flops(width, width, classes, judges), primal)


def _dual_flops(count: int, width: int, classes: int, judges: int = JUDGES) -> int:
    products = _dual_products(count, width, classes, judges)
    return products + least_squares.dual_flops(count, classes, judges)


def _dual_products(count: int, width: int, classes: int, judges: int) -> int:
    with_each_other = linalg_flops.gram(width, count) + linalg_flops.product(judges, width, count)
    return with_each_other + linalg_flops.product(width, count, classes)


def _primal_flops(count: int, width: int, classes: int) -> int:
    products = _primal_products(count, width, classes)
    return products + least_squares.primal_flops(width, classes)


def _primal_products(count: int, width: int, classes: int) -> int:
    return linalg_flops.gram(count, width) + linalg_flops.product(count, width, classes)


SOLVER = Solver(fit, flops)
