"""Descriptions: plain values, without what does nothing, so that ids last."""

import json

import pytest

from ctl_jax.experiment.methods import parse_method


@pytest.mark.parametrize("key", ["mixup", "ema", "label_smoothing", "warmup_epochs"])
def test_settings_hold_what_does_something(config, make_plan, key):
    assert key not in make_plan(config).described.settings
    config.finetune[key] = 0.5
    settings = make_plan(config).described.settings
    assert settings[key] == 0.5
    assert ("warmup_fraction" in settings) == (key != "warmup_epochs")


def test_settings_have_what_was_searched_instead_of_its_range(config, make_plan):
    plan = make_plan(config)
    point = plan.points()[0]
    assert not {"learning_rates", "batch_sizes", "search"} & set(plan.described.settings)
    assert plan.described.settings_of(point)["batch_size"] == point.batch_size
    unsearched = point._replace(batch_size=None)
    assert plan.described.settings_of(unsearched)["batch_size"] == config.finetune.batch_size


@pytest.mark.parametrize("name", ["dense", "dense+head_bn", "dense+probe"])
def test_phases_are_plain_values(config, make_plan, name):
    described, method = make_plan(config).described, parse_method(name)
    phases = described.phases(method)
    assert json.loads(json.dumps(phases)) == phases
    assert len(phases) == len(described.phase_list(method))
    own = described.phases_after_head(method)
    assert own == ([] if name == "dense+probe" else phases)


def test_a_network_has_the_size_of_images_of_its_method(config, make_plan):
    described = make_plan(config).described
    sizes = [described.network(parse_method(name))["image_size"] for name in ("dense", "dense@8px")]
    assert sizes == [config.data.image_size, 8]
