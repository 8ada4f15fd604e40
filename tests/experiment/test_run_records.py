"""Records of the run itself and of its methods."""

import dataclasses
import os

import jax

from ctl_jax import data, records
from ctl_jax.experiment import run_records
from ctl_jax.experiment.run_records import method_records, pending_record, run_record


def test_a_run_says_what_it_is_about(config, make_plan):
    config.methods = ("dense", "filters@.50+head_bn")
    plan = make_plan(config)
    plan = dataclasses.replace(plan, missing=((*data.stream("mnist"), "it is gone"),))
    record = run_record(plan)
    assert (record.variant, record.model) == ("digits+shapes", "resnet18")
    assert [(task.name, task.num_classes) for task in record.tasks] == [
        (task.spec.name, task.num_classes) for task in plan.tasks
    ]
    (digits, _) = record.tasks
    assert digits.dev_examples == digits.dev_test_examples == 40 < digits.train_examples
    assert [(task.name, task.reason) for task in record.missing] == [("mnist", "it is gone")]
    assert record.methods == ("dense", "filters@0.5+head_bn")
    assert record.budgets == ("40000000 flops", "120000000 flops")
    assert (record.seeds, record.learning_rates) == ((0,), (0.02, 0.2))
    assert record.config == plan.config.to_dict()
    assert record.versions["jax"] == jax.__version__
    assert record.device == jax.devices()[0].device_kind


def test_a_step_says_what_it_was_computed_on(monkeypatch):
    """A launcher may bind a process to some cores, as Open MPI does to one."""
    shorten = records.ShortenRecord(id="x", stages=1, params=2)
    dev = records.DevRecord(trial="x", step=1, flops=2, dev=0.5, dev_top5=None)
    run_records._hardware.cache_clear()
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3}, raising=False)
    step, on_the_way = run_records.computed_here([shorten, dev])
    run_records._hardware.cache_clear()
    assert on_the_way == dev
    assert dataclasses.replace(step, computed_on=None) == shorten
    assert (step.computed_on.device, step.computed_on.cores) == (jax.devices()[0].device_kind, 1)
    assert step.computed_on.devices == jax.device_count()


def test_what_each_method_makes_of_the_network(config, make_plan):
    config.methods = ("dense", "linear_probe", "filters@0.5", "scratch+lp_ft")
    plan = make_plan(config)
    found = {record.method: record for record in method_records(plan)}
    assert list(found) == list(config.methods)
    dense, probe, cut, phases = found.values()
    assert (dense.scope, dense.ratio, dense.criterion) == (None, None, None)
    assert (cut.scope, cut.ratio, cut.criterion) == ("filters", 0.5, "l2")
    # A probe is the same network with a cheaper step; a cut one is smaller altogether.
    assert (probe.params, probe.forward_flops) == (dense.params, dense.forward_flops)
    assert probe.flops_per_step < dense.flops_per_step / 2
    assert cut.params < dense.params
    assert cut.forward_flops < dense.forward_flops
    assert cut.flops_per_step < dense.flops_per_step
    assert dense.groups == cut.groups == len(plan.workspace.groups)
    assert (dense.cut_groups, probe.cut_groups, cut.cut_groups) == (0, 0, 2)
    assert any("residual addition" in note for note in cut.notes)
    # Of the last phase.
    assert phases.flops_per_step == dense.flops_per_step


def test_a_trial_that_is_not_done_is_named(config, make_plan):
    plan = make_plan(config)
    point = plan.points()[5]
    step = plan.trial(point)
    record = pending_record(step)
    assert (record.id, record.task, record.method) == (step.id, "digits", "filters@0.5")
    assert (record.budget, record.seed) == (str(point.budget), point.seed)
    assert (record.learning_rate, record.batch_size) == (point.learning_rate, 8)


def test_what_is_not_searched_is_not_named(config, make_plan):
    config.methods, config.finetune.search = ("dense", "probe"), "rule"
    plan = make_plan(config)
    assert run_record(plan).learning_rates == ()
    probe = next(point for point in plan.points() if point.method.name == "probe")
    record = pending_record(plan.trial(probe))
    assert (record.learning_rate, record.batch_size) == (None, None)
