"""Learning curves that `meta.py` collects, and what `auto` would have done on them.

A file of curves has a line of JSON for each head that was fitted: `network`, `network_flops` (of a
forward pass of the whole network), what is known of the task (`task`, `native_side` in pixels,
`classes`, `multi_label`), the candidate (see `auto.candidates`), `solver`, `images` that the head
was fitted on, and its scores: `entropy` (see `auto.expectation`) of images left out of the fit,
`accuracy` (mAP of several labels) of `test_images` others.
"""

import json
import math
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ctl_jax import files
from ctl_jax.errors import UserError
from ctl_jax.experiment.auto import policy
from ctl_jax.experiment.auto.candidates import Candidate
from ctl_jax.experiment.auto.expectation import (
    ACCURACY,
    ENTROPY,
    About,
    Prior,
    Recipe,
    Seen,
    logit,
)

# FLOPs of a forward pass by which budgets of several networks are made comparable: of a ResNet-50
# up to its fourth stage, 64 pixels.
FORWARD = 510_001_152
# The unit of `About.native`, in pixels.
SIDE = 64
# Images by which a cut is corrected, at most a tenth of the budget; see `experiment.plan`.
_CORRECTED_BY, _SHARE = (256, 64, 32, 16), 10
# Recipes of a random search, and how often it is repeated.
_DRAWN, _REPEATED = 4, 200


class Curve(NamedTuple):
    """Scores of a recipe on a task.

    Attributes:
      images: that its heads were fitted on, increasing.
      entropies: their scores ENTROPY.
      logits: their scores ACCURACY.
    """

    images: Sequence[int]
    entropies: Sequence[float]
    logits: Sequence[float]

    def at(self, images: int) -> tuple[float, float]:
        """Both scores at some number of images: straight over its logarithm between two heads, and
        below the first; beyond the last as there.
        """
        where, known = np.log(images), np.log(self.images)
        found = []
        for scores in (self.entropies, self.logits):
            value = float(np.interp(where, known, scores))
            if where < known[0] and len(known) > 1:
                slope = (scores[1] - scores[0]) / (known[1] - known[0])
                value += slope * float(where - known[0])
            found.append(value)
        return found[0], found[1]


class Task(NamedTuple):
    """A network's curves on a task.

    Attributes:
      network: its name.
      network_flops: of a forward pass of the whole network.
      name: of the task.
      about: what is known of it.
      multi_label: whether an image may be of several classes.
      candidates: by name.
      curves: by recipe.
    """

    network: str
    network_flops: int
    name: str
    about: About
    multi_label: bool
    candidates: Mapping[str, Candidate]
    curves: Mapping[Recipe, Curve]

    @property
    def examples(self) -> int:
        """Training images, as far as curves go."""
        return max(curve.images[-1] for curve in self.curves.values())

    def at(self, recipe: Recipe, images: int) -> tuple[float, float]:
        """Both scores of a recipe; where only a linear head was measured, that one's."""
        there = recipe if recipe in self.curves else recipe._replace(kernel=False)
        return self.curves[there].at(images)


class Chosen(NamedTuple):
    """What `auto` comes to.

    Attributes:
      accuracy: of the head that it takes.
      recipe: what that is fitted on.
      looks: how many there were.
    """

    accuracy: float
    recipe: Recipe
    looks: int


def lines(path: files.Path) -> list[dict[str, Any]]:
    """The lines of a file of curves.

    Raises:
      UserError: it is not such a file.
    """
    try:
        return [json.loads(line) for line in files.read_text(path).splitlines()]
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; expected one that `meta.py collect` wrote"
        ) from None
    except ValueError as error:
        raise UserError(f"{path}: expected lines of JSON, got {error}") from None


def tasks(found: Iterable[Mapping[str, Any]]) -> list[Task]:
    """The curves of some lines, by network and task; of equal heads the last one counts."""
    of_tasks: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for line in found:
        of_tasks.setdefault((line["network"], line["task"]), []).append(line)
    return [_task(each) for each in of_tasks.values()]


def _task(found: Sequence[Mapping[str, Any]]) -> Task:
    candidates, scores = {}, dict[Recipe, dict[int, tuple[float, float]]]()
    for line in found:
        recipe = Recipe(**line["recipe"])
        costs = (line[name] for name in ("image_flops", "features", "fixed_flops"))
        candidates[line["method"]] = Candidate(line["method"], recipe, *costs)
        recipe = recipe._replace(kernel=line["solver"] == policy.SOLVERS[True])
        both = line["entropy"], logit(line["accuracy"], line["test_images"])
        scores.setdefault(recipe, {})[line["images"]] = both
    curves = {}
    for recipe, of_recipe in scores.items():
        images = sorted(of_recipe)
        curves[recipe] = Curve(images, *zip(*(of_recipe[n] for n in images), strict=True))
    about = About(line["classes"], line["native_side"] / SIDE)
    named = line["network"], line["network_flops"], line["task"]
    return Task(*named, about, line["multi_label"], candidates, curves)


def seen(task: Task) -> list[Seen]:
    """All scores that a prior is learnt from: those that a look may have, and accuracies."""
    found = []
    for recipe, curve in task.curves.items():
        for images, entropy, accuracy in zip(*curve, strict=True):
            found.append(Seen(recipe, images, ACCURACY, accuracy))
            if policy.parts(images, task.about.classes):
                found.append(Seen(recipe, images, ENTROPY, entropy))
    return found


def setting(task: Task, budget_flops: int) -> policy.Setting:
    """What `auto` knows of a task."""
    candidates = {
        name: candidate._replace(
            fixed_flops=_correction(candidate.fixed_flops, budget_flops),
            # Which of its features they are does not matter here.
            inside=dict.fromkeys(_inside(candidate, task), (0, 0)),
        )
        for name, candidate in task.candidates.items()
    }
    return policy.Setting(
        budget_flops,
        task.examples,
        task.about,
        task.multi_label,
        # Curves are of heads: no budget pays for training the network.
        epoch_flops=budget_flops,
        candidates=candidates,
    )


def _inside(candidate: Candidate, task: Task) -> list[str]:
    """The candidates that are a network's first stages alone."""
    size, depth, cut, _ = candidate.recipe
    return [
        name
        for name, (_, recipe, *_) in task.candidates.items()
        if (recipe.size, recipe.cut) == (size, cut) and recipe.depth < depth
    ]


def _correction(flops: int, budget_flops: int) -> int:
    """What correcting a cut takes, given what it takes with the most images."""
    costs = [flops * images // _CORRECTED_BY[0] for images in _CORRECTED_BY]
    return next((cost for cost in costs if _SHARE * cost <= budget_flops), costs[-1])


def outcomes(task: Task, budget_flops: int) -> dict[Recipe, float]:
    """The accuracy that each recipe alone comes to, of those that a budget pays for."""
    known, found = setting(task, budget_flops), {}
    for candidate in known.candidates.values():
        for kernel in policy.SOLVERS:
            recipe = candidate.recipe._replace(kernel=kernel)
            images = policy.affordable(known, candidate, kernel, budget_flops, 0)
            if images >= 2 and recipe in task.curves:
                found[recipe] = _accuracy(task, recipe, images)
    return found


def _accuracy(task: Task, recipe: Recipe, images: int) -> float:
    _, logit = task.at(recipe, images)
    return 1 / (1 + math.exp(-logit))


def auto(prior: Prior, task: Task, budget_flops: int) -> Chosen:
    """What `auto` comes to: its policy, with measured scores as what it sees.

    Raises:
      UserError: the budget pays for no two images.
    """
    known, looks = setting(task, budget_flops), list[policy.Look]()
    while True:
        decision = policy.decide(prior, known, looks)
        if decision.look is None:
            break
        looks.append(_look(task, known, *decision.look))
    heads_fitted = []
    for answer in decision.answers:
        recipe = known.candidates[answer.method].recipe
        recipe = recipe._replace(kernel=answer.solver == policy.SOLVERS[True])
        entropy, _ = task.at(recipe, answer.images)
        heads_fitted.append((entropy, _accuracy(task, recipe, answer.images), recipe))
    if not heads_fitted:
        raise UserError(f"{budget_flops:,} FLOPs: expected enough for two images of {task.name!r}")
    _, accuracy, recipe = max(heads_fitted)
    return Chosen(accuracy, recipe, len(looks))


def random_search(task: Task, budget_flops: int) -> float:
    """The mean accuracy of the best of some recipes that are drawn, which share the budget evenly.

    The best is the one whose head does best on images that are left out of its fit.
    """
    known = setting(task, budget_flops // _DRAWN)
    there = []
    for candidate in known.candidates.values():
        for kernel in policy.SOLVERS:
            recipe = candidate.recipe._replace(kernel=kernel)
            images = policy.affordable(known, candidate, kernel, known.budget_flops, 0)
            if images >= 2 and recipe in task.curves:
                there.append((task.at(recipe, images)[0], _accuracy(task, recipe, images)))
    random = np.random.default_rng(0)
    drawn = (random.permutation(len(there))[:_DRAWN] for _ in range(_REPEATED))
    return float(np.mean([max(there[n] for n in some)[1] for some in drawn]))


def _look(task: Task, known: policy.Setting, method: str, images: int) -> policy.Look:
    candidate, scores = known.candidates[method], []
    for name, count in policy.fits(candidate, images, task.about.classes):
        if (curve := task.curves.get(known.candidates[name].recipe)) is not None:
            scores.append((name, count, curve.at(count)[0]))
    return policy.Look(method, images, scores, policy.fit_flops(known, candidate, images))


def single(found: Sequence[Mapping[Recipe, float]], there: Container[Recipe]) -> Recipe:
    """The recipe that is best by the mean, of those that all tasks have, and that are `there`."""
    of_all = sorted(set.intersection(*map(set, found)))
    return max(
        (recipe for recipe in of_all if recipe in there),
        key=lambda recipe: sum(each[recipe] for each in found),
    )


class Result(NamedTuple):
    """Accuracies on a task with a budget.

    Attributes:
      network, task: names.
      hindsight: of the recipe that was best on this task: too high by luck, the more recipes.
      best_single: of the recipe that was best for all tasks of the network.
      single: of the one that was best for the others.
      auto: of what `auto` takes.
      random: of a random search.
      recipe: of `auto`.
      looks: how many there were before.
    """

    network: str
    task: str
    hindsight: float
    best_single: float
    single: float
    auto: float
    random: float
    recipe: Recipe
    looks: int


def crossvalidate(
    tasks: Sequence[Task], teraflops: float, priors: Mapping[tuple[str, str], Prior]
) -> list[Result]:
    """What comes of a budget on each task.

    Args:
      tasks: two of a network at least.
      teraflops: the budget, of a network whose forward pass takes `FORWARD`.
      priors: for each network and task; learnt from others.
    """
    found = []
    by_network: dict[str, list[Task]] = {}
    for task in tasks:
        by_network.setdefault(task.network, []).append(task)
    for of_network in by_network.values():
        budgets = [int(teraflops * 1e12 * task.network_flops / FORWARD) for task in of_network]
        every = [outcomes(task, budget) for task, budget in zip(of_network, budgets, strict=True)]
        best = single(every, every[0])
        for n, (task, budget) in enumerate(zip(of_network, budgets, strict=True)):
            chosen = auto(priors[task.network, task.name], task, budget)
            other = single([*every[:n], *every[n + 1 :]], every[n])
            values = max(every[n].values()), every[n][best], every[n][other]
            random = random_search(task, budget)
            named = task.network, task.name
            found.append(Result(*named, *values, chosen.accuracy, random, *chosen[1:]))
    return found
