"""A perceptron with one hidden layer on features, trained from where ridge regression ends.

Of 512 hidden units pairs, relu(a) and relu(-a), first compute what ridge regression does, and the
others are drawn with an output of zero. All are trained by Adam with dropout, and other images
choose after how many epochs, if any, it is best: dev, or a fifth of the training images, which is
then not fitted. Features are first projected on 256 directions in which they vary most (Halko,
Martinsson & Tropp, Finding Structure with Randomness, 2011) and on those that ridge regression
reads, r in all.

Memory: [n, r]. FLOPs, beside ridge regression's: 4 n D 256 to find the directions and 2 n D r to
project, 6 n H (r + K) an epoch, and 2 H (r + K) for each image that chooses.
"""

import dataclasses
import math
from collections.abc import Generator
from typing import NamedTuple

import numpy as np
import scipy.special

from ctl_jax.heads import calibration, linalg_flops
from ctl_jax.heads.least_squares import JUDGES
from ctl_jax.heads.solver import Fitted, Problem, Size, Solver
from ctl_jax.heads.solvers import ridge

HIDDEN = 512
_DIRECTIONS = 256
_EPOCHS = 20
# After so many epochs others judge.
_EVERY = 2
# Images a step, and steps an epoch at most.
_BATCH, _STEPS = 32, 64
_RATE, _DECAY, _DROPOUT = 1e-3, 1e-2, 0.5
# Adam's, with its authors' values (Kingma & Ba, 2015).
_FIRST, _SECOND, _EPSILON = 0.9, 0.999, 1e-8
# A fit may be too sure of itself: below 1 its logits shrink.
_LEAST = 0.05

# "hidden" [r, H], "hidden_bias" [H], "kernel" [H, K] and "bias" [K].
Params = dict[str, np.ndarray]


class _Best(NamedTuple):
    """Parameters after an epoch, and how they are calibrated (see `calibration.temperature`)."""

    params: Params
    epoch: int
    factor: float
    offsets: np.ndarray
    entropy: float


def fit(problem: Problem) -> Fitted:
    """A head with a hidden layer on standardised features; see `heads.fit`."""
    problem = problem if problem.dev else _with_dev(problem)
    (count, width), classes = problem.features.shape, problem.num_classes
    begin = ridge.fit(problem)
    reads, writes = _factors(begin.head["kernel"], problem.seed)
    directions = _directions(problem, reads)
    inside = directions.shape[1]
    rows = np.concatenate([block @ directions for block in problem.features.blocks()])
    size = math.sqrt(inside * float(np.mean(np.square(rows)))) or 1.0
    params = _start(directions.T @ reads, writes, begin.head["bias"], size, problem.seed)
    judges = 0
    if problem.dev:
        chosen = problem.draw(len(problem.dev[1]), JUDGES)
        judges = len(chosen)
        judged = problem.dev[0].rows(chosen) @ directions, problem.dev[1][chosen]
        best = _train(params, rows, problem.targets(), judged, size, problem.seed)
    else:
        best = _Best(params, 0, 1.0, np.zeros(classes), 0.0)
    head = {
        "kernel": best.factor * best.params["kernel"],
        "bias": best.factor * best.params["bias"] + best.offsets,
        "hidden": {
            "kernel": directions @ best.params["hidden"],
            "bias": best.params["hidden_bias"],
        },
    }
    notes = {
        "coefficient": begin.notes["coefficient"],
        "epochs": best.epoch,
        "temperature": best.factor,
        "cross_entropy": best.entropy,
    }
    return Fitted(head, notes, begin.flops + _own_flops(count, judges, width, inside, classes))


def _with_dev(problem: Problem) -> Problem:
    """The same problem with a fifth of its images as dev; without dev where they are few."""
    count = len(problem.labels)
    chosen = problem.draw(count, min(count // 5, JUDGES))
    if not len(chosen):
        return problem
    rest = np.setdiff1d(np.arange(count), chosen)
    return dataclasses.replace(
        problem,
        # Their mean is not quite 0, which training makes good.
        features=problem.features.only(rest),
        labels=problem.labels[rest],
        dev=(problem.features.only(chosen), problem.labels[chosen]),
    )


def _factors(kernel: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """[D, p] and [p, K] whose product is the kernel, or nearly where its rank is above p."""
    most = HIDDEN // 2
    if min(kernel.shape) > most:
        drawn = np.random.default_rng(seed).standard_normal((kernel.shape[1], most))
        basis, _ = np.linalg.qr(kernel @ drawn)
        left, spread, right = np.linalg.svd(basis.T @ kernel, full_matrices=False)
        left = basis @ left
    else:
        left, spread, right = np.linalg.svd(kernel, full_matrices=False)
    return left * np.sqrt(spread), np.sqrt(spread)[:, None] * right


def _start(
    reads: np.ndarray, writes: np.ndarray, bias: np.ndarray, size: float, seed: int
) -> Params:
    """Parameters of pairs of units that compute what `reads` and `writes` do, and of drawn ones."""
    inside, pairs = reads.shape
    drawn = np.random.default_rng(seed).standard_normal((inside, HIDDEN - 2 * pairs))
    params = {
        "hidden": np.hstack([reads, -reads, drawn / size]),
        "hidden_bias": np.zeros(HIDDEN),
        "kernel": np.vstack([writes, -writes, np.zeros((HIDDEN - 2 * pairs, len(bias)))]),
        "bias": bias,
    }
    return {name: array.astype(np.float32) for name, array in params.items()}


def _directions(problem: Problem, wanted: np.ndarray) -> np.ndarray:
    """Orthonormal columns [D, r]: what `wanted` spans, and that in which the rows vary most."""
    count, width = problem.features.shape
    drawn = np.random.default_rng(problem.seed).standard_normal(
        (width, min(count, _DIRECTIONS)), np.float32
    )
    found = np.zeros_like(drawn)
    for block in problem.features.blocks():
        found += block.T @ (block @ drawn)
    whole, _ = np.linalg.qr(np.hstack([wanted.astype(np.float32), found]))
    return whole[:, : min(count, width, wanted.shape[1] + _DIRECTIONS)]


def _train(
    params: Params,
    rows: np.ndarray,
    targets: np.ndarray,
    judged: tuple[np.ndarray, np.ndarray],
    size: float,
    seed: int,
) -> _Best:
    """The parameters after the epoch that is best for those that judge."""
    rng = np.random.default_rng(seed)
    multi_label = judged[1].ndim == 2
    batches = min(-(-len(rows) // _BATCH), _STEPS)
    steps = _adam(params, size, _EPOCHS * batches)
    next(steps)
    best = None
    for epoch in range(_EPOCHS + 1):
        if epoch % _EVERY == 0:
            units = np.maximum(judged[0] @ params["hidden"] + params["hidden_bias"], 0)
            scores = units @ params["kernel"] + params["bias"]
            calibrated = calibration.temperature(scores, judged[1], least=_LEAST)
            if best is None or calibrated[-1] < best.entropy:
                copied = {name: each.copy() for name, each in params.items()}
                best = _Best(copied, epoch, *calibrated)
        if epoch < _EPOCHS:
            for part in np.array_split(rng.permutation(len(rows)), batches):
                steps.send(_gradients(params, rows[part], targets[part], multi_label, rng))
    assert best is not None
    return best


def _gradients(
    params: Params,
    rows: np.ndarray,
    targets: np.ndarray,
    multi_label: bool,
    rng: np.random.Generator,
) -> Params:
    """Of the mean cross-entropy, with dropout of hidden units."""
    kept = (rng.random((len(rows), HIDDEN), np.float32) >= _DROPOUT) / np.float32(1 - _DROPOUT)
    inside = rows @ params["hidden"] + params["hidden_bias"]
    units = np.maximum(inside, 0) * kept
    logits = units @ params["kernel"] + params["bias"]
    chances = scipy.special.expit(logits) if multi_label else scipy.special.softmax(logits, axis=1)
    errors = (chances - targets) / len(rows)
    back = (errors @ params["kernel"].T) * kept * (inside > 0)
    return {
        "hidden": rows.T @ back,
        "hidden_bias": back.sum(0),
        "kernel": units.T @ errors,
        "bias": errors.sum(0),
    }


def _adam(params: Params, size: float, steps: int) -> Generator[None, Params, None]:
    """Changes parameters by the gradients that it is sent, at rates that fall as a cosine."""
    first = {name: np.zeros_like(each) for name, each in params.items()}
    second = {name: np.zeros_like(each) for name, each in params.items()}
    for step in range(1, steps + 1):
        gradients = yield
        rate = _RATE * 0.5 * (1 + math.cos(math.pi * (step - 1) / steps))
        for name, gradient in gradients.items():
            first[name] += (1 - _FIRST) * (gradient - first[name])
            second[name] += (1 - _SECOND) * (np.square(gradient) - second[name])
            change = first[name] / (1 - _FIRST**step)
            change /= np.sqrt(second[name] / (1 - _SECOND**step)) + _EPSILON
            # What reads rows of that size makes steps of the size of the others' in its units.
            change /= size if name == "hidden" else 1
            params[name] -= rate * (change + _DECAY * params[name])
    yield


def flops(size: Size) -> int:
    """The most that `fit` takes."""
    count, width, classes = size.examples, size.features, size.classes
    inside = min(count, width, min(classes, HIDDEN // 2) + _DIRECTIONS)
    return ridge.flops(size) + _own_flops(count, JUDGES, width, inside, classes)


def _own_flops(count: int, judges: int, width: int, inside: int, classes: int) -> int:
    """Of all but ridge regression."""
    pairs, drawn = min(width, classes, HIDDEN // 2), min(count, _DIRECTIONS)
    factors = 2 * linalg_flops.product(width, classes, pairs) + linalg_flops.svd(
        max(width, classes), pairs
    )
    finding = 2 * linalg_flops.product(count, width, drawn) + linalg_flops.qr(width, pairs + drawn)
    projecting = linalg_flops.product(count + judges, width, inside)
    folding = linalg_flops.product(width, inside, HIDDEN)
    # Nothing below the hidden layer is trained, so it needs no gradient of its input.
    epoch = 2 * linalg_flops.product(count, inside, HIDDEN) + 3 * linalg_flops.product(
        count, HIDDEN, classes
    )
    judging = linalg_flops.product(judges, inside, HIDDEN) + linalg_flops.product(
        judges, HIDDEN, classes
    )
    training = _EPOCHS * epoch + (_EPOCHS // _EVERY + 1) * judging
    return factors + finding + projecting + folding + training


def hidden(size: Size) -> dict[str, tuple[int, ...]]:
    """Shapes of the hidden layer's arrays."""
    return {"kernel": (size.features, HIDDEN), "bias": (HIDDEN,)}


SOLVER = Solver(fit, flops, hidden)
