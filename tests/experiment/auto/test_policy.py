"""What `auto` does next, by made-up beliefs, costs and scores."""

import functools
import itertools
import math

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from ctl_jax import heads
from ctl_jax.experiment.auto import expectation, policy
from ctl_jax.experiment.auto.candidates import Candidate
from ctl_jax.experiment.auto.expectation import About, Prior, Recipe
from ctl_jax.experiment.auto.policy import Look, Setting

ABOUT = About(10, 1.0)
SIZES, DEPTHS, CUTS = (0.5, 1.0, 2.0), (0.25, 0.55, 1.0), (0.0, 0.5)
# Places in what `expectation.describe` gives.
ALWAYS, SIZE, KERNEL, MANY = 0, 1, 10, 12


@functools.cache
def prior(spread: float = 0.02, **means: float) -> Prior:
    """Of accuracies and entropies alike.

    Args:
      spread: variance of each coefficient between tasks.
      means: of coefficients, by name.
    """
    own = expectation.describe(Recipe(1.0, 1.0), 200, ABOUT)
    one = np.zeros(len(own))
    places = {"always": ALWAYS, "size": SIZE, "kernel": KERNEL, "many": MANY}
    for name, value in {"always": 1.0, "many": 0.8, **means}.items():
        one[places[name]] = value
    # What is seen of entropies tells of accuracies.
    covariance = spread * np.kron([[1.0, 0.8], [0.8, 1.0]], np.eye(len(own)))
    common = 2 * len(expectation._near(Recipe(1.0, 1.0), 200))
    return Prior(
        mean=np.tile(one, 2),
        covariance=covariance,
        common=np.zeros(common),
        recipe=np.array([0.001, 0.001]),
        noise=np.array([0.001, 0.001]),
        sampling=np.array([0.1, 0.1]),
    )


def a_setting(*candidates: Candidate, **changes) -> Setting:
    found = {each.method: each for each in candidates}
    return Setting(10**9, 1000, ABOUT, False, 10**12, found)._replace(**changes)


def a_candidate(method: str, recipe: Recipe, image_flops: int, features: int = 30) -> Candidate:
    return Candidate(method, recipe, image_flops, features)


SMALL = a_candidate("dense@32px", Recipe(0.5, 1.0), 10**6)
LARGE = a_candidate("dense", Recipe(1.0, 1.0), 4 * 10**6)


@st.composite
def settings(draw) -> Setting:
    """Any costs, also those that no network has."""
    recipes = st.tuples(*map(st.sampled_from, (SIZES, DEPTHS, CUTS)))
    candidates = [
        Candidate(
            f"network{number}",
            Recipe(*recipe),
            image_flops=draw(st.integers(4, 9).map(lambda n: 10**n)),
            features=draw(st.sampled_from([1, 30, 300, 3000])),
            fixed_flops=draw(st.sampled_from([0, 0, 10**6, 10**9])),
        )
        for number, recipe in enumerate(draw(st.lists(recipes, min_size=1, max_size=6)))
    ]
    setting = Setting(
        budget_flops=0,
        examples=draw(st.sampled_from([1000, 20_000, 2])),
        about=About(draw(st.sampled_from([2, 10, 200])), draw(st.sampled_from([0.5, 1.0, 8.0]))),
        multi_label=draw(st.booleans()),
        epoch_flops=draw(st.integers(1, 10**12)),
        candidates={each.method: each for each in candidates},
    )
    whole = policy.Answer(candidates[0].method, "ridge", setting.examples)
    part = draw(st.floats(-2, 1))
    return setting._replace(budget_flops=int(10**part * cost(setting, [], [whole])))


def looked(setting: Setting, method: str, images: int, scores) -> Look:
    """A look that costs the most that it may."""
    candidate = setting.candidates[method]
    fits = policy.fits(candidate, images, setting.about.classes)
    spent = policy.fit_flops(setting, candidate, images)
    return Look(method, images, [(*fit, next(scores)) for fit in fits], spent)


def to_the_end(setting: Setting, scores, known: Prior):
    """All looks, and the last decision."""
    looks: list[Look] = []
    while (decision := policy.decide(known, setting, looks)).look is not None:
        method, images = decision.look
        # There is something new to see, of images that there are.
        assert all(look.method != method for look in looks)
        assert images < setting.examples
        looks.append(looked(setting, method, images, scores))
        assert looks[-1].scores
        assert policy.spent(setting, looks) <= setting.budget_flops
    return looks, decision


def cost(setting: Setting, looks, answers) -> int:
    """Of looks and answers: features of each network once, each fit."""
    images = {}
    for each in [*looks, *answers]:
        images[each.method] = max(each.images, images.get(each.method, 0))
    found = sum(look.fit_flops for look in looks)
    for method, count in images.items():
        candidate = setting.candidates[method]
        found += candidate.fixed_flops + count * candidate.image_flops
    classes, multi_label = setting.about.classes, setting.multi_label
    for answer in answers:
        width = setting.candidates[answer.method].features
        found += heads.flops(answer.solver, answer.images, width, classes, multi_label)
    return found


@hypothesis.given(settings(), st.lists(st.floats(-2, 4), min_size=1, max_size=9))
def test_whatever_is_seen_no_more_is_spent_than_the_budget(setting, scores):
    looks, decision = to_the_end(setting, itertools.cycle(scores), prior(0.2))
    answers = decision.answers
    if not decision.options:
        # It pays for two images of nothing.
        assert not looks
        assert not answers
        assert not decision.trains
        return
    assert len(set(answers)) == len(answers) >= 1
    assert all(2 <= answer.images <= setting.examples for answer in answers)
    # Further heads only once all images are used.
    assert len(answers) == 1 or {answer.images for answer in answers} == {setting.examples}
    spent = cost(setting, looks, answers)
    assert spent <= setting.budget_flops
    first = cost(setting, looks, answers[:1])
    if decision.trains:
        left = setting.budget_flops - first
        assert left >= policy.EPOCHS * setting.epoch_flops
        assert spent - first <= 0.2 * setting.budget_flops
    # What an option says it takes is what it does.
    for option in decision.options:
        method, solver = option.candidate.method, policy.SOLVERS[option.kernel]
        alone = cost(setting, looks, [policy.Answer(method, solver, option.images)])
        assert alone - cost(setting, looks, []) == option.flops


@hypothesis.given(settings(), st.floats(-2, 4))
def test_it_decides_the_same_again(setting, score):
    found = [to_the_end(setting, itertools.repeat(score), prior()) for _ in range(2)]
    assert found[0] == found[1]


def test_a_network_whose_two_images_cost_too_much_is_no_option():
    costs = [
        2 * SMALL.image_flops + heads.flops(solver, 2, SMALL.features, 10)
        for solver in policy.SOLVERS.values()
    ]
    decide = lambda budget: policy.decide(  # noqa: E731
        prior(), a_setting(SMALL, LARGE, budget_flops=budget), []
    )
    (option,) = decide(min(costs)).options
    assert (option.candidate, option.images, option.flops) == (SMALL, 2, min(costs))
    assert decide(min(costs) - 1) == policy.Decision(
        (), None, (), False, option.expected._replace(logit=0.0, deviation=0.0)
    )


def test_of_equals_the_cheaper_one():
    """As many images of both; no coefficient tells them apart."""
    alike = a_candidate("dense@1stages", LARGE.recipe, LARGE.image_flops // 2)
    setting = a_setting(LARGE, alike, budget_flops=10**11)
    first, second = policy.decide(prior(), setting, []).options
    assert (first.candidate, second.candidate) == (alike, LARGE)
    assert first.expected == second.expected
    assert not first.kernel
    # By more than rounding: the better one, whatever it costs.
    other = a_candidate("dense@64px", Recipe(2.0, 1.0), 10**5)
    setting = a_setting(LARGE, other, budget_flops=10**11)
    first, second = policy.decide(prior(size=-0.5), setting, []).options
    assert first.candidate == LARGE
    assert first.expected.accuracy > second.expected.accuracy


def following(decision) -> str:
    """The network that is looked at next, or that a head is fitted on."""
    return decision.look[0] if decision.look else decision.answers[0].method


def test_what_was_begun_goes_on_unless_another_is_better_by_enough():
    setting = a_setting(SMALL, LARGE, budget_flops=10**11)
    looks = [Look(SMALL.method, 200, [(SMALL.method, 100, 0.2), (SMALL.method, 200, 0.5)], 0)]
    passed_over = set()
    for size in np.linspace(-0.05, 0.1, 61):
        known = prior(1e-6, size=float(size))
        decision = policy.decide(known, setting, looks)
        by_name = {option.candidate.method: option.expected.accuracy for option in decision.options}
        better = by_name[LARGE.method] - by_name[SMALL.method]
        assert following(decision) == (LARGE if better >= policy.MARGIN else SMALL).method
        if 0.0001 < better < policy.MARGIN:
            passed_over.add(size)
            # With nothing begun it is not.
            assert following(policy.decide(known, setting, [])) == LARGE.method
    assert passed_over
    assert better >= policy.MARGIN


def test_a_look_is_at_a_share_of_the_images_that_can_be_afforded():
    setting = a_setting(SMALL, budget_flops=10**11, examples=10**6)
    decision = policy.decide(prior(), setting, [])
    images = math.ceil(policy.SHARE * decision.options[0].images)
    assert decision.look == (SMALL.method, images)
    assert not decision.answers
    # There is one of each network.
    looks = [looked(setting, SMALL.method, images, itertools.repeat(0.5))]
    decision = policy.decide(prior(), setting, looks)
    assert decision.look is None
    (answer,) = decision.answers
    assert images < answer.images == decision.options[0].images < setting.examples
    # A few images are not worth a look; nor those that many classes need.
    few = setting._replace(budget_flops=10**8)
    assert policy.decide(prior(), few, []).look is None
    assert policy.decide(prior(), few, []).answers
    many = setting._replace(about=About(20_000, 1.0))
    assert policy.decide(prior(), many, []).look is None


def test_a_look_leaves_enough_for_a_head():
    """Where other networks were looked at before, whatever that told."""
    inside = {f"dense@{count}stages": (0, 1) for count in range(20)}
    many = a_candidate("dense@32px", SMALL.recipe, 10**4, 1000)._replace(inside=inside)
    parts = [a_candidate(name, SMALL.recipe, 10**12) for name in inside]
    setting = a_setting(many, LARGE, *parts, budget_flops=10**11, examples=10**6)
    known = prior(1e-6, size=-1.0)
    for left in np.geomspace(10**8, 10**11, 20):
        before = [Look(LARGE.method, 1, [], 10**11 - LARGE.image_flops - int(left))]
        decision = policy.decide(known, setting, before)
        if decision.look is None:
            continue
        looks = [*before, looked(setting, *decision.look, itertools.repeat(0.5))]
        assert policy.spent(setting, looks) <= setting.budget_flops
        assert policy.decide(known, setting, looks).options


@pytest.mark.parametrize(
    ("images", "classes", "expected"),
    [(100, 10, [100, 50]), (100, 30, [100]), (40, 2, [40, 20]), (19, 2, []), (99, 50, [])],
)
def test_heads_of_a_look_have_two_images_of_each_class(images, classes, expected):
    inside = {"dense@1stages": (10, 20), "dense@2stages": (10, 30)}
    candidate = LARGE._replace(inside=inside)
    assert policy.parts(images, classes) == expected
    own = [("dense", count) for count in expected]
    assert policy.fits(LARGE, images, classes) == own
    stages = [(name, images) for name in inside] if expected else []
    assert policy.fits(candidate, images, classes) == own + stages


def test_a_look_tells_of_first_stages_too():
    stages = a_candidate("dense@1stages", LARGE.recipe._replace(depth=0.5), 2 * 10**6)
    whole = LARGE._replace(inside={stages.method: (10, 20)})
    setting = a_setting(whole, stages)
    seen = [
        Look(LARGE.method, 100, [(name, 100, score)], 0)
        for name, score in (("dense", 0.2), ("dense@1stages", 2.0))
    ]
    known = [policy.belief(prior(), setting, looks) for looks in ([], seen[:1], seen[1:])]
    first, of_whole, of_stages = (
        belief.expect(stages.recipe, 100, ABOUT).logit
        - belief.expect(LARGE.recipe, 100, ABOUT).logit
        for belief in known
    )
    assert of_whole < of_stages
    assert first < of_stages


def test_features_of_a_network_are_spent_once():
    fixed = SMALL._replace(fixed_flops=7)
    setting = a_setting(fixed, LARGE)
    looks = [
        Look(SMALL.method, 50, [(SMALL.method, 50, 0.0)], 3),
        Look(LARGE.method, 40, [(LARGE.method, 40, 0.0)], 5),
        Look(SMALL.method, 90, [(SMALL.method, 90, 0.0)], 11),
    ]
    expected = 7 + 90 * SMALL.image_flops + 40 * LARGE.image_flops + 3 + 5 + 11
    assert policy.spent(setting, looks) == expected
    assert policy.spent(setting, []) == 0


def test_further_heads_where_they_may_be_better():
    setting = a_setting(SMALL, LARGE, budget_flops=10**10)
    unsure = policy.decide(
        prior(0.5), setting, [Look(LARGE.method, 999, [(LARGE.method, 999, 0.5)], 0)]
    )
    answers = unsure.answers
    assert len(answers) > 1
    assert {answer.images for answer in answers} == {setting.examples}
    assert len({(answer.method, answer.solver) for answer in answers}) == len(answers)
    # Not where nothing is left for them,
    first = cost(setting, [], answers[:1])
    poor = setting._replace(budget_flops=first)
    alone = policy.decide(prior(0.5), poor, [])
    assert len(alone.answers) <= 1
    # nor where it is known that they are worse.
    certain = prior(1e-9, size=2.0, kernel=-2.0)
    certain = Prior(**{**vars(certain), "recipe": np.full(2, 1e-9)})
    decision = policy.decide(
        certain, setting, [Look(LARGE.method, 999, [(LARGE.method, 999, 0.5)], 0)]
    )
    assert [(each.method, each.solver) for each in decision.answers] == [(LARGE.method, "ridge")]


def test_the_network_is_trained_from_so_many_epochs_on():
    setting = a_setting(SMALL, budget_flops=10**10)
    looks = [Look(SMALL.method, 999, [(SMALL.method, 999, 0.5)], 0)]
    decision = policy.decide(prior(), setting, looks)
    assert decision.options[0].images == setting.examples
    assert not decision.trains
    left = setting.budget_flops - policy.spent(setting, looks) - decision.options[0].flops
    epoch = left // policy.EPOCHS
    assert policy.decide(prior(), setting._replace(epoch_flops=epoch), looks).trains
    assert not policy.decide(prior(), setting._replace(epoch_flops=epoch + 1), looks).trains
    # Not where there are images that no head was fitted on.
    more = setting._replace(epoch_flops=1, examples=10**6)
    assert not policy.decide(prior(), more, looks).trains


@hypothesis.given(st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 1000))
def test_a_large_dev_decides(trained, fitted, epochs):
    hypothesis.assume(abs(trained - fitted) > 0.001)
    assert policy.is_better(trained, fitted, 10**7, epochs) == (trained > fitted)


@hypothesis.given(st.integers(1, 10**6), st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 1000))
def test_what_was_trained_for_longer_is_taken_as_soon(images, trained, fitted, epochs):
    few, many = (policy.is_better(trained, fitted, images, each) for each in (epochs, 2 * epochs))
    assert many >= few


def test_a_tiny_dev_counts_less_than_what_is_expected():
    # One image of 20 is no reason to take what was trained for as long as that never helped,
    assert not policy.is_better(0.85, 0.8, 20, policy.EPOCHS)
    assert policy.is_better(0.85, 0.8, 2000, policy.EPOCHS)
    # nor to leave what was trained for long.
    assert policy.is_better(0.8, 0.8, 20, 100)
    assert policy.is_better(0.8, 0.8, 20, 15)
    assert not policy.is_better(0.7, 0.8, 20, 100)
    # Where all or nothing is right, too.
    assert policy.is_better(1.0, 1.0, 20, 100)
    assert not policy.is_better(1.0, 1.0, 20, 1)
    assert policy.is_better(0.0, 0.0, 20, 100)


def test_ten_times_the_budget_adds_what_its_best_option_is_expected_to():
    setting = a_setting(SMALL, LARGE, budget_flops=2 * 10**7)
    known = prior(size=1.0)
    decision = policy.decide(known, setting, [])
    assert decision.answers
    assert decision.tenfold.logit > 0
    richer = policy.decide(known, setting._replace(budget_flops=2 * 10**8), []).options[0]
    best = decision.options[0]
    apart = known.compare(richer.recipe, richer.images, best.recipe, best.images, ABOUT)
    assert decision.tenfold == apart
