"""The policy of `auto`: pure functions of a task's budget and of what was seen so far.

It takes what is expected to be best of all that the rest of the budget pays for, computes features
of a part of the images that this needs, looks at how well heads on them do on images that are left
out of the fit, and goes on, or changes over to what is better by what was seen. Features that are
computed are charged whether they are used at last or not, so a change costs what was computed; no
look is made that is not on the way to what is best so far. Where all images are used and something
is left, it pays for further networks whose expected gain is worth it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ctl_jax import heads
from ctl_jax.experiment.auto.candidates import Candidate
from ctl_jax.experiment.auto.expectation import (
    ENTROPY,
    About,
    Belief,
    Expected,
    Prior,
    Recipe,
    Seen,
)

# The share of the images of a network after which there is a look; the fewest images of a look, and
# of a part of it.
SHARE = 0.1
_LEAST, _LEAST_PART = 40, 20
# The fewest images that a head is fitted on.
FEWEST = 2
# How much of the budget the fit of a look may take.
_MOST_FIT = 0.03
# What is better by less is no reason to change over, nor to compute anything.
MARGIN, WORTH = 0.001, 0.002
# Epochs of training the whole network that the rest of the budget must pay for once heads are
# fitted on all images, so that it is trained, too. Networks that know little, such as small ones,
# gain by a few epochs already; those that know much, by many, if at all.
EPOCHS = 3
# How much of a budget that pays for that may go into further heads.
_MOST_HEADS = 0.2
# What training is expected to add to the accuracy, before any is seen: so much at EPOCHS, so much
# from `_MANY` epochs on, between them in proportion to their logarithm; and the deviation of that.
_MANY, _FEW_ADD, _MANY_ADD, _DEVIATION = 15, -0.05, 0.005, 0.05
# Ways to fit a head, by `Recipe.kernel`.
SOLVERS = {False: "ridge", True: "kernel"}


class Setting(NamedTuple):
    """What `auto` is about.

    Attributes:
      budget_flops: all that may be spent: of a time, the FLOPs that the whole network's forward
        passes make in it.
      examples: training images that there are.
      about: the task.
      multi_label: whether an image may be of several classes.
      epoch_flops: what an epoch of training the whole network takes of the budget.
      candidates: by name.
      fit_slowness: where the budget is of time: the time of a FLOP of fitting heads, as
        `Candidate.slowness`.
    """

    budget_flops: int
    examples: int
    about: About
    multi_label: bool
    epoch_flops: int
    candidates: Mapping[str, Candidate]
    fit_slowness: float = 1.0


class Look(NamedTuple):
    """What was seen of a network.

    Attributes:
      method: a candidate's name.
      images: whose features were computed.
      scores: of heads on some of them, on its features or on those of its first stages alone: the
        candidate's name, the number of images, ENTROPY.
      fit_flops: what fitting these took.
    """

    method: str
    images: int
    scores: Sequence[tuple[str, int, float]]
    fit_flops: int


class Option(NamedTuple):
    """A head that the rest of the budget pays for.

    Attributes:
      candidate: what it is fitted on.
      kernel: whether it is of radial basis functions.
      images: how many.
      expected: its accuracy.
      flops: what it would take: features that are not there yet, and the fit.
    """

    candidate: Candidate
    kernel: bool
    images: int
    expected: Expected
    flops: int

    @property
    def recipe(self) -> Recipe:
        """As `expectation` has it."""
        return self.candidate.recipe._replace(kernel=self.kernel)


class Answer(NamedTuple):
    """Heads of which the one is to be taken that is best on images that are left out of its fit.

    Attributes:
      method: the candidate's name.
      solver: how the head is fitted.
      images: on how many.
    """

    method: str
    solver: str
    images: int


class Decision(NamedTuple):
    """What is next.

    Attributes:
      options: the best of each candidate, best first.
      look: method and number of images of the next look; None where there is none.
      answers: what remains to be done, where there is no further look; the expected one first.
      trains: whether the whole network is trained with what is left after that.
      tenfold: the accuracy that ten times the budget would be expected to add, and its deviation.
    """

    options: Sequence[Option]
    look: tuple[str, int] | None
    answers: Sequence[Answer]
    trains: bool
    tenfold: Expected


def spent(setting: Setting, looks: Sequence[Look]) -> int:
    """What all looks took of the budget: features of each network once, and fits."""
    images = {look.method: look.images for look in sorted(looks, key=lambda look: look.images)}
    features = sum(setting.candidates[name].price(count) for name, count in images.items())
    return features + round(setting.fit_slowness * sum(look.fit_flops for look in looks))


def belief(prior: Prior, setting: Setting, looks: Sequence[Look]) -> Belief:
    """What is expected after some looks."""
    seen = [
        Seen(setting.candidates[method].recipe, images, ENTROPY, score)
        for look in looks
        for method, images, score in look.scores
    ]
    return prior.after(seen, setting.about)


def parts(images: int, classes: int) -> list[int]:
    """Numbers of images, up to some, that tell how good a head is on images left out of its fit."""
    least = max(_LEAST_PART, 2 * classes)
    return [part for part in (images, images // 2) if part >= least]


def fits(candidate: Candidate, images: int, classes: int) -> list[tuple[str, int]]:
    """The heads of a look: on the features of which candidate, and on how many images.

    On all of them and on halves of them, for how much images tell; and, since it costs no image,
    on the first stages alone.
    """
    counts = parts(images, classes)
    inside = [(name, images) for name in candidate.inside] if counts else []
    return [*((candidate.method, count) for count in counts), *inside]


def fit_flops(setting: Setting, candidate: Candidate, images: int) -> int:
    """FLOPs of the heads of a look, at most."""
    heads_fitted = fits(candidate, images, setting.about.classes)
    return sum(_fit(setting, candidate, False, count) for _, count in heads_fitted)


def decide(prior: Prior, setting: Setting, looks: Sequence[Look]) -> Decision:
    """What is to be done next.

    Returns:
      See `Decision`. Without options where the budget does not pay for two images of any candidate.
    """
    left = setting.budget_flops - spent(setting, looks)
    known = belief(prior, setting, looks)
    options = _options(setting, known, looks, left)
    if not options:
        return Decision((), None, (), False, Expected(0.0, 0.0))
    best = _chosen(options, looks)
    look = _next_look(setting, best, looks, left)
    if look is not None:
        return Decision(options, look, (), False, Expected(0.0, 0.0))
    left -= best.flops
    trains = best.images == setting.examples and left >= EPOCHS * setting.epoch_flops
    if trains:
        left = min(left, int(_MOST_HEADS * setting.budget_flops))
    answers = list(_answers(setting, known, best, options, looks, left))
    return Decision(options, None, answers, trains, _tenfold(setting, known, best))


def is_better(trained: float, fitted: float, images: int, epochs: float) -> bool:
    """Whether a trained network is taken instead of the one with a fitted head.

    What was measured on dev counts as much as dev has images; of few, what is expected counts more.

    Args:
      trained: the score of the one on dev.
      fitted: of the other one.
      images: that dev has.
      epochs: how long it was trained.
    """
    part = math.log(max(epochs, EPOCHS) / EPOCHS) / math.log(_MANY / EPOCHS)
    expected = _FEW_ADD + min(1.0, part) * (_MANY_ADD - _FEW_ADD)
    share = (images * fitted + 1) / (images + 2)
    # As if half of what they get wrong were the same images.
    noise = share * (1 - share) / images
    return expected / _DEVIATION**2 + (trained - fitted) / noise > 0


def _options(setting: Setting, known: Belief, looks: Sequence[Look], left: int) -> list[Option]:
    """What is affordable, best first; of equals the cheaper ones."""
    found = []
    for candidate in setting.candidates.values():
        there = _there(looks, candidate)
        of_candidate = []
        for kernel in SOLVERS:
            images = affordable(setting, candidate, kernel, left, there)
            if images >= FEWEST:
                recipe = candidate.recipe._replace(kernel=kernel)
                expected = known.expect(recipe, images, setting.about)
                flops = _cost(setting, candidate, kernel, images, there)
                of_candidate.append(Option(candidate, kernel, images, expected, flops))
        if of_candidate:
            found.append(max(of_candidate, key=_order))
    return sorted(found, key=_order, reverse=True)


def _order(option: Option) -> tuple[float, int, bool, str]:
    flops = option.images * option.candidate.image_flops
    name = option.candidate.method
    return round(option.expected.accuracy, 4), -flops, not option.kernel, name


def _there(looks: Sequence[Look], candidate: Candidate) -> int:
    return max((look.images for look in looks if look.method == candidate.method), default=0)


def least(setting: Setting) -> tuple[int, str]:
    """What the cheapest head takes of a budget, and the candidate that it is fitted on."""
    return min(
        (_cost(setting, candidate, kernel, FEWEST, 0), candidate.method)
        for candidate in setting.candidates.values()
        for kernel in SOLVERS
    )


def affordable(setting: Setting, candidate: Candidate, kernel: bool, left: int, there: int) -> int:
    """On how many images a head can be fitted for some FLOPs, features of some being there."""
    low, high = 0, setting.examples
    while low < high:
        middle = -(-(low + high) // 2)
        if _cost(setting, candidate, kernel, middle, there) <= left:
            low = middle
        else:
            high = middle - 1
    return low


def _cost(setting: Setting, candidate: Candidate, kernel: bool, images: int, there: int) -> int:
    return candidate.price(images, there) + _fit(setting, candidate, kernel, images)


def _fit(setting: Setting, candidate: Candidate, kernel: bool, images: int) -> int:
    classes, multi_label = setting.about.classes, setting.multi_label
    flops = heads.flops(SOLVERS[kernel], images, candidate.features, classes, multi_label)
    return round(setting.fit_slowness * flops)


def _chosen(options: Sequence[Option], looks: Sequence[Look]) -> Option:
    """The best; but what was begun goes on where nothing is better by enough."""
    if looks:
        for option in options:
            if option.candidate.method == looks[-1].method:
                better = options[0].expected.accuracy - option.expected.accuracy
                return option if better < MARGIN else options[0]
    return options[0]


def _next_look(
    setting: Setting, best: Option, looks: Sequence[Look], left: int
) -> tuple[str, int] | None:
    """A look at what is best so far, unless there was one, or it would tell or pay too little."""
    images = math.ceil(SHARE * best.images)
    if _there(looks, best.candidate) or images < _LEAST:
        return None
    if not fits(best.candidate, images, setting.about.classes):
        return None
    cost = fit_flops(setting, best.candidate, images)
    # A head on these images has to be affordable then.
    if cost > min(
        _MOST_FIT * setting.budget_flops,
        left - _cost(setting, best.candidate, False, images, 0),
    ):
        return None
    return best.candidate.method, images


def _answers(
    setting: Setting,
    known: Belief,
    best: Option,
    options: Sequence[Option],
    looks: Sequence[Look],
    left: int,
) -> Iterator[Answer]:
    """The heads that are fitted at last: more than one only where all images are used.

    Args:
      left: what may be spent on others than the best.
    """
    yield Answer(best.candidate.method, SOLVERS[best.kernel], best.images)
    if best.images < setting.examples:
        return
    others = [option for option in options if option.candidate != best.candidate]
    tried = [(best.candidate, best.kernel)]
    for option in [best, *others]:
        for kernel in SOLVERS:
            candidate = option.candidate
            if (candidate, kernel) in tried:
                continue
            if any(candidate == each for each, _ in tried):
                # Its features are there then.
                cost = _fit(setting, candidate, kernel, best.images)
            else:
                cost = _cost(setting, candidate, kernel, best.images, _there(looks, candidate))
            if cost > left:
                continue
            if _gain(setting, known, best, candidate.recipe._replace(kernel=kernel)) < WORTH:
                continue
            left -= cost
            tried.append((candidate, kernel))
            yield Answer(candidate.method, SOLVERS[kernel], best.images)


def _gain(setting: Setting, known: Belief, best: Option, recipe: Recipe) -> float:
    """What trying another recipe on all images is expected to add, if the better one is taken."""
    apart = known.compare(recipe, best.images, best.recipe, best.images, setting.about)
    slope = best.expected.accuracy * (1 - best.expected.accuracy)
    if apart.deviation == 0:
        return slope * max(0.0, apart.logit)
    # The mean of the positive part of a Gaussian.
    ratio = apart.logit / apart.deviation
    density = math.exp(-(ratio**2) / 2) / math.sqrt(2 * math.pi)
    share = (1 + math.erf(ratio / math.sqrt(2))) / 2
    return slope * apart.deviation * (density + ratio * share)


def _tenfold(setting: Setting, known: Belief, best: Option) -> Expected:
    """What ten times the budget would add to the logit of the accuracy."""
    richer = setting._replace(budget_flops=10 * setting.budget_flops)
    option = _options(richer, known, (), richer.budget_flops)[0]
    return known.compare(option.recipe, option.images, best.recipe, best.images, setting.about)
