"""Heads on features: which images they are of, and what judges them."""

import types

import chex
import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from ctl_jax import heads
from ctl_jax.experiment import parse_method
from ctl_jax.experiment.jobs import Job
from ctl_jax.experiment.kinds import extract, head


@hypothesis.given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 40))
def test_the_first_images_of_some_shards(sizes, count):
    ends = np.cumsum(sizes)
    labels = np.arange(ends[-1])
    shards = [
        heads.Shard(labels[end - size : end, None], labels[end - size : end])
        for size, end in zip(sizes, ends, strict=True)
    ]
    found = head.first(shards, count)
    joined = np.concatenate([shard.labels for shard in found])
    chex.assert_trees_all_equal(joined, labels[:count])
    assert all(len(shard.labels) == len(shard.features) > 0 for shard in found)


@pytest.fixture
def wish(config, make_plan):
    """Of a probe on all images of a task, with the run's plan."""
    config.stream.variant, config.methods = "digits", ("probe",)
    plan = make_plan(config)
    point = plan.points()[-1]
    return plan, plan.wish(point._replace(method=parse_method("probe")), 10**9)


def test_what_judges_a_head_is_part_of_what_it_is(wish):
    _, wish = wish
    by_dev, left_out = head.make(wish, 300), head.make(wish, 300, judged_on="left out")
    assert by_dev.id == head.make(wish, 300, judged_on="dev").id != left_out.id
    assert "judged_on" not in by_dev.params
    assert left_out.params == {**by_dev.params, "judged_on": "left out"}
    # Both are on the same features.
    ids = {name: step.id for name, step in by_dev.inputs.items()}
    assert {name: step.id for name, step in left_out.inputs.items()} == ids
    train, dev = (head.shards(wish, name, count) for name, count in (("train", 300), ("dev", 40)))
    assert [step.params["stop"] for step in train.values()] == [256, 512]
    assert {name: step.id for name, step in (train | dev).items()}.items() <= ids.items()


@pytest.mark.parametrize(("judged_on", "depends"), [("left out", False), ("dev", True)])
def test_a_head_that_is_judged_on_what_is_left_out_does_not_see_dev(wish, judged_on, depends):
    plan, wish = wish
    rng = np.random.default_rng(0)
    width = plan.workspace.features(None, "taps", 16)
    there = {}

    def arrays(step):
        if step.id not in there:
            count = step.params["stop"] - step.params["start"]
            labels = rng.integers(0, 10, count)
            features = rng.normal(size=(count, width)) + (labels[:, None] == np.arange(width) % 10)
            there[step.id] = {extract.FEATURES: features.astype(np.float32), extract.LABELS: labels}
        return there[step.id]

    workspace = types.SimpleNamespace(arrays=arrays, forward=plan.workspace.forward)

    def run():
        step = head.make(wish, 300, judged_on=judged_on)
        output = head.run(step, workspace, Job(step))
        return output.records[0], output.arrays()

    record, made = run()
    assert record.examples == 300
    (dev,) = head.shards(wish, "dev", 40).values()
    there[dev.id][extract.LABELS] = (there[dev.id][extract.LABELS] + 1) % 10
    other, again = run()
    assert other.dev < record.dev
    assert (other.notes != record.notes) == depends
    if not depends:
        chex.assert_trees_all_equal(again, made)
