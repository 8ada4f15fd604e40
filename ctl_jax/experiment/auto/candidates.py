"""The candidates of `auto`: parts of the network at sizes of images, and what each costs."""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import jax

from ctl_jax import models
from ctl_jax.errors import UserError
from ctl_jax.experiment.auto.expectation import Recipe
from ctl_jax.experiment.methods import Cut, Method
from ctl_jax.experiment.steps import Step
from ctl_jax.experiment.workspace import Workspace
from ctl_jax.models import depth, taps

# Sides of images, as multiples of `config.data.image_size`.
_SIZES = (0.25, 0.375, 0.5, 0.75, 1.0, 1.5, 2.0)
# Networks whose last map is smaller than the images by so much or more were made for 224 pixels,
# others for 32 (CIFAR's).
_REDUCED, _LARGE, _SMALL = 16, 224, 32
# Sizes beyond which nothing was measured: a smaller share of what the network was made for; and
# more than that, but for small ones, which gain up to so many pixels.
_LEAST_SHARE, _MOST_SMALL = 1 / 8, 64
# Shares of a forward pass that first stages alone take, as near as there are such.
_DEPTHS = (0.25, 0.55)
# Cuts, each at these sizes (multiples as above), of a whole network and of the deepest part.
_CUTS = (Cut("filters", 0.5, lsq=True), Cut("filters", 0.25, lsq=True))
_CUT_SIZES = (0.75, 1.0)
# The unit of `Recipe.size`.
_UNIT = 64 / 224


class Candidate(NamedTuple):
    """A network whose features a head may be fitted on.

    Attributes:
      method: its name, without how the head is fitted: `dense@48px`, `filters@0.5:lsq`.
      recipe: the same as `expectation` has it, of a linear head.
      image_flops: of a forward pass of an image, without a head.
      features: numbers of an image.
      fixed_flops: what is spent before the first image.
      inside: by the names of candidates that are its first stages alone, at the same size with the
        same cut: which of its features are theirs, from and to.
      slowness: where a budget is of time: the time of one of its FLOPs, the whole network's at
        `config.data.image_size` being 1. Small images and narrow layers keep a device less busy.
    """

    method: str
    recipe: Recipe
    image_flops: int
    features: int
    fixed_flops: int = 0
    inside: Mapping[str, tuple[int, int]] = MappingProxyType({})
    slowness: float = 1.0

    def flops(self, images: int, there: int = 0) -> int:
        """Of the features of some images, where those of some of them are there already."""
        return (0 if there else self.fixed_flops) + max(0, images - there) * self.image_flops

    def price(self, images: int, there: int = 0) -> int:
        """What these take of a budget: their FLOPs, or as many as would take their time."""
        return round(self.slowness * self.flops(images, there))

    def to_json(self) -> dict[str, Any]:
        """Plain values, which `from_json` reads."""
        inside = {name: list(columns) for name, columns in self.inside.items()}
        found = {**self._asdict(), "recipe": self.recipe._asdict(), "inside": inside}
        if self.slowness == 1:
            # So that ids of steps are as they were before there was one.
            del found["slowness"]
        return found


def from_json(content: Mapping[str, Any]) -> Candidate:
    """The candidate that `to_json` gave."""
    inside = {name: tuple(columns) for name, columns in content["inside"].items()}
    return Candidate(**{**content, "recipe": Recipe(**content["recipe"]), "inside": inside})


class Costs(Protocol):
    """What is asked of a run's plan."""

    @property
    def workspace(self) -> Workspace: ...
    def start(self, method: Method) -> Step | None: ...


def find(plan: Costs) -> list[Candidate]:
    """The candidates of a run, the same for all of its tasks.

    A network that cannot be shortened, pruned, or run at another size has fewer.
    """
    workspace = plan.workspace
    base, made, there = workspace.config.data.image_size, _made_for(workspace), _sizes(workspace)
    whole = {size: workspace.forward(None, 0, size) for size in there}
    found = {}
    methods = [*_whole(plan, there), *_cuts(plan, there)]
    for method in methods:
        size = method.image_size or base
        start = plan.start(method)
        flops = workspace.forward(start, 0, size)
        # Of a cut network the depth is that of the whole one's stages.
        uncut = plan.start(dataclasses.replace(method, cut=None))
        recipe = Recipe(
            size / made / _UNIT,
            workspace.forward(uncut, 0, size) / whole[size],
            method.cut.ratio if method.cut else 0.0,
        )
        features = workspace.features(start, "taps", size)
        inside = dict(_inside(plan, method, methods))
        found[method.name] = Candidate(method.name, recipe, flops, features, inside=inside)
    return list(found.values())


def _inside(
    plan: Costs, method: Method, others: Sequence[Method]
) -> Iterator[tuple[str, tuple[int, int]]]:
    """The candidates that are a network's first stages alone, and where their features are.

    Behind its last features a network has its taps, in the order of its stages: those of its first
    stages alone are the first ones. Their own last features are means of what their last tap has.
    """
    workspace = plan.workspace
    if len(depth.numbers(workspace.whole["params"])) > taps.MOST_STAGES:
        return
    start, size = plan.start(method), method.image_size or workspace.config.data.image_size
    begin = workspace.features(start, "last", size)
    for other in others:
        if dataclasses.replace(other, stages=method.stages) != method or not other.stages:
            continue
        if method.stages and other.stages >= method.stages:
            continue
        shorter = plan.start(other)
        width = workspace.features(shorter, "taps", size) - workspace.features(
            shorter, "last", size
        )
        if 0 < width <= workspace.features(start, "taps", size) - begin:
            yield other.name, (begin, begin + width)


def _made_for(workspace: Workspace) -> int:
    """The side of the images that a network was made for, in pixels, as far as can be told."""
    size = workspace.config.data.image_size
    reduced = models.reduction(workspace.module, workspace.whole, size)
    return _LARGE if reduced >= _REDUCED or reduced == 1 else _SMALL


def _sizes(workspace: Workspace) -> list[int]:
    """Sides of images that are tried, in pixels; a network of tokens has one alone."""
    base, made = workspace.config.data.image_size, _made_for(workspace)
    found = [base]
    for multiple in _SIZES:
        size = round(base * multiple / 8) * 8
        is_known = max(8, _LEAST_SHARE * made) <= size <= max(made, _MOST_SMALL)
        if size != base and is_known and _runs(workspace, size):
            found.append(size)
    return sorted(found)


def _runs(workspace: Workspace, size: int) -> bool:
    try:
        return workspace.forward(None, 0, size) > 0
    except (UserError, TypeError, ValueError, ZeroDivisionError):
        return False


def _method(plan: Costs, size: int, **options: Any) -> Method:
    base = plan.workspace.config.data.image_size
    return Method(image_size=0 if size == base else size, **options)


def _whole(plan: Costs, there: Sequence[int]) -> Iterator[Method]:
    """Whole networks and their first stages."""
    for size in there:
        for count in _depths(plan):
            yield _method(plan, size, stages=count)


def _depths(plan: Costs) -> list[int]:
    """Numbers of first stages that are tried; 0 is all."""
    workspace, size = plan.workspace, plan.workspace.config.data.image_size

    def share(count: int) -> float:
        start = plan.start(Method(stages=count))
        return workspace.forward(start, 0, size) / workspace.forward(None, 0, size)

    shares = {n: share(n) for n in range(1, len(depth.numbers(workspace.whole["params"])))}
    nearest = (min(shares, key=lambda n: abs(shares[n] - aim)) for aim in _DEPTHS if shares)
    return [*sorted(set(nearest)), 0]


def _has_depthwise(params: Any) -> bool:
    """Whether there are kernels [h, w, 1, C]: of a network that was made to have no spare filters.

    On an EfficientNet-Lite0 no cut is the best choice of any budget (.02 to .09 behind the best
    uncut network, six sets), and what a ResNet's cuts let expect misleads.
    """
    shapes = (leaf.shape for leaf in jax.tree.leaves(params))
    return any(
        len(shape) == 4 and shape[2] == 1 < min(shape[0], shape[1], shape[3]) for shape in shapes
    )


def _cuts(plan: Costs, there: Sequence[int]) -> Iterator[Method]:
    """Pruned ones: whole, and the deepest part."""
    if _has_depthwise(plan.workspace.whole["params"]):
        return
    base, depths = plan.workspace.config.data.image_size, _depths(plan)
    for cut, multiple in itertools.product(_CUTS, _CUT_SIZES):
        size = round(base * multiple / 8) * 8
        if size not in there:
            continue
        for count in dict.fromkeys([*depths[-2:], 0]):
            method = _method(plan, size, stages=count, cut=cut)
            start = plan.start(method)
            # What cannot be cut by filters stays whole, and is no other candidate.
            uncut = plan.start(dataclasses.replace(method, cut=None))
            forward = functools.partial(plan.workspace.forward, num_classes=0, image_size=size)
            if forward(start) < forward(uncut):
                yield method
