"""What a cut left is put right by images of the task; made again from the arrays that were kept."""

import functools

import chex
import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from ctl_jax import models, pruning
from ctl_jax.compute import Ledger
from ctl_jax.data import balance
from ctl_jax.experiment.kinds import prune, recalibrate
from ctl_jax.experiment.store import Store
from ctl_jax.finetune import recalibrate as numerics

IMAGES = 20


@pytest.fixture
def done(config, make_plan, tmp_path):
    """Runs a cut and what puts it right; gives the latter, its place and its record."""
    plan = make_plan(config)
    workspace = plan.workspace
    workspace.store = Store(tmp_path, {})
    workspace.store.create()

    def finish(step, output):
        workspace.store.save(step.id, output.records)
        if output.arrays is not None:
            workspace.store.save_arrays(step.id, output.arrays())

    def done(what, image_size=16, name="filters@0.5"):
        (method,) = make_plan_of(name)
        cut = plan.start(method)
        finish(cut, prune.run(cut, workspace, None))
        network = {
            **plan.described.network(method),
            "image_size": image_size,
            "compute_dtype": "float32",
        }
        task = plan.tasks[0].identity
        step = recalibrate.make(task, network, cut, images=IMAGES, seed=0, **what)
        output = recalibrate.run(step, workspace, None)
        finish(step, output)
        return step, workspace, output.records[-1]

    def make_plan_of(name):
        config.methods = (name,)
        return make_plan(config).methods.values()

    return done


def first_images(step, workspace, size=16):
    train = workspace.loader.load(workspace.tasks["digits"].spec, image_size=size).splits["train"]
    return train.images[balance.order(train.labels, 0)[:IMAGES]]


def test_statistics_alone(done):
    step, workspace, record = done({"statistics": True})
    cut, found = workspace.variables(step.inputs["weights"]), workspace.variables(step)
    images = first_images(step, workspace)
    expected = numerics.statistics(workspace.module, workspace.network.preprocess, cut, images)
    chex.assert_trees_all_close(found["batch_stats"], expected, rtol=1e-6)
    chex.assert_trees_all_equal(found["params"], cut["params"])
    assert (record.what, record.examples, record.notes) == (("statistics",), IMAGES, ())
    forward = workspace.forward(step.inputs["weights"], 0, 16)
    assert record.flops == recalibrate.flops(step, workspace) == IMAGES * forward
    assert recalibrate.charge(step, workspace, record) == Ledger(prune=record.flops)


def test_readers_alone(done):
    """The corrected network, at any resolution, is nearer to the whole one's features."""
    size = 12
    step, workspace, record = done({"lsq": True}, size)
    cut, found = workspace.variables(step.inputs["weights"]), workspace.variables(step)
    chex.assert_trees_all_equal_shapes_and_dtypes(found, cut)
    chex.assert_trees_all_equal(found["batch_stats"], cut["batch_stats"])
    before, after = flatten_dict(cut["params"]), flatten_dict(found["params"])
    changed = {"/".join(path) for path in before if (before[path] != after[path]).any()}
    assert changed == {"stage1_block1/conv2/kernel", "stage2_block1/conv2/kernel"}
    assert (record.what, record.notes) == (("readers",), ())
    images = models.PREPROCESS[workspace.network.preprocess](first_images(step, workspace, size))
    features = jax.jit(functools.partial(models.features, workspace.module))
    whole, left, mended = (features(tree, images) for tree in (workspace.given, cut, found))
    assert np.abs(mended - whole).mean() < 0.7 * np.abs(left - whole).mean()
    # More than the whole network's forward pass, by little.
    forward = IMAGES * workspace.forward(None, 0, size)
    assert forward < record.flops < 1.5 * forward


def test_both(done):
    step, workspace, record = done({"lsq": True, "statistics": True}, name="channels@0.3")
    assert record.what == ("readers", "statistics")
    found = workspace.variables(step)
    keep = prune.kept(step.inputs["weights"], workspace)
    chex.assert_trees_all_equal_shapes_and_dtypes(
        found, pruning.prune(workspace.given, workspace.groups, keep)
    )
    expected = numerics.statistics(
        workspace.module, workspace.network.preprocess, found, first_images(step, workspace)
    )
    chex.assert_trees_all_close(found["batch_stats"], expected, rtol=1e-5)
