"""Whole runs: what they write, what they do twice, and what stops them."""

import contextlib
import csv
import dataclasses
import errno
import io
import json
import os
import pathlib
import shutil

import numpy as np
import pytest
import rich.console

from ctl_jax import compute, data, experiment, failures, files, models, pruning, report
from ctl_jax import records as types
from ctl_jax.cluster import Worker
from ctl_jax.errors import UserError
from ctl_jax.experiment.config import validate
from ctl_jax.experiment.kinds import finetune as trial_steps
from ctl_jax.experiment.queue import Queue
from ctl_jax.experiment.steps import KINDS, Output
from ctl_jax.experiment.tasks import TaskLoader

from .undrawn import fake_figures

TRIALS = 24


@pytest.fixture(autouse=True)
def _figures(monkeypatch):
    """Drawn in the run that tests share, and in no other."""
    fake_figures(monkeypatch.setattr)


@pytest.fixture(scope="module")
def done(shared_config, tmp_path_factory):
    """The folder of one undisturbed run, which no test changes."""
    folder = tmp_path_factory.mktemp("run")
    experiment.run(shared_config, folder, _printing())
    before = _contents(folder)
    yield folder
    assert _contents(folder) == before


@pytest.fixture
def workdir(done, tmp_path):
    """A copy of that run."""
    return shutil.copytree(done, tmp_path / "done")


def _contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _records(workdir):
    return [json.loads(line) for line in (workdir / "records.jsonl").read_text().splitlines()]


def _rows(workdir):
    with open(workdir / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def play(monkeypatch):
    """Replaces how steps of a kind are computed."""

    def play(run, kind="finetune"):
        monkeypatch.setitem(KINDS, kind, dataclasses.replace(KINDS[kind], run=run))

    return play


def test_writes_every_trial_once_and_within_its_budget(done):
    trials = [r for r in _records(done) if r["type"] == "trial"]
    assert len(trials) == len({r["id"] for r in trials}) == TRIALS
    for record in trials:
        assert 0 < record["spent_flops"] <= record["budget_flops"]
        assert record["spent_flops"] + record["flops_per_step"] > record["budget_flops"]
        assert record["spent_flops"] == record["steps"] * record["flops_per_step"]
        assert record["ledger"]["train"] == record["spent_flops"]
        assert record["ledger"]["validate"] == 80 * record["forward_flops"]
        assert 0 <= record["dev"] <= 1
        assert record["dev"] * 40 == pytest.approx(round(record["dev"] * 40))


def test_training_records_carry_flops(done):
    records = _records(done)
    trials = {r["id"]: r for r in records if r["type"] == "trial"}
    last = {}
    for record in records:
        if record["type"] == "train":
            trial = trials[record["trial"]]
            assert record["flops_per_step"] == trial["flops_per_step"]
            assert record["flops"] == record["step"] * record["flops_per_step"]
            assert np.isfinite(record["loss"])
            last[record["trial"]] = record
    assert {key: record["flops"] for key, record in last.items()} == {
        key: trial["spent_flops"] for key, trial in trials.items()
    }


def test_budgets_are_the_same_for_all_methods_and_cheaper_steps_are_more(done):
    rows = _rows(done)
    assert {row["budget_flops"] for row in rows} == {"40000000", "120000000"}
    steps = {(r["task"], r["method"], r["budget_flops"]): int(r["steps"]) for r in rows}
    for task in ("digits", "shapes"):
        for budget in ("40000000", "120000000"):
            assert steps[task, "filters@0.5", budget] > steps[task, "dense", budget]


def test_results_follow_from_the_records(done, tmp_path):
    assert len(_rows(done)) == TRIALS // 2
    report.write(_records(done), tmp_path)
    assert (tmp_path / "results.csv").read_bytes() == (done / "results.csv").read_bytes()


def test_the_report_is_there(done):
    assert (done / "report.html").stat().st_size > 10_000
    figures = {path.name for path in (done / "figures").iterdir()}
    assert {"task_digits.png", "task_shapes.png", "mean_over_tasks.png"} <= figures


def test_the_kept_channels_make_the_pruned_network_again(done, config):
    keep = pruning.Keep.from_json((done / "keep" / "filters@0.5.json").read_text())
    dense = models.load_checkpoint(config.weights)
    module = models.create("resnet18", num_outputs=1, stages=(1, 1), width=8)
    image = np.zeros((1, 16, 16, 3), np.float32)
    groups = pruning.trace(lambda v, x: models.apply(module, v, x), dense, image)
    small = pruning.prune(dense, groups, keep)
    (record,) = (r for r in _records(done) if r.get("method") == "filters@0.5" and "groups" in r)
    head = 16 + 1
    assert models.count_params(small) - head == record["params"]
    (pruned,) = (r for r in _records(done) if r["type"] == "prune")
    assert pruned["cut_groups"] == record["cut_groups"] == 2
    assert pruning.Keep.from_json(pruned["keep"]) == keep


def test_the_same_command_again_trains_nothing(done, workdir, config, console, play):
    play(None)
    play(None, "prune")
    experiment.run(config, workdir, console)
    for name in ("records.jsonl", "results.csv"):
        assert (workdir / name).read_bytes() == (done / name).read_bytes()
    assert f"{TRIALS} done already" in console.file.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("mine", [True, False])
def test_one_of_several_workers_says_last_that_it_ends(workdir, config, console, monkeypatch, mine):
    if not mine:
        there = contextlib.nullcontext(False)
        monkeypatch.setattr(Queue, "reporting", lambda queue, complete: there)
    experiment.run(config, workdir, console, worker=Worker(1, 2))
    by = "" if mine else ", and its report written by another worker"
    last = console.file.getvalue().splitlines()[-1]
    assert last == f"All steps of the run are done{by}. This worker ends."


def test_a_full_disk_loses_nothing(done, config, console, tmp_path, monkeypatch, play):
    """The fourth trial cannot be saved, and no report written; the same again does the rest."""
    run, calls = KINDS["finetune"].run, []

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def counted(*args):
        calls.append(args)
        if len(calls) == 4:
            for name in ("create_bytes", "write_bytes"):
                monkeypatch.setattr(files, name, full)
        return run(*args)

    play(counted)
    with pytest.raises(OSError, match="No space left") as error:
        experiment.run(config, tmp_path, console)
    assert failures.explain(error.value).startswith("No space left on device; free some space")
    # The cut, and three trials.
    assert len(list((tmp_path / "steps").iterdir())) == 1 + 3
    assert not (tmp_path / "results.csv").exists()
    monkeypatch.undo()
    play(counted)
    experiment.run(config, tmp_path, console)
    assert len(calls) == TRIALS + 1
    assert (tmp_path / "results.csv").read_bytes() == (done / "results.csv").read_bytes()
    assert not list(tmp_path.rglob("*.tmp*"))


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, ZeroDivisionError])
def test_what_is_done_is_reported_whatever_ends_the_run(config, console, tmp_path, play, error):
    def run(step, workspace, job):
        if len(list((tmp_path / "steps").iterdir())) == 1 + 2:
            raise error
        (stretch,) = trial_steps.plan(step, workspace)
        spent = stretch.updates * stretch.cost.step
        scores = dict.fromkeys(trial_steps.SCORES)
        record = types.TrialRecord(
            **trial_steps.describe(step, workspace),
            **scores,
            steps=stretch.updates,
            diverged=True,
            spent_flops=spent,
            ledger=compute.Ledger(train=spent),
            wall_s=1.0,
        )
        return Output([record])

    play(run)
    with pytest.raises(error):
        experiment.run(config, tmp_path, console)
    assert len([r for r in _records(tmp_path) if r["type"] == "trial"]) == 2
    assert (tmp_path / "report.html").exists()


@pytest.mark.slow
def test_a_trial_does_not_depend_on_the_others(done, config, console, tmp_path):
    """Fewer tasks, methods, budgets and rates: the trials that are left have the same numbers."""
    config.stream.variant = "shapes"
    config.methods = ("filters@0.5",)
    config.budgets.min_flops = config.budgets.max_flops
    config.budgets.num = 1
    config.finetune.learning_rates = (0.2,)
    experiment.run(config, tmp_path, console)
    (trial,) = (r for r in _records(tmp_path) if r["type"] == "trial")
    (same,) = (r for r in _records(done) if r.get("id") == trial["id"])
    assert {**trial, "wall_s": 0, "variant": ""} == {**same, "wall_s": 0, "variant": ""}


def test_a_plan_writes_nothing(config, console, tmp_path):
    workdir = tmp_path / "run"
    experiment.run(config, workdir, console, plan_only=True)
    assert not workdir.exists()
    printed = console.file.getvalue()
    for text in ("digits", "shapes", "filters@0.5", "Trials: 24 = 2 tasks x 3 methods x 2 budgets"):
        assert text in printed


def test_diverged_trials_are_recorded_and_do_not_stop_the_run(config, console, tmp_path):
    config.stream.variant = "digits"
    config.methods = ("dense",)
    config.finetune.learning_rates = (1e30,)
    experiment.run(config, tmp_path, console)
    trials = [r for r in _records(tmp_path) if r["type"] == "trial"]
    assert len(trials) == 2
    for trial in trials:
        assert trial["diverged"]
        assert trial["dev"] is None
        assert trial["dev_test"] is None
        assert 0 < trial["ledger"]["train"] <= trial["budget_flops"]
    assert all(row["dev_test"] == "" for row in _rows(tmp_path))


@pytest.mark.slow
def test_pretrains_once_and_takes_it_up_again(config, console, tmp_path, play, small_source):
    config.weights = ""
    config.pretrain.task = "synthetic_source"
    config.pretrain.steps = 3
    config.pretrain.batch_size = 8
    config.stream.variant = "digits"
    config.methods = ("dense", "linear_probe", "channels@0.5")
    config.budgets.min_flops = config.budgets.max_flops
    config.budgets.num = 1
    run = KINDS["finetune"].run
    play(_interrupt)
    with pytest.raises(KeyboardInterrupt):
        experiment.run(config, tmp_path, console)
    assert "pretrained on" in console.file.getvalue()
    play(run)
    console.file.truncate(0)
    experiment.run(config, tmp_path, console)
    assert "pretrained on" not in console.file.getvalue()
    records = _records(tmp_path)
    (pretraining,) = (r for r in records if r["type"] == "pretrain")
    assert pretraining["steps"] == 3
    assert pretraining["flops"] > 3 * pretraining["flops_per_step"]
    # It stays: a longer run goes on from the same weights.
    weights = models.load(tmp_path / "models" / pretraining["id"]).variables
    assert models.content_hash(weights) == pretraining["weights"]
    steps = {r["method"]: r["steps"] for r in records if r["type"] == "trial"}
    assert steps["linear_probe"] > steps["dense"]
    assert steps["channels@0.5"] > steps["dense"]


@pytest.mark.slow
def test_a_pretraining_that_diverges_is_not_kept(config, console, tmp_path, small_source):
    config.weights = ""
    config.pretrain.task = "synthetic_source"
    config.pretrain.steps = 20
    config.pretrain.batch_size = 8
    config.pretrain.learning_rate = 1e30
    config.stream.variant = "digits"
    for _ in range(2):
        with pytest.raises(UserError, match=r"pretrain\.learning_rate=1e\+30: .*not finite"):
            experiment.run(config, tmp_path, console)
        assert not (tmp_path / "models").exists()


def _interrupt(*args):
    raise KeyboardInterrupt


def test_a_budget_below_one_step(config, console, tmp_path):
    config.budgets.min_flops = 1e5
    with pytest.raises(UserError, match=r"budgets\.min_flops=1e\+05: .*one step.*'dense'.*digits"):
        experiment.run(config, tmp_path / "run", console)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("stream.variant", "MINI", "MINI"),
        ("stream.variant", "digits+nothing", "nothing"),
        ("methods", ("dense", "filter@0.5"), "unknown method 'filter@0.5'"),
        ("weights", "/nowhere/weights.npz", "/nowhere/weights.npz"),
        ("weights", "/nowhere/checkpoint", "/nowhere/checkpoint"),
        ("model.width", 16, r"has shape .* expected .* by config\.model"),
        ("pruning.round_to", -1, "round_to"),
    ],
)
def test_bad_input_stops_before_any_work(config, console, tmp_path, key, value, expected):
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=expected) as error:
        experiment.run(config, tmp_path / "run", console)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_missing_data_directory_is_named(config, console, tmp_path):
    config.stream.variant = "mnist"
    config.data.dirs = (f"tfds:{tmp_path}/nowhere",)
    with pytest.raises(UserError, match="nowhere"):
        experiment.run(config, tmp_path / "run", console)


def test_missing_tasks_stop_the_run_with_their_list(config, console, tmp_path):
    config.stream.variant = "digits+mnist+cifar10"
    with pytest.raises(UserError, match=r"2 of 3 tasks lack their data.*'skip'") as error:
        experiment.run(config, tmp_path / "run", console)
    assert "MNIST: " in str(error.value)
    assert "CIFAR 10: " in str(error.value)


def test_missing_tasks_can_be_skipped_and_are_named(config, console, tmp_path):
    config.stream.variant = "digits+mnist"
    config.stream.missing = "skip"
    config.methods = ("dense",)
    config.budgets.min_flops = config.budgets.max_flops
    config.budgets.num = 1
    config.finetune.learning_rates = (0.1,)
    experiment.run(config, tmp_path, console)
    run = _records(tmp_path)[0]
    assert [task["name"] for task in run["tasks"]] == ["digits"]
    assert [task["title"] for task in run["missing"]] == ["MNIST"]
    assert "MNIST" in (tmp_path / "report.html").read_text()


def test_a_folder_that_cannot_be_written(config, console, tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(UserError, match=r"--workdir=.*file/run: expected a folder"):
        experiment.run(config, pathlib.Path(path) / "run", console)


def test_a_trial_whose_file_is_damaged_has_the_same_numbers_again(done, workdir, config, console):
    (trial, *_) = (r["id"] for r in _records(done) if r["type"] == "trial")
    path = workdir / "steps" / f"{trial}.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    experiment.run(config, workdir, console)
    assert (workdir / "results.csv").read_bytes() == (done / "results.csv").read_bytes()
    again = map(json.loads, path.read_text().splitlines()[:-1])
    before = map(json.loads, content.decode().splitlines()[:-1])
    assert [{**record, "wall_s": 0} for record in again] == [
        {**record, "wall_s": 0} for record in before
    ]
    printed = console.file.getvalue()
    assert f"ctl_jax: steps/{path.name} is cut off (damaged); that step is done again" in printed
    assert f"{TRIALS - 1} done already" in printed


def test_the_loader_forgets_tasks_that_do_not_fit(config):
    loader = TaskLoader(validate(config).data, memory_bytes=1)
    digits, shapes = data.stream("digits+shapes")
    first = loader.load(digits)
    assert loader.load(digits) is first
    loader.load(shapes)
    again = loader.load(digits)
    assert again is not first
    assert again.fingerprint == first.fingerprint


def test_limited_evaluation_sees_every_class(config):
    """Also where labels go round: every n-th example of such a set may be of one class."""
    task = TaskLoader(validate(config).data).load(data.stream("shapes")[0])
    for name in ("dev", "dev_test"):
        assert len(task.splits[name].labels) == 40
        assert len(np.unique(task.splits[name].labels)) >= 8


def _steps(workdir):
    return {path.name: path.read_bytes() for path in (workdir / "steps").iterdir()}


def _timeless(records):
    return [{**record, "wall_s": 0} for record in records]


def _printing():
    return rich.console.Console(file=io.StringIO(), width=140)


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """The folder of a run that grows."""
    return tmp_path_factory.mktemp("grown")


@pytest.fixture
def small(config):
    """2 trials; what each of `AXES` adds is done on top of it."""
    config.stream.variant = "digits"
    config.methods = ("filters@0.5",)
    config.budgets.amounts = ("4e7 flops",)
    config.finetune.learning_rates = (0.02, 0.2)
    return config


AXES = {
    "methods": (("channels@0.5", "filters@.50", "dense+head_bn"), 4),
    "budgets.amounts": (("20000000 flops", "0.01 epochs", "4e7 flops"), 4),
    "seeds": ((1, 0), 2),
    "finetune.learning_rates": ((0.2, 0.1, 0.02), 1),
    "stream.variant": ("shapes+digits", 2),
}


@pytest.mark.slow
def test_a_run_grows_by_what_is_missing(grown, small, play):
    """And narrowed again, it reports what the config names, without doing anything."""
    experiment.run(small, grown, _printing())
    first, reported = _steps(grown), (grown / "results.csv").read_bytes()
    lines = _records(grown)[1:]
    run, calls = KINDS["finetune"].run, []
    play(lambda *args: calls.append(args) or run(*args))
    for key, (value, more) in AXES.items():
        config = small.copy_and_resolve_references()
        config.update_from_flattened_dict({key: value})
        before = _steps(grown)
        calls.clear()
        experiment.run(config, grown, _printing())
        assert len(calls) == more, key
        after = _steps(grown)
        assert before.items() < after.items()
        trials = [record for record in _records(grown) if record["type"] == "trial"]
        assert len(trials) == 2 + more
        noted = json.loads((grown / "config.json").read_text())
        assert noted == json.loads(json.dumps(validate(config).to_dict()))
    assert len(first) == 1 + 2
    play(pytest.fail)
    experiment.run(small, grown, _printing())
    assert (grown / "results.csv").read_bytes() == reported
    assert _records(grown)[1:] == lines


@pytest.mark.slow
def test_what_a_run_grew_by_is_what_a_run_of_its_own_has(grown, small, console, tmp_path):
    """Whatever else was done in the folder before."""
    small.methods, small.seeds = ("channels@0.5",), (0, 1)
    for folder in (grown, tmp_path):
        experiment.run(small, folder, console)
    assert _timeless(_records(tmp_path)) == _timeless(_records(grown))
    assert (tmp_path / "results.csv").read_bytes() == (grown / "results.csv").read_bytes()


def _models(workdir):
    return {path.name for path in (workdir / "models").iterdir() if len(path.name) == 16}


def _check_model(workdir, trial, config):
    """Its accuracy is the record's."""
    task = TaskLoader(validate(config).data).load(*data.stream(trial["task"]))
    model = models.load(workdir / "models" / trial["id"])
    split = task.splits["dev_test"]
    images = model.preprocess(split.images)
    logits = np.asarray(models.apply(model.module, model.variables, images))
    assert logits.shape == (len(split.labels), task.num_classes)
    assert bool(model.keep) == (trial["scope"] is not None)
    assert len(model.classes) in (0, task.num_classes)
    assert np.mean(logits.argmax(axis=1) == split.labels) == pytest.approx(trial["dev_test"])


def _best(records):
    """Ids of the winners by task."""
    by_task = {}
    for trial in (types.from_json(r) for r in records if r["type"] == "trial"):
        by_task.setdefault(trial.task, []).append(trial)
    return {types.winner(trials).id for trials in by_task.values()}


@pytest.mark.slow
def test_the_best_model_of_each_task_stays(done, config, tmp_path, play):
    """Those that were kept in case they would win are gone; no other record depends on it."""
    config.keep_models = "best"
    console = _printing()
    experiment.run(config, tmp_path, console)
    assert (tmp_path / "results.csv").read_bytes() == (done / "results.csv").read_bytes()
    records = _records(tmp_path)
    evaluations = [record for record in records if record["type"] == "evaluate"]
    rest = [record for record in records if record["type"] != "evaluate"]
    assert _timeless(rest[1:]) == _timeless(_records(done)[1:])
    winners = _best(records)
    assert len(winners) == 2
    assert _models(tmp_path) == winners == {record["trial"] for record in evaluations}
    for record in evaluations:
        score = f"{record['score']:.3f} ({record['low']:.3f} \N{EN DASH} {record['high']:.3f})"
        assert score in (tmp_path / "models" / record["trial"] / "card.md").read_text()
        assert f"{tmp_path}/models/{record['trial']}" in console.file.getvalue()
    for trial in records:
        if trial.get("id") in winners:
            _check_model(tmp_path, trial, config)
    # The same command again, after one that was killed while it wrote a card.
    half = [tmp_path / "models" / winner / ".card.12-0123abcd.tmp.md" for winner in winners]
    for path in half:
        path.write_text("half")
    play(pytest.fail)
    experiment.run(config, tmp_path, _printing())
    assert _models(tmp_path) == winners
    assert not any(path.exists() for path in half)


@pytest.mark.slow
def test_models_that_are_asked_for_later_are_made_and_change_no_record(small, tmp_path, play):
    run, calls = KINDS["finetune"].run, []
    play(lambda *args: calls.append(args) or run(*args))
    experiment.run(small, tmp_path, _printing())
    assert not (tmp_path / "models").exists()
    before, lines = _steps(tmp_path), _records(tmp_path)[1:]
    trials = {record["id"] for record in lines if record["type"] == "trial"}
    winners = _best(lines)
    for mode, made, kept in (
        # The winner is trained again; then the others; and none of them goes again.
        ("best", 1, winners),
        ("all", 1, trials),
        ("best", 0, trials),
        ("none", 0, trials),
    ):
        calls.clear()
        small.keep_models = mode
        experiment.run(small, tmp_path, _printing())
        assert (mode, len(calls), _models(tmp_path)) == (mode, made, kept)
        # The best are evaluated besides.
        now = _steps(tmp_path)
        assert {name: now[name] for name in before} == before
        assert len(now) == len(before) + len(winners)
        rest = [record for record in _records(tmp_path) if record["type"] != "evaluate"]
        assert rest[1:] == lines
    for trial in lines:
        if trial["type"] == "trial":
            _check_model(tmp_path, trial, small)


@pytest.mark.slow
def test_a_model_that_is_best_no_more_goes(small, tmp_path):
    """A run that grows by a better trial."""
    small.keep_models = "best"
    small.finetune.learning_rates = (1e-6,)
    experiment.run(small, tmp_path, _printing())
    first = _models(tmp_path)
    assert first == _best(_records(tmp_path))
    small.finetune.learning_rates = (1e-6, 0.2, 2e-6)
    experiment.run(small, tmp_path, _printing())
    (winner,) = _best(_records(tmp_path))
    assert winner not in first
    assert _models(tmp_path) == {winner}


@pytest.mark.parametrize("mode", ["best", "all"])
def test_a_trial_that_diverged_leaves_no_model(small, console, tmp_path, mode):
    small.keep_models, small.finetune.learning_rates = mode, (1e30,)
    experiment.run(small, tmp_path, console)
    (trial,) = (record for record in _records(tmp_path) if record["type"] == "trial")
    assert trial["diverged"]
    assert not (tmp_path / "models").exists() or not _models(tmp_path)


@pytest.mark.slow
def test_a_budget_in_seconds_is_measured_once(small, console, tmp_path, play):
    small.budgets.amounts, small.finetune.learning_rates = ("0.02 seconds",), (0.1,)
    experiment.run(small, tmp_path, console)
    (pace,) = (record for record in _records(tmp_path) if record["type"] == "pace")
    (trial,) = (record for record in _records(tmp_path) if record["type"] == "trial")
    assert trial["budget"] == "0.02 seconds"
    assert trial["budget_flops"] == pytest.approx(0.02 * pace["flops_per_second"], abs=1)
    for kind in ("pace", "finetune"):
        play(pytest.fail, kind)
    before = (tmp_path / "results.csv").read_bytes()
    experiment.run(small, tmp_path, console)
    assert (tmp_path / "results.csv").read_bytes() == before
