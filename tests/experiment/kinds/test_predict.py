"""Predictions that are kept: outputs beside labels, and what they come to."""

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.metrics import average_precision_score

from ctl_jax import finetune, models
from ctl_jax.experiment.jobs import Job
from ctl_jax.experiment.kinds import predict


@pytest.mark.parametrize("kind", ["single_label", "multi_label"])
def test_outputs_of_each_image_and_their_scores(one_trial, thirds, monkeypatch, kind):
    task = thirds(kind)
    made = one_trial(task)
    output = made.run()
    trial, model = output.records[-1], output.model()
    monkeypatch.setattr(made.workspace, "variables", lambda step: model.variables)
    monkeypatch.setattr(made.workspace, "shapes", lambda step: model.variables)
    step = predict.make(made.step)
    found = predict.run(step, made.workspace, Job(step))
    (record,) = found.records
    arrays, split = found.arrays(), task.splits["dev_test"]
    logits = finetune.logits(
        made.workspace.module,
        made.step.params["model"]["preprocess"],
        model.variables,
        split.images,
    )
    np.testing.assert_array_equal(arrays["targets"], split.labels)
    assert (record.trial, record.examples, record.classes) == (made.step.id, len(split), 6)
    assert (record.params, record.params_bytes) == (trial.params, 4 * trial.params)
    assert record.params == models.count_params(model.variables)
    assert record.flops == len(split) * trial.forward_flops == predict.flops(step, made.workspace)
    if kind == "multi_label":
        np.testing.assert_allclose(arrays["outputs"], 1 / (1 + np.exp(-logits)), rtol=1e-4)
        expected = average_precision_score(split.labels, arrays["outputs"])
        assert record.mean_average_precision == pytest.approx(expected, abs=1e-9)
        assert record.mean_average_precision == trial.dev_test
        assert (record.top1, record.top5, record.cross_entropy) == (None, None, None)
    else:
        np.testing.assert_allclose(arrays["outputs"], logits, rtol=1e-4, atol=1e-5)
        nats = -log_softmax(logits, axis=1)[np.arange(len(split)), split.labels].mean()
        assert record.cross_entropy == pytest.approx(nats, rel=1e-4)
        assert (record.top1, record.top5) == (trial.dev_test, trial.dev_test_top5)
        assert record.mean_average_precision is None
