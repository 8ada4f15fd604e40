"""The first stages of a network: what is left of it, what is cut of that, and what it costs."""

import chex
import jax
import numpy as np
import pytest

from ctl_jax import models
from ctl_jax.compute import Ledger
from ctl_jax.errors import UserError
from ctl_jax.experiment.jobs import Job
from ctl_jax.experiment.kinds import finetune, prune, shorten
from ctl_jax.experiment.store import Store


def test_what_is_left_is_as_it_was(config, make_plan, tmp_path):
    config.methods = ("dense@1stages",)
    plan = make_plan(config)
    workspace = plan.workspace
    step = plan.start(plan.methods["dense@1stages"])
    (record,) = shorten.run(step, workspace, Job(step)).records
    whole, left = workspace.variables(None), workspace.variables(step)
    chex.assert_trees_all_equal_shapes_and_dtypes(left, workspace.shapes(step))
    assert record.params == models.count_params(left) < models.count_params(whole)
    assert set(whole["params"]) - set(left["params"]) == {"stage2_block1"}
    for kind in ("params", "batch_stats"):
        for name in left[kind].keys() - {"head"}:
            chex.assert_trees_all_equal(left[kind][name], whole[kind][name])
    assert not np.any(left["params"]["head"]["kernel"])
    assert workspace.charge(step, "digits", done=False) == Ledger()
    assert workspace.flops(step) == 0
    cost = plan.cost(plan.methods["dense@1stages"], 10)
    assert cost.forward < workspace.forward(None, 10, 16)


@pytest.mark.parametrize("name", ["filters@0.5@1stages", "scratch:filters@0.5@1stages"])
def test_a_cut_is_of_what_is_left(config, make_plan, tmp_path, name):
    config.stream.variant, config.methods = "digits", (name,)
    plan = make_plan(config)
    workspace = plan.workspace
    workspace.store = Store(tmp_path, {})
    workspace.store.create()
    trial = plan.trial(plan.points()[0])
    cut = trial.inputs["weights"]
    assert (cut.kind, cut.inputs["weights"].kind) == ("prune", "shorten")
    short = cut.inputs["weights"]
    workspace.store.save(short.id, shorten.run(short, workspace, Job(short)).records)
    output = prune.run(cut, workspace, Job(cut))
    workspace.store.save(cut.id, output.records)
    assert output.records[-1].groups < len(workspace.groups)
    assert output.records[-1].cut_groups > 0
    shapes = workspace.shapes(cut)
    assert shapes["params"]["stage1_block1"]["conv1"]["kernel"].shape[-1] == 4
    assert "stage2_block1" not in shapes["params"]
    # A training, also from random weights, is of this network.
    fewer = jax.tree.map(lambda leaf: leaf.shape, finetune.shapes(trial, workspace))
    (record,) = finetune.run(trial, workspace, Job(trial)).records[-1:]
    assert record.params == sum(map(np.prod, jax.tree.leaves(fewer["params"], is_leaf=_is_shape)))
    assert record.forward_flops < workspace.forward(None, 10, 16)


def _is_shape(leaf):
    return isinstance(leaf, tuple)


def test_there_must_be_more_stages(config, make_plan):
    config.methods = ("dense@2stages",)
    plan = make_plan(config)
    with pytest.raises(
        UserError, match=r"^config\.methods: 'dense@2stages': 2 stages of a network"
    ):
        plan.strategy(plan.workspace.store.finished())
