"""What is tried for each task: products, or a rule."""

import dataclasses

import pytest

from ctl_jax.errors import UserError
from ctl_jax.experiment import searches
from ctl_jax.experiment.config import validate
from ctl_jax.experiment.config.sections import Finetune


def test_each_rate_is_tried_with_each_batch_size():
    section = Finetune(learning_rates=(0.1, 0.2), batch_size=32, mixup=0.3)
    assert searches.settings(section, 100) == [(0.1, 32, 0.3), (0.2, 32, 0.3)]
    several = dataclasses.replace(section, batch_sizes=(8, 64))
    tried = [(0.1, 8, 0.3), (0.1, 64, 0.3), (0.2, 8, 0.3), (0.2, 64, 0.3)]
    assert searches.settings(several, 100) == tried


@pytest.mark.parametrize(("examples", "mixup"), [(19_999, 0.0), (20_000, 0.1)])
def test_a_rule_is_one_trial_and_mixes_images_of_large_tasks(examples, mixup):
    section = Finetune(search="rule", batch_size=128)
    assert searches.settings(section, examples) == [(0.003 / 4, 128, mixup)]


@pytest.mark.parametrize(("key", "value"), [("batch_sizes", (8, 16)), ("mixup", 0.1)])
def test_a_rule_leaves_nothing_to_choose(config, key, value):
    config.finetune.search = "rule"
    config.finetune[key] = value
    with pytest.raises(UserError, match=rf"finetune\.{key}=.*: expected .* where .*='rule' choo"):
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
