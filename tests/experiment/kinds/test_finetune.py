"""One trial on tasks of one and of several labels: what its records say."""

import dataclasses
import functools
import itertools

import chex
import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from ctl_jax import data, finetune, interrupts, models, records, report
from ctl_jax.data.task import fingerprint
from ctl_jax.experiment.kinds import finetune as trial_steps
from ctl_jax.finetune import multihost

CLASSES = 6


def logits(output, images):
    """Of the model that a step made."""
    model = output.model()
    found = model.preprocess(images)
    return np.asarray(models.apply(model.module, model.variables, found))


def cost(trial):
    """Of each of a trial's phases."""
    return [stretch.cost for stretch in trial_steps.plan(trial.step, trial.workspace)]


def evaluations(trial):
    """What a trial was planned to cost beyond its training, in FLOPs."""
    stretches = trial_steps.plan(trial.step, trial.workspace)
    trained = sum(stretch.updates * stretch.cost.step for stretch in stretches)
    return trial.workspace.flops(trial.step) - trained


def test_a_task_with_several_labels_is_scored_by_mean_average_precision(one_trial, thirds):
    trial = one_trial(thirds("multi_label"))
    output = trial.run()
    task, (_, *log, record) = trial.task, output.records
    assert record.metric == "mAP"
    assert output.model().multi_label is True
    assert record.dev_top5 is record.dev_test_top5 is None
    for name in ("dev", "dev_test"):
        split = task.splits[name]
        expected = average_precision_score(split.labels, logits(output, split.images))
        assert getattr(record, name) == pytest.approx(expected, abs=1e-6)
    assert record.dev_test > 0.6  # it has learned something
    (phase,) = cost(trial)
    assert record.ledger.validate == evaluations(trial) == 80 * phase.forward
    assert all(np.isfinite(line.loss) for line in log)


def test_a_task_with_one_label_is_scored_by_accuracy_and_top5(one_trial, thirds):
    trial = one_trial(thirds("single_label"))
    output = trial.run()
    record = output.records[-1]
    assert record.metric == "accuracy"
    for name in ("dev", "dev_test"):
        split = trial.task.splits[name]
        ranked = np.argsort(-logits(output, split.images), axis=1, kind="stable")
        hits = ranked == split.labels[:, None]
        assert getattr(record, name) == pytest.approx(hits[:, 0].mean())
        assert getattr(record, f"{name}_top5") == pytest.approx(hits[:, :5].any(axis=1).mean())


def test_the_model_has_the_tasks_classes_and_says_where_it_is_from(one_trial, thirds):
    trial = one_trial(thirds("single_label"))
    output = trial.run()
    model = output.model()
    assert (model.architecture, model.image_size, model.num_classes) == ("resnet18", 16, CLASSES)
    assert model.options == {"stages": (1, 1), "width": 8}
    assert model.notes == {"step": trial.step.id, "task": "thirds", "method": "scratch"}
    chex.assert_trees_all_equal_shapes_and_dtypes(
        model.variables, trial_steps.shapes(trial.step, trial.workspace)
    )


def timeless(output):
    return [
        dataclasses.replace(record, wall_s=0.0) if hasattr(record, "wall_s") else record
        for record in output.records
    ]


@pytest.fixture
def best_of_three(config, one_trial, thirds):
    """A trial of 21 updates, evaluated after 8 and 16 and at its end; the best is reported."""
    config.finetune.evaluate_every = 8
    config.finetune.report = "best"
    trial = one_trial(thirds("single_label"))
    (phase,) = cost(trial)
    return trial.with_(budget_flops=21 * phase.step + 1)


@pytest.fixture
def two_phases(best_of_three):
    """The same with a probe first: it has 4 updates or more, and the rest 12 or more."""
    probe = {"train": ["head/*"], "batch_norm": "frozen", "share": 0.2, "rate": 1.0}
    rest = {"train": ["*"], "batch_norm": "batch", "share": 0.8, "rate": 0.1}
    return best_of_three.with_(phases=[probe, rest])


@pytest.mark.parametrize("name", ["best_of_three", "two_phases"])
def test_a_trial_that_was_stopped_often_has_the_same_records(name, request, tmp_path, monkeypatch):
    trial = request.getfixturevalue(name)
    whole = trial.run()
    updates = whole.records[-1].steps
    # After 1, 4, 9 and 16 updates, and after the last.
    for looks in (1, 3, 5, 7, updates - 16):
        asked = iter([False] * (looks - 1) + [True])
        monkeypatch.setattr(multihost, "stop_requested", functools.partial(next, asked))
        with pytest.raises(interrupts.Stopped):
            trial.run(tmp_path / "scratch")
    assert max(int(path.name) for path in (tmp_path / "scratch").iterdir()) == updates
    monkeypatch.undo()
    again = trial.run(tmp_path / "scratch")
    assert timeless(again) == timeless(whole)
    chex.assert_trees_all_equal(again.model().variables, whole.model().variables)


def test_evaluations_on_the_way_are_recorded_and_paid_for(best_of_three):
    output = best_of_three.run()
    record = output.records[-1]
    (phase,) = cost(best_of_three)
    on_the_way = [line for line in output.records if isinstance(line, records.DevRecord)]
    assert [line.step for line in on_the_way] == [8, 16]
    assert on_the_way[0].flops == 8 * phase.step
    assert record.ledger.validate == evaluations(best_of_three) == 4 * 40 * phase.forward
    assert record.spent_flops == 21 * phase.step
    by_step = {line.step: line.dev for line in on_the_way}
    assert record.dev >= max(by_step.values())
    assert record.dev == by_step.get(record.reported_step, record.dev)


def test_each_phase_has_its_share_of_the_budget_and_its_own_cost(two_phases):
    output = two_phases.run()
    record = output.records[-1]
    probe, rest = trial_steps.plan(two_phases.step, two_phases.workspace)
    budget = record.budget_flops
    assert probe.updates == int(0.2 * budget) // probe.cost.step
    assert rest.updates == (budget - probe.updates * probe.cost.step) // rest.cost.step
    # A probe has no backward pass.
    assert probe.cost.step < rest.cost.step / 2
    assert rest.rate == pytest.approx(0.1 * probe.rate)
    assert record.steps == probe.updates + rest.updates
    spent = probe.updates * probe.cost.step + rest.updates * rest.cost.step
    assert record.spent_flops == record.ledger.train == spent <= budget
    assert spent + rest.cost.step > budget
    assert two_phases.workspace.flops(two_phases.step) == spent + record.ledger.validate
    assert record.flops_per_step == round(spent / record.steps)
    log = [line for line in output.records if isinstance(line, records.TrainRecord)]
    paid = [
        min(line.step, probe.updates) * probe.cost.step
        + max(0, line.step - probe.updates) * rest.cost.step
        for line in log
    ]
    assert [line.flops for line in log] == paid
    phases = [probe if line.step <= probe.updates else rest for line in log]
    assert [line.flops_per_step for line in log] == [phase.cost.step for phase in phases]
    # Each phase warms up, and falls to nothing at its end.
    ends = [line.learning_rate for line in log if line.step in (probe.updates, record.steps)]
    assert max(ends) < 0.1 * probe.rate
    assert all(line.learning_rate <= phase.rate for line, phase in zip(log, phases, strict=True))


def test_what_is_frozen_below_is_computed_once_an_image(
    config, one_trial, thirds, tmp_path, monkeypatch
):
    config.finetune.crop_area = config.finetune.crop_aspect = (1.0, 1.0)
    config.finetune.flip = False
    phase = {"train": ["stage2*", "head/*"], "batch_norm": "batch", "share": 1.0, "rate": 1.0}
    trial = one_trial(thirds("single_label")).with_(phases=[{**phase, "cached": True}])
    whole, (stretch,) = trial.run(), trial_steps.plan(trial.step, trial.workspace)
    examples, batch_size = len(trial.task.splits["train"]), config.finetune.batch_size
    record, step = whole.records[-1], stretch.cost.step
    assert stretch.recipe.entrance == ("stage2_block1", 16)
    assert record.steps * batch_size > examples
    assert record.ledger.extract == examples * stretch.cost.map > 0
    assert record.ledger.train == record.steps * step
    assert record.flops_per_step == step
    spent = record.ledger.extract + record.ledger.train
    assert record.spent_flops == spent <= record.budget_flops < spent + step
    assert trial.workspace.flops(trial.step) == spent + record.ledger.validate
    log = [line for line in whole.records if isinstance(line, records.TrainRecord)]
    assert [line.flops for line in log] == [
        record.ledger.extract + line.step * step for line in log
    ]
    # Where they are computed in each update, there are fewer.
    each_time = one_trial(thirds("single_label")).with_(phases=[phase])
    (other,) = trial_steps.plan(each_time.step, each_time.workspace)
    assert (other.recipe.entrance, other.maps) == (None, 0)
    assert other.cost.step == step + batch_size * stretch.cost.map
    assert other.updates < record.steps
    # An interruption changes nothing.
    asked = iter([False, True])
    monkeypatch.setattr(multihost, "stop_requested", functools.partial(next, asked))
    with pytest.raises(interrupts.Stopped):
        trial.run(tmp_path / "scratch")
    monkeypatch.undo()
    again = trial.run(tmp_path / "scratch")
    assert timeless(again) == timeless(whole)
    chex.assert_trees_all_equal(again.model().variables, whole.model().variables)


def test_the_best_weights_are_reported_on_both_splits(best_of_three, monkeypatch):
    """Whatever dev says, dev_test is of the same weights; of equal ones the earlier are taken."""
    heads, evaluate = [], finetune.evaluate
    dev = best_of_three.task.splits["dev"].images

    def scores(module, preprocess, variables, images, labels, **options):
        heads.append((images is dev, np.array(variables["params"]["head"]["kernel"])))
        found = evaluate(module, preprocess, variables, images, labels, **options)
        value = (0.4, 0.9, 0.9)[len(heads) - 1] if images is dev else found.value
        return found._replace(value=value)

    monkeypatch.setattr(finetune, "evaluate", scores)
    output = best_of_three.run()
    record = output.records[-1]
    assert (record.reported_step, record.dev) == (16, 0.9)
    assert [is_dev for is_dev, _ in heads] == [True, True, True, False]
    np.testing.assert_array_equal(heads[3][1], heads[1][1])
    assert not np.array_equal(heads[3][1], heads[2][1])
    # They are what is kept, too.
    kept = output.model().variables["params"]["head"]["kernel"]
    np.testing.assert_array_equal(kept, heads[1][1][:, :CLASSES])


def test_a_trial_that_diverged_has_no_scores(one_trial, thirds):
    output = one_trial(thirds("single_label")).with_(learning_rate=1e30).run()
    record = output.records[-1]
    assert record.diverged
    assert record.dev is record.dev_test is None
    # Whatever starts from it must not wait for ever.
    assert not np.isfinite(output.model().variables["params"]["head"]["kernel"]).all()
    assert record.ledger.validate == 0


@pytest.mark.parametrize("kind", ["single_label", "multi_label"])
def test_the_report_reads_a_trials_records(one_trial, thirds, kind, config):
    output = one_trial(thirds(kind)).run()
    record = output.records[-1]
    task = records.RunTask(
        name="thirds",
        title="Thirds",
        dataset="thirds",
        domain="object",
        year=2015,
        kind=kind,
        num_classes=CLASSES,
        dev_test_examples=40,
    )
    run = records.RunRecord(
        variant=record.variant,
        tasks=(task,),
        missing=(),
        methods=("scratch",),
        budgets=(record.budget,),
        learning_rates=(record.learning_rate,),
        seeds=(record.seed,),
        config=config.to_dict(),
        versions={},
        device="cpu",
        model="resnet18",
    )
    (row,) = report.results(map(records.to_json, itertools.chain([run], output.records)))
    assert (row["dev_test"], row["metric"]) == (record.dev_test, record.metric)
    assert row["error"] == pytest.approx(1 - record.dev_test)
    assert row["dev_test_top5"] == record.dev_test_top5


def test_fingerprints_tell_labels_apart():
    images = np.zeros((2, 8, 8, 3), np.uint8)

    def of(labels):
        return fingerprint(2, dict.fromkeys(data.SPLITS, data.Split(images, np.asarray(labels))))

    one, several = of([0, 1]), of(np.uint8([[0, 1], [1, 0]]))
    assert len({one, several, of([1, 0]), of(np.uint8([[0, 1], [1, 1]])), of([[0], [1]])}) == 5


@pytest.mark.parametrize("epochs", [0.5, 100.0])
def test_the_rate_rises_for_some_epochs(one_trial, thirds, config, epochs):
    """Of as many steps as Nevis'22 counts in one; where they are not all there, to the end."""
    config.finetune.warmup_epochs, config.finetune.log_every = epochs, 1
    trial = one_trial(thirds("single_label"))
    *log, record = trial.run().records[1:]
    in_epoch = len(trial.task.splits["train"]) // 8 + 1
    warmup = min(int(epochs * in_epoch), record.steps - 1)
    assert 2 < warmup < record.steps
    rates = [line.learning_rate for line in log if line.type == "train"]
    risen = [record.learning_rate * (step + 1) / (warmup + 1) for step in range(warmup)]
    assert rates[:warmup] == pytest.approx(risen)
    assert rates[warmup] == pytest.approx(record.learning_rate)
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[warmup:]))


def test_labels_are_smoothed_as_the_point_says(one_trial, thirds, config):
    """A head of zeros guesses: its loss is that of a guess however labels are smoothed."""
    config.finetune.label_smoothings, config.finetune.log_every = (0.25,), 1
    smoothed = one_trial(thirds("single_label")).run().records
    config.finetune.label_smoothings = (0.0,)
    hard = one_trial(thirds("single_label")).run().records
    assert (smoothed[-1].label_smoothing, hard[-1].label_smoothing) == (0.25, 0.0)
    assert smoothed[1].loss == pytest.approx(np.log(CLASSES))
    assert smoothed[-2].loss > hard[-2].loss + 0.1
