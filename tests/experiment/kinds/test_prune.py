"""Cuts as steps: what stays, and that it is the same again."""

import chex
import numpy as np
import pytest

from ctl_jax import models, pruning
from ctl_jax.compute import Ledger
from ctl_jax.experiment.kinds import prune
from ctl_jax.experiment.steps import Step
from ctl_jax.experiment.store import Store
from ctl_jax.experiment.workspace import Workspace

L2 = {"criterion": "l2", "round_to": 1}


@pytest.fixture
def cut(config, make_plan, tmp_path):
    """Runs the step of a cut; gives the step, its place and its output, which is stored."""

    def cut(name, **settings):
        config.methods = (name,)
        config.pruning.update(settings)
        plan = make_plan(config)
        plan.workspace.store = Store(tmp_path, {})
        (method,) = plan.methods.values()
        step = plan.start(method)
        output = prune.run(step, plan.workspace, None)
        plan.workspace.store.create()
        plan.workspace.store.save(step.id, output.records)
        return step, plan.workspace, output

    return cut


@pytest.mark.parametrize("name", ["filters@0.5", "channels@0.3", "all@0.25"])
def test_the_cut_network_is_made_again_from_the_record(cut, name):
    step, workspace, output = cut(name)
    assert output.model is None
    (record,) = output.records
    assert (record.id, record.cut, record.groups) == (step.id, name, len(workspace.groups))
    keep = pruning.Keep.from_json(record.keep)
    assert record.cut_groups == sum(len(keep[each]) < keep.sizes[each] for each in keep) > 0
    variables = workspace.variables(step)
    chex.assert_trees_all_equal(variables, pruning.prune(workspace.given, workspace.groups, keep))
    chex.assert_trees_all_equal_shapes_and_dtypes(variables, workspace.shapes(step))
    image = np.ones((1, 16, 16, 3), np.float32)
    assert models.apply(workspace.module, variables, image).shape == (1, 1)


def test_the_channels_with_the_highest_scores_stay(cut):
    _, workspace, output = cut("filters@0.5", criterion="l1")
    keep = pruning.Keep.from_json(output.records[-1].keep)
    for name, scores in pruning.score(workspace.groups, workspace.given, criterion="l1").items():
        kept = keep[name]
        if len(kept) < len(scores):
            others = np.delete(np.asarray(scores), kept)
            assert np.asarray(scores)[list(kept)].min() >= others.max()


def test_how_many_channels_stay_is_known_without_weights(cut):
    step, workspace, output = cut("channels@0.3")
    keep = pruning.Keep.from_json(output.records[-1].keep)
    planned = prune.planned(step, workspace)
    assert {name: len(kept) for name, kept in planned.items()} == {
        name: len(kept) for name, kept in keep.items()
    }
    assert prune.flops(step, workspace) == 0


def test_a_cut_is_of_its_input(cut):
    step, workspace, _ = cut("filters@0.5")
    seen = []

    class Place(Workspace):
        def local_variables(self, step):
            seen.append(step)
            return workspace.given

    other = Place(workspace.config, workspace.loader, workspace.store)
    source = Step("pretrain", {})
    inputs = type(step)(step.kind, step.params, {"weights": source})
    workspace.store.save(inputs.id, workspace.store.load(step.id))
    chex.assert_trees_all_equal_structs(prune.restore(inputs, other), workspace.variables(step))
    assert seen == [source]


def test_notes_say_what_was_left_whole(config, make_plan):
    config.methods = ("filters@0.5", "filters@0.99", "channels@0.5")
    plan = make_plan(config)
    notes = {
        name: prune.notes(plan.workspace.groups, prune.planned(plan.start(method), plan.workspace))
        for name, method in plan.methods.items()
    }
    assert any("residual addition" in note for note in notes["filters@0.5"])
    assert notes["channels@0.5"] == []
    assert any("would empty group" in note for note in notes["filters@0.99"])


@pytest.fixture
def cut_of_task(config, make_plan, tmp_path):
    """As `cut`, of a method whose cut may look at a task; `task` is its first one."""

    def cut_of_task(name):
        config.methods = (name,)
        plan = make_plan(config)
        plan.workspace.store = Store(tmp_path, {})
        plan.workspace.store.create()
        (method,) = plan.methods.values()
        step = plan.start(method, plan.tasks[0], seed=1)
        output = prune.run(step, plan.workspace, None)
        plan.workspace.store.save(step.id, output.records)
        return step, plan.workspace, output.records[-1]

    return cut_of_task


@pytest.mark.parametrize("criterion", ["taylor", "activation"])
def test_criteria_that_look_at_the_task_are_charged(cut_of_task, criterion):
    step, workspace, record = cut_of_task(f"filters@0.5:{criterion}")
    assert record.task == step.params["task"]["name"] == "digits"
    assert record.cut == f"filters@0.5:{criterion}"
    forward = 32 * workspace.forward(None, 0, 16)
    # Gradients: features for the head, then forward and backward; the head is counted with them.
    least, most = {"taylor": (3, 4), "activation": (1, 1.01)}[criterion]
    assert least * forward <= record.flops <= most * forward
    assert record.flops == prune.flops(step, workspace)
    assert prune.charge(step, workspace, None) == Ledger(prune=record.flops)
    by_weights = prune.make(prune.Cut("filters", 0.5), L2, {"weights": "x"}, None)
    scores = pruning.score(workspace.groups, workspace.given, criterion="l2")
    others = prune._select(by_weights, workspace, scores)
    keep = prune.kept(step, workspace)
    assert any((keep[name] != others[name]).any() for name in keep)


@pytest.mark.parametrize("allocation", ["global", "isomorphic"])
def test_widths_of_groups_that_are_ranked_together_are_those_of_the_record(cut_of_task, allocation):
    step, workspace, record = cut_of_task(f"channels@0.5:{allocation}")
    assert (record.cut, record.flops, record.task) == (f"channels@0.5:{allocation}", 0, None)
    keep = pruning.Keep.from_json(record.keep)
    assert prune.planned(step, workspace) == keep
    shares = {len(kept) / keep.sizes[name] for name, kept in keep.items()}
    assert len(shares) > 1
    assert min(shares) >= 0.1
    chex.assert_trees_all_equal_shapes_and_dtypes(workspace.variables(step), workspace.shapes(step))


def test_a_drawn_cut_is_that_of_its_seed(cut_of_task):
    step, workspace, _ = cut_of_task("filters@0.5:random")
    assert step.params["seed"] == 1
    scores = pruning.score(workspace.groups, workspace.given, "random", seed=1)
    assert prune.kept(step, workspace) == prune._select(step, workspace, scores)


def test_without_weights_a_cut_tells_widths_alone(cut_of_task):
    step, workspace, record = cut_of_task("scratch:filters@0.5")
    assert pruning.Keep.from_json(record.keep) == prune.planned(step, workspace)


def test_ids_are_what_they_were(cut):
    """Of a cut that weights alone decide on: nothing new is among its parameters."""
    step, _, _ = cut("filters@0.5")
    names = {"scope", "ratio", "criterion", "round_to", "image_size", "model", "weights"}
    assert step.params.keys() == names
