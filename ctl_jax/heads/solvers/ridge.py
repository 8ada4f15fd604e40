"""Ridge regression to 0 and 1 on features, its coefficient chosen by leaving out one image.

Memory: [D, D] where there are more images than features, which are then read twice, in blocks;
[n, D] and [n, n] otherwise. FLOPs: n D (D + 1) for products of features and 2 n D K with the
labels (n (n + 1) D and 2 n D K), and those of `least_squares` for each coefficient.
"""

import numpy as np

from ctl_jax.heads import costs, least_squares
from ctl_jax.heads.solver import Fitted, Problem, Size, Solver, one_hot


def fit(problem: Problem) -> Fitted:
    """A head on standardised features; see `heads.fit`."""
    count, width = problem.features.shape
    solved = _dual(problem) if count <= width else _primal(problem)
    kernel, solution, flops = solved
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


def _dual(problem: Problem) -> tuple[np.ndarray, least_squares.Solution, int]:
    count, width = problem.features.shape
    dtype = least_squares.precision(_flops_dual(count, width, problem.num_classes))
    rows = problem.features.matrix(dtype)
    solution = least_squares.dual(rows @ rows.T, problem.targets(dtype), problem.labels)
    products = costs.gram(width, count) + costs.product(width, count, problem.num_classes)
    return rows.T @ solution.weights, solution, products


def _primal(problem: Problem) -> tuple[np.ndarray, least_squares.Solution, int]:
    count, width = problem.features.shape
    classes = problem.num_classes
    dtype = least_squares.precision(_flops_primal(count, width, classes))
    # Sums over many blocks keep their digits in float64.
    gram, cross, total = np.zeros((width, width)), np.zeros((width, classes)), np.zeros(classes)
    start = 0
    for block in problem.features.blocks(dtype):
        targets = one_hot(problem.labels[start : start + len(block)], classes, dtype)
        gram += block.T @ block
        cross += block.T @ targets
        total += targets.sum(0)
        start += len(block)
    # Columns have mean 0, so the targets' means have no part in the products.
    left_out = np.random.default_rng(problem.seed).permutation(count)[: least_squares.LEFT_OUT]
    left_out.sort()
    labels = problem.labels[left_out]
    solution = least_squares.primal(
        gram.astype(dtype),
        cross.astype(dtype),
        (total / count).astype(dtype),
        problem.features.rows(left_out, dtype),
        one_hot(labels, classes, dtype),
        labels,
        count,
    )
    products = costs.gram(count, width) + costs.product(count, width, classes)
    return solution.weights, solution, products


def _flops_dual(count: int, width: int, classes: int) -> int:
    products = costs.gram(width, count) + costs.product(width, count, classes)
    return products + least_squares.dual_flops(count, classes)


def _flops_primal(count: int, width: int, classes: int) -> int:
    products = costs.gram(count, width) + costs.product(count, width, classes)
    return products + least_squares.primal_flops(count, width, classes)


def flops(size: Size) -> int:
    """The most that `fit` takes: more images than features take no less than as many."""
    count, width, classes = size.examples, size.features, size.classes
    if count <= width:
        return _flops_dual(count, width, classes)
    return max(_flops_dual(width, width, classes), _flops_primal(count, width, classes))


SOLVER = Solver(fit, flops)
