"""What is tried for each task: products, or a rule."""

import dataclasses

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from ctl_jax.errors import UserError
from ctl_jax.experiment import searches
from ctl_jax.experiment.config import validate
from ctl_jax.experiment.config.sections import Finetune

DRAWN = [(0.02909, 0.1646), (0.0004921, 0.0243)]


def settings(section, examples=100, task="mnist", seed=0):
    """What is tried for a task."""
    return searches.settings(section, examples, task, seed)


def test_each_rate_is_tried_with_each_batch_size():
    section = Finetune(learning_rates=(0.1, 0.2), batch_size=32, mixup=0.3)
    assert settings(section) == [(0.1, 32, 0.3, 0), (0.2, 32, 0.3, 0)]
    several = dataclasses.replace(section, batch_sizes=(8, 64))
    tried = [(0.1, 8, 0.3, 0), (0.1, 64, 0.3, 0), (0.2, 8, 0.3, 0), (0.2, 64, 0.3, 0)]
    assert settings(several) == tried
    smoothed = dataclasses.replace(section, label_smoothings=(0.0, 0.1), label_smoothing=0.5)
    tried = [(0.1, 32, 0.3, 0), (0.1, 32, 0.3, 0.1), (0.2, 32, 0.3, 0), (0.2, 32, 0.3, 0.1)]
    assert settings(smoothed) == tried


@pytest.mark.parametrize(("examples", "mixup"), [(19_999, 0.0), (20_000, 0.1)])
def test_a_rule_is_one_trial_and_mixes_images_of_large_tasks(examples, mixup):
    section = Finetune(search="rule", batch_size=128, label_smoothing=0.2)
    assert settings(section, examples) == [(0.003 / 4, 128, mixup, 0.2)]


@given(st.integers(1, 64), st.integers(1, 64), st.text(max_size=9), st.integers(0, 2**31 - 1))
def test_the_first_of_many_draws_are_those_of_few(few, more, task, seed):
    drawn = searches.drawn(few + more, task, seed)
    assert searches.drawn(few, task, seed) == drawn[:few]
    rates, smoothings = zip(*drawn, strict=True)
    assert 1e-4 <= min(rates) <= max(rates) <= 1e-1
    assert 0 <= min(smoothings) <= max(smoothings) <= 0.3


def test_draws_are_uniform_and_stay_what_they_are():
    """Log-uniform rates, smoothings that do not depend on them; others by task and by seed."""
    drawn = np.array(searches.drawn(4000, "mnist", 0))
    places = np.log10(drawn[:, 0]) / 3 + 4 / 3, drawn[:, 1] / 0.3
    for place in places:
        assert scipy.stats.kstest(place, "uniform").pvalue > 0.01
    assert abs(np.corrcoef(*places)[0, 1]) < 0.05
    # Ids of trials rest on them.
    assert searches.drawn(2, "mnist", 0) == DRAWN
    others = [searches.drawn(2, *key) for key in (("mnist", 1), ("svhn", 0))]
    assert len({DRAWN[0], others[0][0], others[1][0]}) == 3
    section = Finetune(search="random", trials=2, mixup=0.1)
    assert settings(section) == [(*pair[:1], 32, 0.1, pair[1]) for pair in DRAWN]


@pytest.mark.parametrize(
    ("examples", "size"),
    [(10, 16), (12_799, 16), (12_800, 32), (25_599, 32), (60_000, 128), (10**6, 512)],
)
def test_batches_grow_with_the_task(examples, size):
    """Powers of two below 0.0025 x examples."""
    assert searches.batch_size(Finetune(batch_size=0), examples) == size
    assert settings(Finetune(batch_size=0, learning_rates=(0.1,)), examples)[0][1] == size
    assert searches.batch_size(Finetune(batch_size=24), examples) == 24


@pytest.mark.parametrize(
    ("search", "key", "value"),
    [
        ("rule", "batch_sizes", (8, 16)),
        ("rule", "mixup", 0.1),
        ("rule", "label_smoothings", (0.1,)),
        ("random", "batch_sizes", (8,)),
        ("random", "label_smoothing", 0.1),
    ],
)
def test_what_a_search_chooses_is_not_given(config, search, key, value):
    config.finetune.search = search
    config.finetune[key] = value
    with pytest.raises(
        UserError, match=rf"finetune\.{key}=.*: expected .* where .*='{search}' choo"
    ):
        validate(config)


def test_batch_sizes_are_part_of_trials_and_their_names_in_ids(config, make_plan):
    """Ids of the batch size that was the only one before stay."""
    config.stream.variant, config.methods = "digits", ("dense",)
    plan = make_plan(config)
    before = [plan.trial(point).id for point in plan.points()]
    config.finetune.batch_sizes = (8, 4)
    plan = make_plan(config)
    trials = [plan.trial(point) for point in plan.points()]
    assert [trial.id for trial in trials if trial.id in before] == before
    assert [trial.params["finetune"]["batch_size"] for trial in trials] == [8, 4] * 4
    assert len({trial.id for trial in trials}) == 8
    config.finetune.search, config.finetune.batch_sizes = "rule", ()
    plan = make_plan(config)
    assert [point.learning_rate for point in plan.points()] == [0.003 * 8 / 512] * 2


def test_what_is_not_smoothed_or_warmed_up_by_epochs_keeps_its_id(config, make_plan):
    config.stream.variant, config.methods = "digits", ("dense",)
    config.budgets.num, config.budgets.max_flops = 1, 4e7
    plan = make_plan(config)
    before = [plan.trial(point).id for point in plan.points()]
    config.finetune.label_smoothings = (0.0, 0.1)
    plan = make_plan(config)
    trials = [plan.trial(point) for point in plan.points()]
    assert [trial.id for trial in trials][::2] == before
    assert [trial.params["finetune"].get("label_smoothing") for trial in trials] == [None, 0.1] * 2
    config.finetune.label_smoothings, config.finetune.warmup_epochs = (), 0.2
    plan = make_plan(config)
    settings = plan.trial(plan.points()[0]).params["finetune"]
    assert settings["warmup_epochs"] == 0.2
    assert "warmup_fraction" not in settings


def test_batches_by_the_tasks_size_are_those_of_its_trials(config, make_plan):
    """Also where no step is made, whose speed may be measured."""
    config.stream.variant, config.methods = "digits", ("dense", "probe")
    config.finetune.batch_size, config.finetune.learning_rates = 0, (0.1,)
    config.budgets.min_flops, config.budgets.max_flops = 1e9, 2e9
    plan = make_plan(config)
    sizes = {plan.trial(point).params["finetune"]["batch_size"] for point in plan.points()}
    assert sizes == {16}
    task, step = plan.tasks[0], plan.cost(plan.methods["dense"], 10, 16).step
    assert plan.epoch_flops(task) == round(task.examples["train"] / 16 * step)
