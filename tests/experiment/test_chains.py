"""Trials that start from what other trials have learnt."""

import itertools
import json

import chex
import pytest

from ctl_jax import experiment, models
from ctl_jax.experiment import strategies
from ctl_jax.experiment.steps import KINDS


@pytest.fixture
def previous():
    """A strategy: each task starts from what the one before has learnt."""

    @strategies.strategy("previous")
    def previous(plan):
        def wanted(finished):
            steps = []
            axes = lambda p: (p.method.name, p.budget, p.seed, p.learning_rate)  # noqa: E731
            for _, points in itertools.groupby(sorted(plan.points(), key=axes), key=axes):
                last = None
                for point in points:
                    last = plan.trial(point, weights=last, finished=finished)
                    steps.append(last)
            return steps

        return wanted

    yield
    del strategies._MAKERS["previous"]


def test_a_task_starts_from_what_the_one_before_has_learnt(
    previous, config, console, tmp_path, monkeypatch
):
    config.strategy = "previous"
    config.methods = ("filters@0.5",)
    config.budgets.num, config.budgets.min_flops = 1, config.budgets.max_flops
    config.finetune.learning_rates = (0.1,)
    starts, kind = [], KINDS["finetune"]

    def run(step, place, job):
        starts.append(place.variables(step.inputs["weights"]))
        return kind.run(step, place, job)

    monkeypatch.setitem(KINDS, "finetune", type(kind)(**{**vars(kind), "run": run}))
    experiment.run(config, tmp_path, console)
    lines = map(json.loads, (tmp_path / "records.jsonl").read_text().splitlines())
    trials = [line for line in lines if line["type"] == "trial"]
    assert [trial["task"] for trial in trials] == ["digits", "shapes"]
    # Both are trials of one pruned network.
    assert {(t["scope"], t["ratio"], t["flops_per_step"]) for t in trials} == {
        ("filters", 0.5, trials[0]["flops_per_step"])
    }
    # The first one's model was kept since the second needed it, and is what it started from.
    (kept,) = (tmp_path / "models").iterdir()
    assert kept.name == trials[0]["id"]
    chex.assert_trees_all_equal(starts[1], models.load(kept).variables)
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(starts[1]["params"]["stem_bn"], starts[0]["params"]["stem_bn"])
