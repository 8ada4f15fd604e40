"""Phases: stretches of training that change some of the parameters, or all."""

import dataclasses
import difflib
import fnmatch
import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax

from ctl_jax.errors import UserError
from ctl_jax.trees import Tree, leaf_paths

BatchNorm = Literal["batch", "frozen"]
Head = Literal["last", "taps"]
_BATCH_NORMS, _HEADS = get_args(BatchNorm), get_args(Head)
# How a phase finds the parameters that it trains: by gradients, or otherwise as `heads.SOLVERS`.
SGD = "sgd"


@dataclasses.dataclass(frozen=True)
class Phase:
    """One stretch of training. All of it by default.

    Attributes:
      train: patterns (`fnmatch`, upper and lower case differ; "*" matches "/" too) on the paths of
        the trained parameters: "head/*", "*bn*/*", "stage3*". All others are frozen.
      batch_norm: "batch": layers with a trained parameter normalise by the batch and average its
        statistics. "frozen": they normalise by the statistics that they have, and keep them, as
        layers without a trained parameter always do.
      share: of the training's budget.
      rate: times the training's learning rate.
      head: what a new head reads: the "last" representation, or "taps", pooled outputs of stages
        beside it. A head that a phase before made stays as it is.
      solver: "sgd", or how a head is fitted on features that are computed once, a key of
        `heads.SOLVERS`; then it is the first phase, and trains the head alone.
      select: whether a fitted head reads only the features that matter most to it.
      views: whether changed images are fitted on, too, where the phase's share of the budget pays
        for more images than there are.
      half: 1 or 2: of the training images one of two halves alone, which a seed draws, with half of
        each class; 0: all of them.
      passes: over the images, at most; 0: as many as the budget pays for.
      vary: whether images are cropped, flipped and mixed as the training's settings say; without,
        they are trained on as they are.
      ensemble: whether the logits of the trained network are averaged with those of the network
        that the phases began with, by the weight that is best on dev.
      clip: gradients longer than this, all of them together, are shortened to it (Pascanu et al.,
        On the difficulty of training recurrent neural networks, 2013); 0: none.
      lora: rank of the low-rank changes that kernels get instead of being trained themselves; 0:
        none. See `adapters`.
      to_start: L2 coefficient that pulls trained kernels to where the whole training began (L2-SP:
        Li, Grandvalet and Davoine, Explicit Inductive Bias for Transfer Learning with Convolutional
        Networks, 2018), in the place of the weight decay, which is left to the head. 0: none.
      cached: what the frozen layers below the lowest trained one compute is computed once an image;
        only where images do not vary.

    Raises:
      UserError: a field that it cannot be.

    Example:
      >>> linear_probe = Phase(train=("head/*",), batch_norm="frozen")
    """

    train: tuple[str, ...] = ("*",)
    batch_norm: BatchNorm = "batch"
    share: float = 1.0
    rate: float = 1.0
    head: Head = "last"
    solver: str = SGD
    select: bool = False
    views: bool = False
    half: int = 0
    passes: int = 0
    vary: bool = True
    ensemble: bool = False
    clip: float = 0.0
    lora: int = 0
    to_start: float = 0.0
    cached: bool = False

    def __post_init__(self) -> None:
        patterns = self.train
        if not (isinstance(patterns, tuple) and patterns and all(map(_is_text, patterns))):
            raise UserError(f"train is {patterns!r}; expected a tuple of patterns, at least one")
        if self.batch_norm not in _BATCH_NORMS:
            known = " or ".join(map(repr, _BATCH_NORMS))
            raise UserError(f"batch_norm is {self.batch_norm!r}; expected {known}")
        if not 0 < self.share <= 1:
            raise UserError(f"share is {self.share!r}; expected a number above 0, at most 1")
        if not (self.rate > 0 and math.isfinite(self.rate)):
            raise UserError(f"rate is {self.rate!r}; expected a finite positive number")
        if self.head not in _HEADS:
            known = " or ".join(map(repr, _HEADS))
            raise UserError(f"head is {self.head!r}; expected {known}")
        if self.half not in (0, 1, 2):
            raise UserError(f"half is {self.half!r}; expected 1 or 2, or 0 for all images")
        if self.passes < 0:
            raise UserError(f"passes is {self.passes!r}; expected some, or 0 for no limit")
        if self.lora < 0:
            raise UserError(f"lora is {self.lora!r}; expected a rank, or 0 for none")
        for name in ("to_start", "clip"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise UserError(f"{name} is {value!r}; expected zero or a finite positive number")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def partition(phase: Phase, params: Tree) -> tuple[Tree, Tree]:
    """The trained and the frozen parameters.

    Args:
      phase: says which are trained.
      params: nested dicts of arrays, of any depth.

    Returns:
      Two trees like `params`, with None in the place of each array that is in the other: for jax a
      tree without a leaf there. `merge` puts them together again.

    Raises:
      UserError: a pattern that matches no parameter.
    """
    named = leaf_paths(params)
    paths = [path for path, _ in named]
    trained: set[str] = set()
    for pattern in phase.train:
        found = {path for path in paths if fnmatch.fnmatchcase(path, pattern)}
        if not found:
            near = difflib.get_close_matches(pattern, paths, n=3, cutoff=0.0)
            raise UserError(
                f"train: {pattern!r} matches none of the {len(paths)} parameters; the nearest are "
                f"{', '.join(map(repr, near))}"
            )
        trained |= found
    parts = [(leaf, None) if path in trained else (None, leaf) for path, leaf in named]
    structure = jax.tree.structure(params)
    one, other = (jax.tree.unflatten(structure, part) for part in zip(*parts, strict=True))
    return one, other


def merge(trained: Tree, frozen: Tree) -> Tree:
    """The parameters that `partition` took apart."""
    return jax.tree.map(
        lambda one, other: other if one is None else one,
        trained,
        frozen,
        is_leaf=lambda leaf: leaf is None,
    )


@dataclasses.dataclass(frozen=True)
class Layers:
    """The layers of some paths, as a predicate; hashable, so that it can be a static argument."""

    paths: frozenset[str]

    def __call__(self, path: str) -> bool:
        """Whether the layer of this path is one of them."""
        return path in self.paths


def by_batch(phase: Phase, variables: Tree) -> bool | Layers:
    """Which BatchNorm layers normalise by the batch, as `models.apply` takes it.

    A layer that has statistics and no parameter goes by the paths of its statistics.

    Args:
      phase: says which parameters are trained.
      variables: {"params": ..., "batch_stats": ...}; abstract arrays do.

    Returns:
      True: all layers. False: none; `models.apply` then returns no statistics.
    """
    statistics, parameters = (_by_layer(variables[key]) for key in ("batch_stats", "params"))
    chosen = {
        layer
        for layer, paths in statistics.items()
        if any(_matches(phase, path) for path in parameters.get(layer, paths))
    }
    if phase.batch_norm == "frozen" or not chosen:
        return False
    return True if len(chosen) == len(statistics) else Layers(frozenset(chosen))


def _by_layer(tree: Tree) -> dict[str, list[str]]:
    """The paths of each layer's arrays."""
    layers: dict[str, list[str]] = {}
    for path, _ in leaf_paths(tree):
        layers.setdefault(path.rpartition("/")[0], []).append(path)
    return layers


def keep_frozen(chosen: bool | Callable[[str], bool], update: Tree, old: Tree) -> Tree:
    """Statistics: the updated ones of the chosen layers, the old ones, bit for bit, of the others.

    Args:
      chosen: from `by_batch`.
      update: like `old`.
      old: running statistics.
    """
    if not callable(chosen):
        return update if chosen else old
    both = zip(leaf_paths(old), jax.tree.leaves(update), strict=True)
    leaves = [new if chosen(path.rpartition("/")[0]) else leaf for (path, leaf), new in both]
    return jax.tree.unflatten(jax.tree.structure(old), leaves)


def _matches(phase: Phase, path: str) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in phase.train)
