"""Shards of features: which images they hold."""

import chex
import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from ctl_jax import finetune, models
from ctl_jax.data import balance
from ctl_jax.experiment.jobs import Job
from ctl_jax.experiment.kinds import extract


@hypothesis.given(st.integers(1, 300_000), st.data())
def test_shards_are_the_same_for_all_who_need_them(examples, data):
    counts = sorted(data.draw(st.tuples(*[st.integers(1, 3 * examples)] * 2)))
    few, many = (extract.shards("train", examples, count) for count in counts)
    assert few == many[: len(few)]
    assert [shard.view for shard in many] == sorted(shard.view for shard in many)
    for shards, count in ((few, counts[0]), (many, counts[1])):
        ends = [shard.view * examples + shard.stop for shard in shards]
        begins = [shard.view * examples + shard.start for shard in shards]
        # Without gaps, and no shard more than is needed.
        assert begins == [0, *ends[:-1]]
        assert begins[-1] < count <= ends[-1]


@pytest.mark.parametrize(("split", "head"), [("train", "taps"), ("dev", "last")])
def test_features_of_some_images(config, make_plan, split, head):
    config.stream.variant, config.methods = "digits", (f"probe@{head}",)
    plan = make_plan(config)
    (point, *_) = plan.points()
    start = plan.trial(point).inputs["weights"]
    step = start.inputs[f"{split}/0"]
    output = extract.run(step, plan.workspace, Job(step))
    found = output.arrays()
    examples = plan.workspace.loader.load(point.task.spec).splits[split]
    index = np.arange(len(examples))
    if split == "train":
        index = balance.order(examples.labels, point.seed)
    index = index[: step.params["stop"]]
    chex.assert_trees_all_equal(found["labels"], examples.labels[index])
    expected = finetune.extract(
        plan.workspace.module, "imagenet", plan.workspace.given, examples.images[index], head=head
    )
    chex.assert_trees_all_equal(found["features"], expected)
    (record,) = output.records
    width = plan.workspace.features(None, head, 16)
    assert (record.features, record.stop) == (width, len(index)) == (found["features"].shape[::-1])
    assert (
        record.flops
        == len(index) * plan.workspace.forward(None, 0, 16)
        == plan.workspace.flops(step)
    )
    assert (
        width > models.features(plan.workspace.module, plan.workspace.given, _image()).shape[1] - 1
    )


def _image():
    return np.zeros((1, 16, 16, 3), np.float32)
