"""Ensembles of the network that a training began with and the one that it ended with."""

from typing import NamedTuple

import jax
import numpy as np
from flax import linen as nn

from ctl_jax import data, finetune
from ctl_jax.finetune import Scores
from ctl_jax.models.heads import ENSEMBLE, HIDDEN
from ctl_jax.trees import Tree

# Weights of the trained network's logits that are tried, in tenths.
_TENTHS = range(11)


class Averaged(NamedTuple):
    """Two networks whose logits are added, or the better of them.

    Attributes:
      variables: of both, see `models.apply`; of one where it has all of the weight.
      weight: of the trained network's logits, in 0 .. 1; the other's is what is left.
      dev: scores on dev.
      dev_test: scores on dev_test.
    """

    variables: Tree
    weight: float
    dev: Scores
    dev_test: Scores


class Logits:
    """Logits of a task's splits by a network of some variables, those of the same computed once.

    Args:
      module: the network.
      preprocess: what it expects of an image, as a text.
      compute_dtype: what it computes in.
      task: whose splits.
    """

    def __init__(self, module: nn.Module, preprocess: str, compute_dtype: str, task: data.Task):
        self.task = task
        self._network = module, preprocess
        self._compute_dtype = compute_dtype
        self._known: list[tuple[str, Tree, np.ndarray]] = []

    def __call__(self, name: str, variables: Tree) -> np.ndarray:
        """Of a split, float32 [examples, outputs]."""
        for split, known, found in self._known:
            if split == name and known is variables:
                return found
        images = self.task.splits[name].images
        found = finetune.logits(
            *self._network, variables, images, compute_dtype=self._compute_dtype
        )
        self._known.append((name, variables, found))
        return found

    def score(self, name: str, variables: Tree) -> Scores:
        """Scores of a split."""
        return self.score_of(name, self(name, variables))

    def score_of(self, name: str, logits: np.ndarray) -> Scores:
        """Scores of a split by its logits."""
        labels = self.task.splits[name].labels
        return finetune.score(logits, labels, num_classes=self.task.num_classes)


def averaged(start: Tree, trained: Tree, logits: Logits) -> Averaged:
    """The weighted mean of two networks' logits that is best on dev.

    Of equal weights the one nearest to a half counts, as what depends least on dev.

    Args:
      start: variables of one network.
      trained: of the other, with as many outputs.
      logits: gives those of "dev" and "dev_test".
    """
    both = {name: (logits(name, start), logits(name, trained)) for name in ("dev", "dev_test")}

    def score(name: str, weight: float) -> Scores:
        one, two = both[name]
        return logits.score_of(name, (1 - weight) * one + weight * two)

    weights = sorted((tenth / 10 for tenth in _TENTHS), key=lambda weight: abs(weight - 0.5))
    weight = max(weights, key=lambda weight: score("dev", weight).value)
    variables = _together(start, trained, weight)
    return Averaged(variables, weight, score("dev", weight), score("dev_test", weight))


def _together(start: Tree, trained: Tree, weight: float) -> Tree:
    if weight in (0, 1):
        return trained if weight else start
    one, two = _scaled(start, 1 - weight), _scaled(trained, weight)
    return {kind: {**two[kind], ENSEMBLE: one[kind]} for kind in two}


def _scaled(variables: Tree, factor: float) -> Tree:
    """With logits of so much: only outputs of the head are scaled, not its hidden units."""
    head = {
        name: leaf if name == HIDDEN else jax.tree.map(lambda array: array * factor, leaf)
        for name, leaf in variables["params"]["head"].items()
    }
    return {**variables, "params": {**variables["params"], "head": head}}
