"""How fast a device trains, measured as a step."""

import itertools

import pytest

from ctl_jax.experiment.jobs import Job
from ctl_jax.experiment.kinds import pace


@pytest.fixture
def measured(config, make_plan):
    """The step that a method's budget in seconds waits for, and the plan."""

    def measured(name):
        config.stream.variant = "digits"
        config.methods, config.budgets.amounts = (name,), ("1 seconds",)
        plan = make_plan(config)
        return plan.trial(plan.points()[0]), plan

    return measured


def test_flops_a_second_of_a_methods_phases(measured, monkeypatch):
    """By a clock of ours: an update takes two seconds."""
    step, plan = measured("filters@0.5+lp_ft")
    fit = pace.finetune.fit

    def timed(*args, **options):
        result = fit(*args, **options)
        history = [entry._replace(wall_s=2.0 * entry.step) for entry in result.history]
        return result._replace(history=history)

    monkeypatch.setattr(pace.finetune, "fit", timed)
    monkeypatch.setattr(pace, "_times_of_extraction", lambda *args: [2.0])
    output = pace.run(step, plan.workspace, Job(step))
    assert output.model is None
    (record,) = output.records
    costs = [cost for _, cost in pace._phases(step, plan.workspace)]
    shares = [phase["share"] for phase in step.params["phases"]]
    # So many seconds a FLOP as the phases take together, each for its share of the budget.
    seconds = sum(2 * share / cost for share, cost in zip(shares, costs, strict=True))
    assert record.flops_per_second == pytest.approx(sum(shares) / seconds)
    assert record.flops == plan.workspace.flops(step) == 13 * sum(costs)
    assert record.id == step.id


def test_a_budget_pays_for_as_long_as_the_record_says(measured):
    step, plan = measured("scratch")
    (record,) = pace.run(step, plan.workspace, Job(step)).records
    assert record.flops_per_second > 0

    class Finished:
        def __contains__(self, other):
            return other.id == step.id

        def record(self, other):
            return record

    (trial, *_) = plan.strategy(Finished())
    assert trial.params["budget_flops"] == pytest.approx(record.flops_per_second, abs=1)
    assert trial.inputs["pace"].id == step.id


def test_flops_a_second_of_fits(measured, monkeypatch):
    """By a clock of ours: a fit takes two seconds."""
    step, plan = measured("probe")
    fits = plan.pace(plan.points()[0], step.inputs.get("weights"), of_heads=True)
    assert fits.id != step.id
    clock = itertools.count(step=2)
    monkeypatch.setattr(pace.time, "perf_counter", lambda: next(clock))
    (record,) = pace.run(fits, plan.workspace, Job(fits)).records
    assert 0 < record.flops <= plan.workspace.flops(fits)
    assert record.flops_per_second == pytest.approx(record.flops / pace._FITS / 2)
