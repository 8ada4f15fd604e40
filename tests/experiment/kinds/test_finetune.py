"""One trial on tasks of one and of several labels: what its records say."""

import dataclasses
import functools

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from ctl_jax import data, finetune, interrupts, models, report
from ctl_jax.data.task import fingerprint
from ctl_jax.experiment.worker import run_trial
from ctl_jax.finetune import group

CLASSES = 6


@pytest.fixture
def run(one_trial):
    """Runs a first trial; gives the trial, its records and the network it ended with."""

    def run(task):
        place, step, network, task, trial = one_trial(task)
        last = []

        def fit(*args, original=finetune.fit, **kwargs):
            last.append(original(*args, **kwargs))
            return last[-1]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(finetune, "fit", fit)
            lines = run_trial(place, step, network, task, trial)
        apply = functools.partial(models.apply, place.module, last[0].variables)
        preprocess = models.PREPROCESS[place.config.model.preprocess]
        return trial, lines, lambda images: np.asarray(apply(preprocess(images)))

    return run


def test_a_task_with_several_labels_is_scored_by_mean_average_precision(run, thirds):
    task = thirds("multi_label")
    trial, lines, logits = run(task)
    record = lines[-1]
    assert record["metric"] == "mAP"
    assert record["dev_top5"] is record["dev_test_top5"] is None
    for name in ("dev", "dev_test"):
        split = task.splits[name]
        expected = average_precision_score(split.labels, logits(split.images)[:, :CLASSES])
        assert record[name] == pytest.approx(expected, abs=1e-6)
    assert record["dev_test"] > 0.6  # it has learned something
    assert record["ledger"]["validate"] == trial.validate_flops == 80 * trial.cost.forward
    assert all(np.isfinite(line["loss"]) for line in lines[:-1])


def test_a_task_with_one_label_is_scored_by_accuracy_and_top5(run, thirds):
    task = thirds("single_label")
    _, lines, logits = run(task)
    record = lines[-1]
    assert record["metric"] == "accuracy"
    for name in ("dev", "dev_test"):
        split = task.splits[name]
        ranked = np.argsort(-logits(split.images)[:, :CLASSES], axis=1, kind="stable")
        hits = ranked == split.labels[:, None]
        assert record[name] == pytest.approx(hits[:, 0].mean())
        assert record[f"{name}_top5"] == pytest.approx(hits[:, :5].any(axis=1).mean())


def _timeless(records):
    return [{**record, "wall_s": None} for record in records]


@pytest.fixture
def best_of_three(config, one_trial, thirds):
    """A trial of 21 updates, evaluated after 8 and 16 and at its end; the best is reported."""
    config.finetune.evaluate_every = 8
    config.finetune.report = "best"
    *job, trial = one_trial(thirds("single_label"))
    return (*job, dataclasses.replace(trial, steps=21, evaluations=2))


def test_a_trial_that_was_stopped_often_has_the_same_records(best_of_three, tmp_path, monkeypatch):
    whole = run_trial(*best_of_three)
    # After 1, 4, 9 and 16 updates, and after the last.
    for looks in (1, 3, 5, 7, 5):
        asked = iter([False] * (looks - 1) + [True])
        monkeypatch.setattr(group, "stop_requested", functools.partial(next, asked))
        with pytest.raises(interrupts.Stopped):
            run_trial(*best_of_three, tmp_path / "scratch")
    assert max(int(path.name) for path in (tmp_path / "scratch").iterdir()) == 21
    monkeypatch.undo()
    assert _timeless(run_trial(*best_of_three, tmp_path / "scratch")) == _timeless(whole)


def test_evaluations_on_the_way_are_recorded_and_paid_for(best_of_three):
    trial = best_of_three[-1]
    lines = run_trial(*best_of_three)
    record = lines[-1]
    on_the_way = [line for line in lines if line["type"] == "dev"]
    assert [line["step"] for line in on_the_way] == [8, 16]
    assert on_the_way[0]["flops"] == 8 * trial.cost.step
    assert record["ledger"]["validate"] == trial.validate_flops == 4 * 40 * trial.cost.forward
    assert record["spent_flops"] == 21 * trial.cost.step
    by_step = {line["step"]: line["dev"] for line in on_the_way}
    assert record["dev"] >= max(by_step.values())
    assert record["dev"] == by_step.get(record["reported_step"], record["dev"])


def test_the_best_weights_are_reported_on_both_splits(best_of_three, monkeypatch):
    """Whatever dev says, dev_test is of the same weights; of equal ones the earlier are taken."""
    _, _, _, task, _ = best_of_three
    heads, evaluate = [], finetune.evaluate

    def scores(module, preprocess, variables, images, labels, **options):
        is_dev = images is task.splits["dev"].images
        heads.append((is_dev, np.array(variables["params"]["head"]["kernel"])))
        found = evaluate(module, preprocess, variables, images, labels, **options)
        return found._replace(value=(0.4, 0.9, 0.9)[len(heads) - 1]) if is_dev else found

    monkeypatch.setattr(finetune, "evaluate", scores)
    record = run_trial(*best_of_three)[-1]
    assert (record["reported_step"], record["dev"]) == (16, 0.9)
    assert [is_dev for is_dev, _ in heads] == [True, True, True, False]
    np.testing.assert_array_equal(heads[3][1], heads[1][1])
    assert not np.array_equal(heads[3][1], heads[2][1])


@pytest.mark.parametrize("kind", ["single_label", "multi_label"])
def test_the_report_reads_a_trials_records(run, thirds, kind, config):
    _, lines, _ = run(thirds(kind))
    record = lines[-1]
    run_record = {
        "type": "run",
        "variant": record["variant"],
        "tasks": [
            {
                "name": "thirds",
                "title": "Thirds",
                "dataset": "thirds",
                "domain": "object",
                "year": 2015,
                "kind": kind,
                "num_classes": CLASSES,
                "dev_test_examples": 40,
            }
        ],
        "missing": [],
        "methods": ["scratch"],
        "budgets": [record["budget_flops"]],
        "learning_rates": [record["learning_rate"]],
        "seeds": [record["seed"]],
        "config": config.to_dict(),
        "versions": {},
        "device": "cpu",
        "model": "resnet18",
    }
    (row,) = report.results([run_record, *lines])
    assert (row["dev_test"], row["metric"]) == (record["dev_test"], record["metric"])
    assert row["error"] == pytest.approx(1 - record["dev_test"])
    assert row["dev_test_top5"] == record["dev_test_top5"]


def test_fingerprints_tell_labels_apart():
    images = np.zeros((2, 8, 8, 3), np.uint8)

    def of(labels):
        return fingerprint(2, dict.fromkeys(data.SPLITS, data.Split(images, np.asarray(labels))))

    one, several = of([0, 1]), of(np.uint8([[0, 1], [1, 0]]))
    assert len({one, several, of([1, 0]), of(np.uint8([[0, 1], [1, 1]])), of([[0], [1]])}) == 5
