"""The best model of a task on its test split, and what a prediction costs."""

import jax
import numpy as np
import pytest

from ctl_jax import models
from ctl_jax.experiment.kinds import evaluate, prune
from ctl_jax.experiment.steps import Output


@pytest.fixture
def evaluated(config, make_plan, monkeypatch):
    """Evaluates a network of a method with a random head; gives record, place and variables."""

    def evaluated(method) -> tuple[Output, models.Model]:
        config.stream.variant, config.methods = "digits", (method,)
        plan = make_plan(config)
        workspace, trial = plan.workspace, plan.trial(plan.points()[0])
        start = trial.inputs.get("weights")
        monkeypatch.setattr(
            workspace.store, "result", lambda id: prune.run(start, workspace, None).records[-1]
        )
        head = jax.random.normal(jax.random.key(0), (16, 10))
        variables = models.with_head(workspace.variables(start), 10)
        variables["params"]["head"]["kernel"] = head
        step = evaluate.make(trial)
        monkeypatch.setattr(workspace, "variables", lambda step: variables)
        (record,) = evaluate.run(step, workspace, None).records
        assert (record.id, record.trial, record.task) == (step.id, trial.id, "digits")
        assert record.flops == workspace.flops(step)
        return record, workspace, variables

    return evaluated


def test_the_score_on_test_and_the_cost_of_a_prediction(evaluated):
    record, workspace, variables = evaluated("filters@0.5")
    split = workspace.loader.load(workspace.tasks["digits"].spec).splits["test"]
    images = models.PREPROCESS["nevis"](split.images)
    logits = models.apply(workspace.module, variables, images)
    correct = np.sum(np.argmax(logits, axis=1) == split.labels)
    assert (record.correct, record.examples) == (correct, len(split))
    assert record.score == pytest.approx(correct / len(split))
    assert 0 < record.low < record.score < record.high < 1
    assert record.top5 >= record.score
    assert min(record.latency_s, record.whole_latency_s) > 0
    assert record.params == models.count_params(variables) < record.whole_params
    assert record.forward_flops < record.whole_forward_flops
    assert record.widths == {"stem": (8,), "stage1": (4, 8), "stage2": (8, 16)}
    # Of the split, and before it of those whose time counts: of this network and of the whole one.
    timed = record.forward_flops + record.whole_forward_flops
    assert record.flops == len(split) * record.forward_flops + 23 * timed
