"""One trial on tasks of one and of several labels: what its records say."""

import functools

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from ctl_jax import data, finetune, models, report
from ctl_jax.data.task import fingerprint
from ctl_jax.experiment import parse_method
from ctl_jax.experiment.config import validate
from ctl_jax.experiment.costs import cost_by_classes
from ctl_jax.experiment.networks import abstract_variables, make_module, make_network, trace_groups
from ctl_jax.experiment.progress import Progress
from ctl_jax.experiment.trials import TaskInfo, make_trials
from ctl_jax.experiment.worker import run_trial

CLASSES = 6


def _task(kind):
    """Bright and dark thirds of an image; each is a label, or their number in binary a class."""
    rng = np.random.default_rng(0)
    spec = data.TaskSpec("thirds", "Thirds", "thirds", "tfds", "object", kind, 2015)
    splits = {}
    for name in data.SPLITS:
        bright = rng.integers(0, 2, (40, CLASSES)).astype(np.uint8)
        rows = np.repeat(bright, 3, axis=1)[:, :16]
        images = 170 * rows[:, :, None, None] + rng.integers(0, 50, (40, 16, 16, 3))
        labels = bright if kind == "multi_label" else bright[:, :5].sum(axis=1).astype(np.int32)
        splits[name] = data.Split(images.astype(np.uint8), labels)
    return data.Task(spec, CLASSES, splits, fingerprint(CLASSES, splits))


@pytest.fixture
def run(config, console):
    """Runs a first trial; gives the trial, its records and the network it ended with."""
    config.methods = ("scratch",)
    config.weights = ""

    def run(task):
        checked = validate(config)
        module = make_module(checked)
        abstract = abstract_variables(checked, module)
        network = make_network(
            checked, trace_groups(checked, module, abstract), parse_method("scratch"), abstract
        )
        cost = cost_by_classes(module, network.recipe, abstract, batch_size=8, image_size=16)
        info = TaskInfo(
            task.spec,
            task.num_classes,
            {name: len(split) for name, split in task.splits.items()},
            task.fingerprint,
        )
        trial = make_trials(checked, [info], [network.method], {"scratch": cost}, "")[-1]
        step = finetune.make_step(module, network.recipe)
        last = []

        def fit(*args, original=finetune.fit, **kwargs):
            last.append(original(*args, **kwargs))
            return last[-1]

        with pytest.MonkeyPatch.context() as patch, Progress(console, 1) as progress:
            patch.setattr(finetune, "fit", fit)
            lines = run_trial(checked, module, step, network, task, trial, progress)
        apply = functools.partial(models.apply, module, last[0].variables)
        return (
            trial,
            lines,
            lambda images: np.asarray(apply(models.PREPROCESS[checked.model.preprocess](images))),
        )

    return run


def test_a_task_with_several_labels_is_scored_by_mean_average_precision(run):
    task = _task("multi_label")
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


def test_a_task_with_one_label_is_scored_by_accuracy_and_top5(run):
    task = _task("single_label")
    _, lines, logits = run(task)
    record = lines[-1]
    assert record["metric"] == "accuracy"
    for name in ("dev", "dev_test"):
        split = task.splits[name]
        ranked = np.argsort(-logits(split.images)[:, :CLASSES], axis=1, kind="stable")
        hits = ranked == split.labels[:, None]
        assert record[name] == pytest.approx(hits[:, 0].mean())
        assert record[f"{name}_top5"] == pytest.approx(hits[:, :5].any(axis=1).mean())


@pytest.mark.parametrize("kind", ["single_label", "multi_label"])
def test_the_report_reads_a_trials_records(run, kind, config):
    _, lines, _ = run(_task(kind))
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
