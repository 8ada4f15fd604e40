"""Fitting a head on features that are computed once."""

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from ctl_jax.errors import UserError
from ctl_jax.heads import _weighting, solvers
from ctl_jax.heads import shards as sharded
from ctl_jax.heads.shards import Features, Moments, Shard
from ctl_jax.heads.solver import Fitted, Problem, Size, Solver
from ctl_jax.heads.solvers import ridge

SOLVERS: Mapping[str, Solver] = MappingProxyType(solvers.find())


def fit(
    solver: str,
    shards: Sequence[Shard],
    num_classes: int,
    *,
    multi_label: bool = False,
    seed: int = 0,
    select: bool = False,
    dev: Shard | None = None,
) -> Fitted:
    """A classifier on features, fitted to all images of some shards.

    Features are standardised by their mean and deviation over these images and weighted (see
    `weighting`), which is folded into the head that is returned. The same images in the same order
    give the same bits, however they are cut into shards. Memory is that of a block of rows and of
    one [D, D] or [n, n] matrix or two, unless a solver says otherwise.

    Args:
      solver: one of `SOLVERS`.
      shards: of the training images.
      num_classes: K; classes without an image get an output, too.
      multi_label: whether labels are 0 and 1 for each class.
      seed: of what a solver draws.
      select: whether the head reads only the features that matter most, see `selection`.
      dev: other images that coefficients are chosen by; without them, training images that are
        left out of a fit. Needed where shards hold several views of an image.

    Returns:
      See `Fitted`. Its logits are on a scale on which cross-entropy is low.

    Raises:
      UserError: no such solver, no image, arrays that do not fit together, labels of other
        classes, or features that are NaN or infinite.
    """
    known = _solver(solver)
    dev = dev if dev and len(dev.labels) else None
    sharded.check([*shards, *([dev] if dev else [])], num_classes, multi_label)
    moments = sharded.moments(shards)
    if dev:
        sharded.check_finite([dev])
    problem = Problem(
        Features(shards, moments),
        sharded.labels(shards),
        num_classes,
        seed,
        (Features([dev], moments), sharded.labels([dev])) if dev else None,
    )
    weighted, powers, flops = _weighting.choose(problem, moments)
    problem = problem.scaled(weighted)
    notes = {"by_deviation": powers[0], "by_relevance": powers[1]}
    if not select:
        fitted = known.fit(problem)
        head = fitted.head
    else:
        columns, spent = _choose(problem)
        fitted = known.fit(_restricted(problem, columns))
        head = _scatter(fitted.head, columns, len(moments.mean))
        flops += spent
        notes["selected"] = len(columns)
    return Fitted(_on_raw(head, weighted), {**fitted.notes, **notes}, flops + fitted.flops)


def flops(
    solver: str,
    examples: int,
    features: int,
    classes: int,
    multi_label: bool = False,
    select: bool = False,
) -> int:
    """The most FLOPs that `fit` takes, known before; non-decreasing in the examples.

    2 per multiply-add of matrix products, n^3 / 3 of a Cholesky factor; the formulas stand in
    `linalg_flops` and in each solver.

    Args:
      solver: one of `SOLVERS`.
      examples: images, n.
      features: D.
      classes: K.
      multi_label: whether an image may be of several classes.
      select: as for `fit`.

    Raises:
      UserError: no such solver.
    """
    size = Size(examples, features, classes, multi_label)
    found = _weighting.flops(size) + _solver(solver).flops(size)
    return found + (_flops_of_choosing(size) if select else 0)


def shapes(
    solver: str, examples: int, features: int, classes: int, multi_label: bool = False
) -> dict[str, Any]:
    """The arrays of the head that `fit` gives, abstract; the arguments are those of `flops`."""
    hidden = _solver(solver).hidden
    rows, found = features, {}
    if hidden is not None:
        inside = hidden(Size(examples, features, classes, multi_label))
        found["hidden"] = {name: _abstract(*shape) for name, shape in inside.items()}
        rows = inside["landmarks"][0] if "landmarks" in inside else inside["bias"][0]
    return {"kernel": _abstract(rows, classes), "bias": _abstract(classes), **found}


def _abstract(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, np.float32)


def _solver(name: str) -> Solver:
    if name not in SOLVERS:
        raise UserError(f"solver {name!r}; expected one of {', '.join(SOLVERS)}")
    return SOLVERS[name]


def _scatter(head: dict[str, Any], columns: np.ndarray, width: int) -> dict[str, Any]:
    """A head of some features as one of all, in which the others have no part."""

    def spread(array: np.ndarray) -> np.ndarray:
        whole = np.zeros((width, *array.shape[1:]), array.dtype)
        whole[columns] = array
        return whole

    hidden = head.get("hidden")
    if hidden is None:
        return {**head, "kernel": spread(head["kernel"])}
    if "landmarks" in hidden:
        inside = {"landmarks": spread(hidden["landmarks"].T).T, "scale": spread(hidden["scale"])}
    else:
        inside = {**hidden, "kernel": spread(hidden["kernel"])}
    return {**head, "hidden": inside}


def _on_raw(head: dict[str, Any], moments: Moments) -> dict[str, Any]:
    """A head of standardised features as one of features as they are, float32."""
    hidden = head.get("hidden")
    if hidden is None:
        head = _affine_on_raw(head, moments)
    elif "landmarks" in hidden:
        landmarks = hidden["landmarks"] * moments.scale + moments.mean
        head = {
            **head,
            "hidden": {"landmarks": landmarks, "scale": hidden["scale"] / moments.scale},
        }
    else:
        head = {**head, "hidden": _affine_on_raw(hidden, moments)}
    return jax.tree.map(lambda array: np.asarray(array, np.float32), head)


def _affine_on_raw(layer: dict[str, Any], moments: Moments) -> dict[str, Any]:
    kernel = np.asarray(layer["kernel"], np.float64) / moments.scale[:, None]
    bias = np.asarray(layer["bias"], np.float64) - moments.mean @ kernel
    return {"kernel": kernel, "bias": bias}


# Shares of the features that are tried where a head reads some of them: those whose weights are
# large where all are fitted. Head2Toe: Evci et al., Head2Toe: Utilizing Intermediate
# Representations for Better Transfer Learning, 2022 (arXiv:2201.03529). There a group lasso's
# weights tell how relevant a feature is; here those of ridge regression do, in closed form.
_SHARES = (0.5, 0.25, 0.125)


def _choose(problem: Problem) -> tuple[np.ndarray, int]:
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
        fitted = ridge.fit(_restricted(problem, columns))
        flops += fitted.flops
        if (entropy := float(fitted.notes["cross_entropy"])) < best_entropy:
            best, best_entropy = columns, entropy
    return best, flops


def _restricted(problem: Problem, columns: np.ndarray) -> Problem:
    """The same problem with some of its features."""
    dev = problem.dev and (problem.dev[0].select(columns), problem.dev[1])
    return dataclasses.replace(problem, features=problem.features.select(columns), dev=dev)


def _flops_of_choosing(size: Size) -> int:
    """The most that `_choose` takes."""
    widths = [size.features, *(_kept(size.features, share) for share in _SHARES)]
    return sum(ridge.flops(dataclasses.replace(size, features=width)) for width in widths)


def _kept(width: int, share: float) -> int:
    return max(1, int(width * share))
