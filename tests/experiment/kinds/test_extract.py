"""Shards of features: which images they hold."""

import chex
import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from ctl_jax import finetune, models
from ctl_jax.experiment.kinds import extract
from ctl_jax.experiment.teamwork import Job

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=60).map(np.array)


@hypothesis.given(LABELS, st.integers(0, 3))
def test_any_beginning_has_as_many_of_each_class_as_there_can_be(labels, seed):
    order = extract.order(labels, seed)
    assert sorted(order) == list(range(len(labels)))
    chex.assert_trees_all_equal(order, extract.order(labels, seed))
    totals = np.bincount(labels, minlength=6)
    for count in range(len(labels)):
        taken = np.bincount(labels[order[:count]], minlength=6)
        # A class that has images left is behind no other by more than one.
        assert (taken >= np.minimum(totals, taken.max() - 1)).all()


def test_an_image_of_several_classes_counts_for_the_rarest():
    labels = np.zeros((30, 3), np.uint8)
    labels[:, 0] = 1
    labels[:10, 1] = 1
    labels[:2, 2] = 1
    order = extract.order(labels, 0)
    # Two rounds of each class, by the rarest; an image of none is of a class of its own.
    assert labels[order[:6]].sum(axis=0).tolist() == [6, 4, 2]
    labels[29] = 0
    assert 29 in extract.order(labels, 1)[:4]


def test_another_seed_is_another_order():
    labels = np.arange(40) % 4
    assert (extract.order(labels, 0) != extract.order(labels, 1)).any()


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
    output = extract.run(step, plan.place, Job(step))
    found = output.arrays()
    examples = plan.place.loader.load(point.task.spec).splits[split]
    index = np.arange(len(examples))
    if split == "train":
        index = extract.order(examples.labels, point.seed)
    index = index[: step.params["stop"]]
    chex.assert_trees_all_equal(found["labels"], examples.labels[index])
    expected = finetune.extract(
        plan.place.module, "imagenet", plan.place.given, examples.images[index], head=head
    )
    chex.assert_trees_all_equal(found["features"], expected)
    (record,) = output.records
    width = plan.place.features(None, head, 16)
    assert (record.features, record.stop) == (width, len(index)) == (found["features"].shape[::-1])
    assert record.flops == len(index) * plan.place.forward(None, 0, 16) == plan.place.flops(step)
    assert width > models.features(plan.place.module, plan.place.given, _image()).shape[1] - 1


def _image():
    return np.zeros((1, 16, 16, 3), np.float32)
