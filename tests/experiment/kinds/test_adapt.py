"""Training between two heads: what changes, what it costs, and where it diverges."""

import functools
import itertools
import json

import chex
import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from ctl_jax import interrupts, records
from ctl_jax.experiment.jobs import Job
from ctl_jax.experiment.kinds import adapt, extract, head
from ctl_jax.experiment.store import Store
from ctl_jax.finetune import feature_maps, multihost


@pytest.fixture
def made(config, make_plan, tmp_path):
    """Does everything before a trial's last head; gives the training's step and its place."""

    def made(rate=0.01):
        config.stream.variant, config.methods = "digits", ("dense+adapt",)
        config.budgets.amounts, config.finetune.learning_rates = ("8e8",), (rate,)
        plan = make_plan(config)
        workspace = plan.workspace
        workspace.store = Store(tmp_path, {})
        workspace.store.create()
        step = plan.trial(plan.points()[0]).inputs["weights"].inputs["weights"]
        first = step.inputs["weights"]
        for each, run in [(s, extract.run) for s in first.inputs.values()] + [(first, head.run)]:
            finish(workspace, each, run(each, workspace, Job(each)))
        return step, workspace

    return made


def finish(workspace, step, output):
    workspace.store.save(step.id, output.records)
    workspace.store.save_arrays(step.id, output.arrays())


def test_only_its_stages_change_and_only_by_the_other_half(made, monkeypatch):
    step, workspace = made()
    seen = []
    compute = feature_maps.compute
    monkeypatch.setattr(
        feature_maps, "compute", lambda *args: seen.append(args[-1]) or compute(*args)
    )
    output = adapt.run(step, workspace, Job(step))
    finish(workspace, step, output)
    before, after = workspace.variables(None), workspace.variables(step)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, jax.device_get(before))
    flat = [flatten_dict(tree, sep="/") for tree in (before, after)]
    changed = {path for path in flat[0] if not np.array_equal(*(tree[path] for tree in flat))}
    assert changed
    # The last of two stages; statistics of BatchNorm stay, and the head is no part of it.
    assert {path.split("/")[1].split("_")[0] for path in changed} == {"stage2"}
    (record,) = output.records
    assert record.steps == -(-2 * 500 // step.params["finetune"]["batch_size"])
    assert np.isfinite(record.loss)
    ledger = adapt.charge(step, workspace, record)
    assert record.flops == adapt.flops(step, workspace) == ledger.train + ledger.extract
    (index,) = seen
    labels = workspace.loader.load(workspace.tasks["digits"].spec).splits["train"].labels
    assert sorted(index) == sorted(workspace.order("digits", labels, step.params["seed"], 2))
    assert not set(index) & set(workspace.order("digits", labels, step.params["seed"], 1))


def test_an_interrupted_training_ends_with_the_same_numbers(made, monkeypatch, tmp_path):
    step, workspace = made()
    # Stopped at its third look, then gone on with.
    asked = itertools.chain([False, False], itertools.repeat(True))
    monkeypatch.setattr(multihost, "stop_requested", functools.partial(next, asked))
    with pytest.raises(interrupts.Stopped):
        adapt.run(step, workspace, Job(step, None, tmp_path / "scratch"))
    monkeypatch.setattr(multihost, "stop_requested", lambda: False)
    again = adapt.run(step, workspace, Job(step, None, tmp_path / "scratch"))
    alone = adapt.run(step, workspace, Job(step))
    assert again.records[0].loss == alone.records[0].loss
    chex.assert_trees_all_equal(dict(again.arrays()), dict(alone.arrays()))


def test_nothing_changes_where_it_diverges(made):
    step, workspace = made(1e30)
    output = adapt.run(step, workspace, Job(step))
    finish(workspace, step, output)
    (record,) = output.records
    assert record.loss is None
    assert records.from_json(json.loads(json.dumps(records.to_json(record)))) == record
    assert record.flops == sum(vars(adapt.charge(step, workspace, record)).values()) > 0
    chex.assert_trees_all_equal(workspace.variables(step), workspace.variables(None))
