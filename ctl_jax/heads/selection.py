"""Which features a head is to read: those whose weights are large where all are fitted.

Head2Toe: Evci et al., Head2Toe: Utilizing Intermediate Representations for Better Transfer
Learning, 2022 (arXiv:2201.03529). There a group lasso's weights tell how relevant a feature is;
here those of ridge regression do, which has a closed form.
"""

import dataclasses

import numpy as np

from ctl_jax.heads.solver import Problem, Size
from ctl_jax.heads.solvers import ridge

# Shares of the features that are tried.
_SHARES = (0.5, 0.25, 0.125)


def choose(problem: Problem) -> tuple[np.ndarray, int]:
    """The features that ridge regression predicts best with, and the FLOPs of finding them.

    Args:
      problem: with all features; dev chooses among shares of them where there is one.

    Returns:
      Indices, ascending.
    """
    whole = ridge.fit(problem)
    best_entropy = float(whole.notes["cross_entropy"])
    relevance = np.linalg.norm(whole.head["kernel"], axis=1)
    order = np.argsort(-relevance, kind="stable")
    best, flops = np.arange(len(order)), whole.flops
    for share in _SHARES:
        columns = np.sort(order[: _kept(len(order), share)])
        fitted = ridge.fit(restricted(problem, columns))
        flops += fitted.flops
        if (entropy := float(fitted.notes["cross_entropy"])) < best_entropy:
            best, best_entropy = columns, entropy
    return best, flops


def restricted(problem: Problem, columns: np.ndarray) -> Problem:
    """The same problem with some of its features."""
    dev = problem.dev and (problem.dev[0].select(columns), problem.dev[1])
    return dataclasses.replace(problem, features=problem.features.select(columns), dev=dev)


def flops(size: Size) -> int:
    """The most that `choose` takes."""
    widths = [size.features, *(_kept(size.features, share) for share in _SHARES)]
    return sum(ridge.flops(dataclasses.replace(size, features=width)) for width in widths)


def _kept(width: int, share: float) -> int:
    return max(1, int(width * share))
