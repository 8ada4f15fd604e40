"""The interface of a solver: a way to fit a head."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ctl_jax.heads.shards import Features, Moments

Head = dict[str, Any]


class Fitted(NamedTuple):
    """A head.

    Attributes:
      head: {"kernel": float32 [D, K], "bias": float32 [K]} on features as they are, not
        standardised; of a solver with a hidden layer also "hidden", and the kernel is [H, K].
      notes: plain values that say how it was chosen.
      flops: that fitting took.
    """

    head: Head
    notes: Mapping[str, float | int | str]
    flops: int


@dataclasses.dataclass(frozen=True)
class Problem:
    """What a solver fits.

    Attributes:
      features: standardised, [n, D].
      labels: int32 [n], or uint8 [n, K] of a multi-label task.
      num_classes: K; classes without an image count too.
      seed: of what is drawn.
      dev: features, standardised as those, and labels, to choose by; or None.
    """

    features: Features
    labels: np.ndarray
    num_classes: int
    seed: int
    dev: tuple[Features, np.ndarray] | None = None

    def scaled(self, moments: Moments) -> "Problem":
        """The same problem, its features standardised by other moments."""
        dev = self.dev and (self.dev[0].scaled(moments), self.dev[1])
        return dataclasses.replace(self, features=self.features.scaled(moments), dev=dev)

    def draw(self, count: int, most: int) -> np.ndarray:
        """Some of so many images: their indices, ascending, all where they are no more."""
        if count <= most:
            return np.arange(count)
        return np.sort(np.random.default_rng(self.seed).permutation(count)[:most])

    def targets(self, dtype: type = np.float32) -> np.ndarray:
        """0 and 1, [n, K]."""
        return one_hot(self.labels, self.num_classes, dtype)


@dataclasses.dataclass(frozen=True)
class Size:
    """What the FLOPs of a fit depend on.

    Attributes:
      examples: images, n.
      features: D.
      classes: K.
      multi_label: whether an image may be of several classes.
    """

    examples: int
    features: int
    classes: int
    multi_label: bool


@dataclasses.dataclass(frozen=True)
class Solver:
    """One way to fit a head.

    Attributes:
      fit: a head on standardised features, which `heads.fit` turns to features as they are.
      flops: at most so many are taken, non-decreasing in `examples`.
      hidden: shapes of the arrays of the head's "hidden", all float32; None of a linear head.
    """

    fit: Callable[[Problem], Fitted]
    flops: Callable[[Size], int]
    hidden: Callable[[Size], Mapping[str, tuple[int, ...]]] | None = None


def one_hot(labels: np.ndarray, num_classes: int, dtype: type) -> np.ndarray:
    """0 and 1, [n, K], of labels of either form."""
    if labels.ndim == 2:
        return labels.astype(dtype)
    targets: np.ndarray = np.zeros((len(labels), num_classes), dtype)
    targets[np.arange(len(labels)), labels] = 1
    return targets
