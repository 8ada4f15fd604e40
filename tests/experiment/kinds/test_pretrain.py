"""Pretraining as a step: its record, its model, and what is left of one that was stopped."""

import dataclasses
import functools

import chex
import pytest

from ctl_jax import data, finetune, interrupts, models
from ctl_jax.errors import UserError
from ctl_jax.experiment.jobs import Job
from ctl_jax.experiment.kinds import pretrain
from ctl_jax.finetune import multihost

# Compiled once for all tests.
_make_step = functools.cache(finetune.make_step)


@pytest.fixture
def run(config, make_plan, monkeypatch):
    """Runs a pretraining of 12 updates on digits; gives its step, its place and its output."""
    monkeypatch.setattr(data, "source_spec", lambda name: data.stream("digits")[0])
    config.stream.variant = "digits"
    config.weights, config.pretrain.task = "", "synthetic_source"
    config.pretrain.steps, config.pretrain.batch_size = 12, 8

    def run(scratch=None, **settings):
        config.pretrain.update(settings)
        plan = make_plan(config)
        plan.workspace.compiled = functools.partial(_make_step, plan.workspace.module)
        step = plan.pretraining
        return step, plan.workspace, pretrain.run(step, plan.workspace, Job(step, None, scratch))

    return run


def test_a_record_says_what_it_cost_and_how_good_the_weights_are(run):
    step, workspace, output = run()
    (record,) = output.records
    examples = workspace.source.examples["dev"]
    assert (record.id, record.task, record.steps, record.seed) == (step.id, "digits", 12, 0)
    # All of dev: `data.max_eval_examples` is for the stream's tasks.
    assert examples > 40
    forward = record.flops - 12 * record.flops_per_step
    assert forward % examples == 0
    assert workspace.flops(step) == record.flops
    assert 0 <= record.metric <= 1
    model = output.model()
    assert models.content_hash(model.variables) == record.weights
    assert model.num_classes == 10
    assert model.notes == {"step": step.id, "task": "digits"}
    task = workspace.loader.load(workspace.source.spec, whole=True)
    scores = finetune.evaluate(
        model.module,
        model.preprocess,
        model.variables,
        task.splits["dev"].images,
        task.splits["dev"].labels,
        num_classes=10,
        compute_dtype=model.compute_dtype,
    )
    assert scores.value == record.metric


def test_one_that_was_stopped_goes_on(run, tmp_path, monkeypatch):
    _, _, whole = run()
    for looks in (2, 4):
        asked = iter([False] * (looks - 1) + [True])
        monkeypatch.setattr(multihost, "stop_requested", functools.partial(next, asked))
        with pytest.raises(interrupts.Stopped):
            run(tmp_path / "scratch")
    assert list((tmp_path / "scratch").iterdir())
    monkeypatch.setattr(multihost, "stop_requested", lambda: False)
    _, _, again = run(tmp_path / "scratch")
    one, two = (dataclasses.replace(each.records[-1], wall_s=0.0) for each in (whole, again))
    assert one == two
    chex.assert_trees_all_equal(again.model().variables, whole.model().variables)


def test_one_that_diverges_gives_nothing(run):
    with pytest.raises(UserError, match=r"pretrain\.learning_rate=1e\+30: .*not finite"):
        run(learning_rate=1e30)
