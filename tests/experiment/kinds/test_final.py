"""The best network of a search on test, trained again on train and dev."""

import csv
import dataclasses
import json

import numpy as np

from ctl_jax import data, experiment, finetune, models
from ctl_jax.experiment.jobs import Job
from ctl_jax.experiment.kinds import final
from ctl_jax.experiment.stretches import padded_outputs


def test_training_again_is_that_of_a_task_whose_train_has_dev(one_trial, thirds):
    task = thirds("single_label")
    joined = data.Split(
        *(
            np.concatenate([getattr(task.splits[name], kind) for name in ("train", "dev")])
            for kind in ("images", "labels")
        )
    )
    whole = dataclasses.replace(task, splits={**task.splits, "train": joined})
    made, other = one_trial(task), one_trial(whole)
    expected = other.run().model()
    step = final.make(made.step)
    assert step.params["task"]["examples"]["train"] == len(joined)
    (record,) = final.run(step, made.workspace, Job(step)).records
    test = task.splits["test"]
    score = finetune.evaluate(
        made.workspace.module,
        made.step.params["model"]["preprocess"],
        models.resize_head(expected.variables, padded_outputs(6)),
        test.images,
        test.labels,
        num_classes=6,
        interval=True,
    )
    assert (record.score, record.top5, (record.low, record.high)) == (
        score.value,
        score.top5,
        score.interval,
    )
    assert (record.trial, record.trained_on, record.split) == (
        made.step.id,
        "train_and_dev",
        "test",
    )
    trial = made.run().records[-1]
    assert record.flops == trial.spent_flops + len(test) * trial.forward_flops
    assert record.flops == final.flops(step, made.workspace)


def test_a_run_has_each_search_on_test_once(config, console, tmp_path):
    config.stream.variant, config.stream.final = "digits", True
    config.methods, config.budgets.num = ("filters@0.5", "probe"), 1
    config.budgets.min_flops = config.budgets.max_flops
    experiment.run(config, tmp_path, console)
    lines = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    trained, fitted = (
        next(x for x in lines if x["type"] == "final" and x["method"] == method)
        for method in config.methods
    )
    assert len([line for line in lines if line["type"] == "final"]) == 2
    trials = [x for x in lines if x["type"] == "trial" and x["method"] == "filters@0.5"]
    best = min(trials, key=lambda t: (-t["dev"], t["learning_rate"]))
    assert (trained["trial"], trained["trained_on"]) == (best["id"], "train_and_dev")
    # A fitted head stays as it is: dev has chosen its coefficient.
    assert fitted["trained_on"] == "train"
    for record in (trained, fitted):
        assert 0 <= record["low"] <= record["score"] <= record["high"] <= 1
    with (tmp_path / "final.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], float(row["score"])) for row in rows] == [
        (record["method"], record["score"]) for record in (trained, fitted)
    ]
    # Nothing is left of what was kept for it, and nothing is done again.
    assert not any(path.name[0] != "." for path in (tmp_path / "models").iterdir())
    before = (tmp_path / "records.jsonl").read_bytes()
    experiment.run(config, tmp_path, console)
    assert (tmp_path / "records.jsonl").read_bytes() == before


def test_a_training_that_diverges_has_no_score(one_trial, thirds):
    made = one_trial(thirds("multi_label")).with_(learning_rate=1e30)
    step = final.make(made.step)
    (record,) = final.run(step, made.workspace, Job(step)).records
    assert (record.diverged, record.score, record.low) == (True, None, None)
