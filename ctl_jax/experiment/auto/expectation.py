"""Expected accuracy of a recipe on a task, by other tasks' learning curves and looks at this one.

A recipe is a part of a network, at a size of images, with a way to fit a head on its features. Its
scores on a task are taken as linear in a few numbers (`describe`). The coefficients differ between
tasks, and how they do is learnt from many (`learn`): a prior, a Gaussian, which what is seen of a
new task turns into a belief (`Prior.after`). That is a Gaussian process over recipes and numbers of
images whose kernel is learnt, and has an error bar for all that it extrapolates to.

Two scores are modelled together, since one tells of the other:
  accuracy: the logit of the share of new images that are classified right. It is what counts.
  entropy: log(H / C), H being the entropy of the labels' frequencies and C the cross-entropy of a
    head on images that are left out of its fit. It can be seen for no image beyond those that are
    used anyway, see `heads.least_squares`.

Sources: linear-Gaussian hierarchical models by EM, as in Gelman et al., Bayesian Data Analysis, 3rd
edition, 2013, chapters 5 and 15; curves over the logarithm of the number of images, as in Hestness
et al., Deep Learning Scaling is Predictable, Empirically, 2017 (arXiv:1712.00409).
"""

import dataclasses
import functools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg

ACCURACY, ENTROPY = 0, 1
_SCORES = (ACCURACY, ENTROPY)
# Rounds of EM. What is assumed of the coefficients' variances before any task, as if seen on two.
_ROUNDS, _ASSUMED, _VARIANCE = 60, 2.0, 0.02
# The least variance of a score: sums of squares are not told better from each other.
_LEAST_NOISE = 1e-5
# Variance of what near recipes have in common on all tasks besides what is linear.
_COMMON = 0.05
# From here on squares go on as straight lines: no curve turns where nothing was seen.
_FAR = 1.5


class Recipe(NamedTuple):
    """What a head is fitted on, and how, as far as scores are expected to depend on it.

    Attributes:
      size: side of the images, as a multiple of 64/224 of that which the network was made for.
      depth: the share of a forward pass that its first stages take; 1 of a whole network.
      cut: the share of the filters that are dropped.
      kernel: whether the head is one of radial basis functions, not a linear one.
    """

    size: float
    depth: float
    cut: float = 0.0
    kernel: bool = False


class About(NamedTuple):
    """What is known of a task before any of its images is computed.

    Attributes:
      classes: how many it has.
      native: the median of its images' short sides, as they are on disk, over 64 pixels.
    """

    classes: int
    native: float


class Seen(NamedTuple):
    """A score of a recipe on a task.

    Attributes:
      recipe: which.
      images: that its head was fitted on.
      score: ACCURACY or ENTROPY.
      value: see above.
    """

    recipe: Recipe
    images: float
    score: int
    value: float


class Expected(NamedTuple):
    """The logit of an accuracy: its mean and standard deviation."""

    logit: float
    deviation: float

    @property
    def accuracy(self) -> float:
        """The mean of the accuracy, by MacKay's approximation (1992)."""
        return 1 / (1 + math.exp(-self.logit / math.sqrt(1 + math.pi * self.deviation**2 / 8)))


def entropy(classes_entropy: float, cross_entropy: float) -> float:
    """The score ENTROPY of a head; of one that is always right as of one that nearly is."""
    return math.log(classes_entropy / max(cross_entropy, 1e-3 * classes_entropy))


def logit(accuracy: float, images: int) -> float:
    """The score ACCURACY of a head, tested on some images; finite also where all are right."""
    share = (accuracy * images + 0.5) / (images + 1)
    return math.log(share / (1 - share))


def _coordinates(recipe: Recipe) -> tuple[float, float, float]:
    return math.log2(recipe.size), math.log2(recipe.depth), 2 * recipe.cut


def _many(images: float) -> float:
    return math.log2(images / 200) / 3


def _square(value: float) -> float:
    inside = min(abs(value), _FAR)
    return inside**2 + 2 * _FAR * (abs(value) - inside)


@functools.lru_cache(1 << 14)
def describe(recipe: Recipe, images: float, about: About) -> tuple[float, ...]:
    """The numbers that a score is linear in."""
    size, depth, cut = _coordinates(recipe)
    kernel, many = float(recipe.kernel), _many(images)
    classes, fine = math.log2(about.classes / 10) / 2, math.log2(about.native)
    of_recipe = [1.0, size, _square(size), depth, _square(depth), size * depth]
    of_cut = [cut, cut * size, cut * depth, cut * many, kernel, kernel * many]
    of_images = [many, _square(many), size * many, depth * many]
    # By which sizes and depths differ between numbers of classes cannot be told from few tasks.
    of_classes = [classes, classes * many]
    return *of_recipe, *of_cut, *of_images, *of_classes, fine, fine * size, fine * many


# Around which recipes some are near to each other: (size, depth, cut) as `_coordinates` has them.
_CENTRES = [
    (size, depth, cut)
    for size in (-1.0, -0.4, 0.0, 0.6, 1.0, 1.8)
    for depth in (-2.0, -0.85, 0.0)
    for cut in (0.0, 0.5, 1.0)
    if cut == 0 or abs(size) < 0.5
]
_RADII = (0.3, 0.6, 0.4)


def _near(recipe: Recipe, images: float) -> np.ndarray:
    """How near a recipe is to each of `_CENTRES`, and that times how many images there are."""
    near = _nearness(_coordinates(recipe))
    return np.concatenate([near, near * _many(images)])


@functools.lru_cache(1 << 10)
def _nearness(coordinates: tuple[float, float, float]) -> np.ndarray:
    apart = (np.array(coordinates) - _CENTRES) / _RADII
    near = np.exp(-np.square(apart).sum(axis=1))
    return near / max(1.0, near.sum())


def _of_score(score: int, row: Sequence[float] | np.ndarray) -> np.ndarray:
    """A row of the numbers of both scores."""
    found = np.zeros((len(_SCORES), len(row)))
    found[score] = row
    return found.ravel()


class _Rows(NamedTuple):
    """What some scores are linear in.

    Attributes:
      own: [n, p], with coefficients that differ between tasks.
      common: [n, q], with coefficients that do not.
      score: [n].
      values: [n].
    """

    own: np.ndarray
    common: np.ndarray
    score: np.ndarray
    values: np.ndarray


def _rows(seen: Sequence[Seen], about: About) -> _Rows:
    return _Rows(
        np.stack([_of_score(s.score, describe(s.recipe, s.images, about)) for s in seen]),
        np.stack([_of_score(s.score, _near(s.recipe, s.images)) for s in seen]),
        np.array([each.score for each in seen]),
        np.array([each.value for each in seen]),
    )


@dataclasses.dataclass(frozen=True)
class Belief:
    """What is expected of a task: a Gaussian over the coefficients of both scores.

    Attributes:
      mean: [p].
      covariance: [p, p].
      common: coefficients that are the same for all tasks, [q].
      recipe: variance of what all scores of a recipe on a task differ by from what is linear, [2].
    """

    mean: np.ndarray
    covariance: np.ndarray
    common: np.ndarray
    recipe: np.ndarray

    def expect(self, recipe: Recipe, images: float, about: About) -> Expected:
        """The accuracy of a recipe on the task."""
        rows = _rows([Seen(recipe, images, ACCURACY, 0.0)], about)
        mean = rows.own @ self.mean + rows.common @ self.common
        variance = (rows.own @ self.covariance @ rows.own.T).item()
        return Expected(mean.item(), math.sqrt(max(variance, 0.0)))

    def compare(
        self, recipe: Recipe, images: float, other: Recipe, others: float, about: About
    ) -> Expected:
        """By how much the logit of a recipe's accuracy is above that of another one's."""
        first = Seen(recipe, images, ACCURACY, 0.0)
        rows = _rows([first, Seen(other, others, ACCURACY, 0.0)], about)
        own, common = (each[0] - each[1] for each in (rows.own, rows.common))
        variance = float(own @ self.covariance @ own)
        if recipe != other:
            variance += 2 * float(self.recipe[ACCURACY])
        return Expected(
            float(own @ self.mean + common @ self.common), math.sqrt(max(variance, 0.0))
        )


@dataclasses.dataclass(frozen=True)
class Prior(Belief):
    """What is expected of a task of which nothing was seen.

    Attributes:
      noise: variance of what each score differs by besides, [2].
      sampling: over the number of images added to `noise`, [2].
      tasks: names of those that it was learnt from.
    """

    noise: np.ndarray
    sampling: np.ndarray
    tasks: tuple[str, ...] = ()

    def after(self, seen: Sequence[Seen], about: About) -> Belief:
        """The belief once some scores were seen, in any order."""
        if not seen:
            return self
        rows = _rows(seen, about)
        spread = rows.own @ self.covariance
        alike = np.array(
            [[a.recipe == b.recipe and a.score == b.score for b in seen] for a in seen]
        )
        alone = self.noise[rows.score]
        alone = alone + self.sampling[rows.score] / np.array([each.images for each in seen])
        residual = alike * self.recipe[rows.score] + np.diag(alone)
        gain = np.linalg.solve(spread @ rows.own.T + residual, spread).T
        errors = rows.values - rows.own @ self.mean - rows.common @ self.common
        left = self.covariance - gain @ spread
        return Belief(self.mean + gain @ errors, (left + left.T) / 2, self.common, self.recipe)

    def to_json(self) -> dict[str, Any]:
        """Plain values, which `read` makes a prior of; six digits."""
        fields = [field.name for field in dataclasses.fields(self) if field.name != "tasks"]
        arrays = {name: getattr(self, name) for name in fields}
        rounded = {name: np.vectorize(_rounded)(array).tolist() for name, array in arrays.items()}
        return {"tasks": list(self.tasks), **rounded}


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def read(text: str) -> Prior:
    """The prior of a file's text."""
    content: dict[str, Any] = json.loads(text)
    tasks = tuple(content.pop("tasks"))
    fields: dict[str, Any] = {name: np.array(value) for name, value in content.items()}
    return Prior(**fields, tasks=tasks)


def learn(tasks: Mapping[str, tuple[About, Sequence[Seen]]]) -> Prior:
    """The prior of tasks with many scores each.

    By EM over the tasks' coefficients, with an inverse-Wishart prior for how they vary.

    Args:
      tasks: by name, at least two; what is known of each, and scores of several recipes, both
        accuracies and entropies.
    """
    known = [_rows(seen, about) for about, seen in tasks.values()]
    moments = [_moments(rows) for rows in known]
    width, shared = known[0].own.shape[1], known[0].common.shape[1]
    mean, covariance = np.zeros(width), np.eye(width)
    common: np.ndarray = np.zeros(shared)
    noise: np.ndarray = np.full(len(_SCORES), 0.05)
    counts = np.bincount(np.concatenate([rows.score for rows in known]), minlength=len(_SCORES))
    fitted: list[np.ndarray] = []
    for _ in range(_ROUNDS):
        fitted, spread = [], _ASSUMED * _VARIANCE * np.eye(width)
        squares, inner, outer = np.zeros(len(_SCORES)), np.eye(shared) / _COMMON, np.zeros(shared)
        for each in moments:
            # The inverse of covariance^-1 + own' own / noise.
            precision = _blocks(each.own / noise[:, None, None])
            left = np.linalg.solve(np.eye(width) + covariance @ precision, covariance)
            besides = each.own_value - _product(each.own_common, common)
            own = mean + left @ ((besides / noise[:, None]).ravel() - precision @ mean)
            fitted.append(own)
            spread += left
            squares += each.squares(own, common, left)
            inner += _blocks(each.common / noise[:, None, None])
            unexplained = each.common_value - _product(each.own_common.swapaxes(1, 2), own)
            outer += (unexplained / noise[:, None]).ravel()
        mean = np.mean(fitted, axis=0)
        apart = np.stack(fitted) - mean
        spread += apart.T @ apart
        covariance = (spread + spread.T) / (2 * (len(known) + _ASSUMED))
        noise = np.maximum(squares / counts, _LEAST_NOISE)
        common = np.linalg.solve(inner, outer)
    left_over = [
        rows.values - rows.common @ common - rows.own @ own
        for rows, own in zip(known, fitted, strict=True)
    ]
    parts = [_parts(list(tasks.values()), left_over, score) for score in _SCORES]
    recipe, alone, sampling = np.array(parts).T
    return Prior(mean, covariance, common, recipe, alone, sampling, tuple(tasks))


class _Moments(NamedTuple):
    """Sums over a task's scores, of each of the two by itself: [2, ...].

    Attributes:
      own: of the products of its own numbers, [2, d, d].
      own_common: of these with the common ones, [2, d, e].
      common: of those among themselves, [2, e, e].
      own_value, common_value: of both with the values, [2, d] and [2, e].
      value: of the values' squares, [2].
    """

    own: np.ndarray
    own_common: np.ndarray
    common: np.ndarray
    own_value: np.ndarray
    common_value: np.ndarray
    value: np.ndarray

    def squares(self, own: np.ndarray, common: np.ndarray, left: np.ndarray) -> np.ndarray:
        """Expected squared errors, [2], the coefficients of a task being known but for `left`."""
        own, common = own.reshape(len(_SCORES), -1), common.reshape(len(_SCORES), -1)
        found = self.value - 2 * (own * self.own_value).sum(1)
        found -= 2 * (common * self.common_value).sum(1)
        found += np.einsum("si,sij,sj->s", own, self.own, own)
        found += np.einsum("si,sij,sj->s", common, self.common, common)
        found += 2 * np.einsum("si,sij,sj->s", own, self.own_common, common)
        inside = left.reshape(*own.shape, *own.shape)
        return found + np.einsum("sij,sjsi->s", self.own, inside)


def _moments(rows: _Rows) -> _Moments:
    found = []
    for score in _SCORES:
        chosen = rows.score == score
        own, common = (
            np.split(each[chosen], len(_SCORES), axis=1)[score] for each in (rows.own, rows.common)
        )
        values = rows.values[chosen]
        of_own = own.T @ own, own.T @ common, common.T @ common
        found.append((*of_own, own.T @ values, common.T @ values, values @ values))
    return _Moments(*map(np.array, zip(*found, strict=True)))


def _blocks(of_scores: np.ndarray) -> np.ndarray:
    return scipy.linalg.block_diag(*of_scores)


def _product(of_scores: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """[2, d, e] times a vector of 2 e: [2, d]."""
    return np.einsum("sij,sj->si", of_scores, vector.reshape(len(_SCORES), -1))


def _parts(
    tasks: Sequence[tuple[About, Sequence[Seen]]], errors: Sequence[np.ndarray], score: int
) -> tuple[float, float, float]:
    """Variances of what is left: of a recipe on a task, of each score, and that times images."""
    groups: dict[tuple[int, Recipe], list[tuple[float, float]]] = {}
    for number, ((_, seen), left) in enumerate(zip(tasks, errors, strict=True)):
        for each, error in zip(seen, left, strict=True):
            if each.score == score:
                groups.setdefault((number, each.recipe), []).append((each.images, error))
    centres = [np.mean([error for _, error in group]) for group in groups.values()]
    rest = np.array(
        [
            (1 / images, (error - centre) ** 2)
            for group, centre in zip(groups.values(), centres, strict=True)
            for images, error in group
        ]
    )
    slope, base = np.polyfit(rest[:, 0], rest[:, 1], 1)
    least = 0.1 * float(rest[:, 1].mean())
    return float(np.mean(np.square(centres))), max(float(base), least), max(float(slope), 0.0)
