"""Costs, budgets and trial ids."""

import functools
import io

import jax
import jax.numpy as jnp
import pytest
import rich.console

from ctl_jax import compute, data, finetune, models
from ctl_jax.experiment import parse_method, trials
from ctl_jax.experiment.config import validate
from ctl_jax.experiment.costs import cost_by_classes
from ctl_jax.experiment.networks import (
    abstract_variables,
    make_module,
    make_network,
    trace_groups,
)
from ctl_jax.experiment.progress import Progress
from ctl_jax.experiment.records import pruning_notes
from ctl_jax.experiment.trials import TaskInfo, budgets, make_trials
from ctl_jax.finetune import Hyper

CLASSES = 37


@pytest.fixture
def module(config):
    return make_module(validate(config))


@pytest.mark.parametrize("method", ["dense", "filters@0.5", "channels@0.3", "linear_probe"])
def test_cost_of_any_number_of_classes_is_what_counting_it_gives(config, module, method):
    config = validate(config)
    abstract = abstract_variables(config, module)
    groups = trace_groups(config, module, abstract)
    network = make_network(config, groups, parse_method(method), abstract)
    cost = cost_by_classes(module, network.recipe, network.variables, batch_size=8, image_size=16)(
        CLASSES
    )
    headed = jax.eval_shape(functools.partial(models.with_head, num_outputs=CLASSES), network[2])
    state = jax.eval_shape(functools.partial(finetune.init_state, network.recipe, seed=0), headed)
    images = jax.ShapeDtypeStruct((8, 16, 16, 3), jnp.uint8)
    labels = jax.ShapeDtypeStruct((8,), jnp.int32)
    step = functools.partial(finetune.train_step, module, network.recipe)
    assert cost.step == compute.flops(step, state, images, labels, Hyper(0.1, 9, 1, CLASSES))
    image = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    forward = functools.partial(models.apply, module)
    assert cost.forward == compute.flops(forward, headed, image)
    assert cost.params == models.count_params(headed)


def test_pruning_notes_say_what_was_left_whole(config, module):
    config = validate(config)
    abstract = abstract_variables(config, module)
    groups = trace_groups(config, module, abstract)
    notes = {
        name: pruning_notes(groups, make_network(config, groups, parse_method(name), abstract).keep)
        for name in ("filters@0.5", "filters@0.99", "channels@0.5")
    }
    assert any("residual addition" in note for note in notes["filters@0.5"])
    assert notes["channels@0.5"] == []
    assert any("would empty group" in note for note in notes["filters@0.99"])


def test_budgets_are_log_spaced(config):
    config.budgets.update({"min_flops": 1e9, "max_flops": 1e12, "num": 4})
    assert budgets(validate(config)) == (10**9, 10**10, 10**11, 10**12)


def _trials(config, weights_id="w", fingerprint="f", **cost):
    spec = data.stream("digits")[0]
    examples = {"train": 100, "dev": 10, "dev_test": 10, "test": 10}
    task = TaskInfo(spec, 10, examples, fingerprint)
    config = validate(config)
    methods = [parse_method(name) for name in config.methods]
    costs = {m.name: lambda n: _Cost for m in methods}
    return make_trials(config, [task], methods, costs, weights_id)


class _Cost:
    step, forward, params = 10**7, 10**5, 10**4


def test_ids_are_the_same_again_and_differ_between_trials(config):
    one, two = _trials(config), _trials(config)
    assert [t.id for t in one] == [t.id for t in two]
    assert len({t.id for t in one}) == len(one) == 12


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("finetune.momentum", 0.8),
        ("finetune.crop_area", (0.5, 1.0)),
        ("pruning.criterion", "l1"),
        ("model.width", 16),
        ("data.image_size", 24),
        ("finetune.evaluate_every", 8),
        ("finetune.compute_dtype", "bfloat16"),
    ],
)
def test_ids_change_with_what_the_numbers_depend_on(config, key, value):
    before = {t.id: t.method.scope for t in _trials(config)}
    config.update_from_flattened_dict({key: value})
    after = {t.id for t in _trials(config)}
    # How a network is pruned is nothing to a method that does not prune.
    expected = {i for i, scope in before.items() if key.startswith("pruning") and scope is None}
    assert before.keys() & after == expected


def test_ids_change_with_weights_and_data_where_they_are_used(config):
    before = {t.id: t.method.pretrained for t in _trials(config)}
    other = {t.id for t in _trials(config, weights_id="v")}
    assert before.keys() & other == {i for i, pretrained in before.items() if not pretrained}
    assert not before.keys() & {t.id for t in _trials(config, fingerprint="g")}


def test_ids_do_not_change_with_the_other_trials(config):
    before = {t.id for t in _trials(config)}
    config.methods = ("dense",)
    config.finetune.learning_rates = (0.2, 0.7)
    after = {t.id for t in _trials(config)}
    assert len(before & after) == 2


def test_ids_do_not_change_with_what_changes_no_number(config):
    before = [t.id for t in _trials(config)]
    config.checkpoint.every_s = 1.0
    config.finetune.compute_dtype = "float32"
    assert [t.id for t in _trials(config)] == before
    config.finetune.evaluate_every = 4
    evaluated = {t.id for t in _trials(config)}
    config.finetune.report = "best"
    assert not evaluated & {t.id for t in _trials(config)}


def test_keys_that_came_later_are_no_part_of_ids_where_they_change_nothing(config, monkeypatch):
    """What was done before there were such keys stays done."""
    contents = []
    monkeypatch.setattr(trials, "content_id", lambda content: contents.append(content) or "id")
    _trials(config)
    for content in contents:
        later = {"evaluate_every", "report", "compute_dtype"}
        assert content["finetune"].keys() == {*config.finetune} - {"learning_rates"} - later
        assert "checkpoint" not in content


def test_evaluations_on_the_way_are_in_the_plan(config):
    config.finetune.evaluate_every = 4
    for trial in _trials(config):
        assert trial.steps in (4, 12)
        # After 4 and 8 of 12 updates; after the last there is one anyway.
        evaluations = {4: 0, 12: 2}[trial.steps]
        assert trial.evaluations == evaluations
        assert trial.validate_flops == 10**5 * (10 * (evaluations + 1) + 10)


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_is_lines_elsewhere_and_bars_on_a_terminal(terminal):
    console = rich.console.Console(file=io.StringIO(), force_terminal=terminal, width=100)
    with Progress(console, total_flops=10) as progress:
        with progress.stage("digits, dense", steps=4):
            progress.step(2)
        progress.advance(5, "[1/2] done")
        progress.advance(5)
    printed = console.file.getvalue()
    assert "[1/2] done" in printed
    assert ("\x1b[" in printed) == terminal
    if not terminal:
        assert printed == "[1/2] done\n"
