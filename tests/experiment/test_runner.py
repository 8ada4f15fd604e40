"""Whole runs: what they write, what they do twice, and what stops them."""

import csv
import errno
import json
import os
import pathlib

import numpy as np
import pytest

from ctl_jax import data, experiment, failures, files, models, pruning, report
from ctl_jax.errors import UserError
from ctl_jax.experiment import runner, worker
from ctl_jax.experiment.config import validate
from ctl_jax.experiment.tasks import TaskLoader

TRIALS = 24


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of one undisturbed run."""
    return tmp_path_factory.mktemp("run")


def _records(workdir):
    return [json.loads(line) for line in (workdir / "records.jsonl").read_text().splitlines()]


def _rows(workdir):
    with open(workdir / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def done(finished, config, console):
    """The same folder after a run; the first test that asks for it waits for the run."""
    if not (finished / "results.csv").exists():
        experiment.run(config, finished, console)
    return finished


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


def test_results_follow_from_the_records(done):
    assert len(_rows(done)) == TRIALS // 2
    again = done / "again"
    report.write(_records(done), again)
    assert (again / "results.csv").read_bytes() == (done / "results.csv").read_bytes()


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
    assert record["cut_groups"] == 2


def test_the_same_command_again_trains_nothing(done, config, console, monkeypatch):
    before = (done / "records.jsonl").read_bytes(), (done / "results.csv").read_bytes()
    monkeypatch.setattr(runner, "run_trial", None)
    experiment.run(config, done, console)
    assert ((done / "records.jsonl").read_bytes(), (done / "results.csv").read_bytes()) == before
    assert f"{TRIALS} done already" in console.file.getvalue()


@pytest.mark.slow
def test_a_full_disk_loses_nothing(done, config, console, tmp_path, monkeypatch):
    """The fourth trial cannot be saved, and no report written; the same again does the rest."""
    run_trial, calls = runner.run_trial, []

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def counted(*args):
        calls.append(args)
        if len(calls) == 4:
            for name in ("create_bytes", "write_bytes"):
                monkeypatch.setattr(files, name, full)
        return run_trial(*args)

    monkeypatch.setattr(runner, "run_trial", counted)
    with pytest.raises(OSError, match="No space left") as error:
        experiment.run(config, tmp_path, console)
    assert failures.explain(error.value).startswith("No space left on device; free some space")
    assert len(list((tmp_path / "trials").iterdir())) == 3
    assert not (tmp_path / "results.csv").exists()
    monkeypatch.undo()
    monkeypatch.setattr(runner, "run_trial", counted)
    experiment.run(config, tmp_path, console)
    assert len(calls) == TRIALS + 1
    assert (tmp_path / "results.csv").read_bytes() == (done / "results.csv").read_bytes()
    assert not list(tmp_path.rglob("*.tmp*"))


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, ZeroDivisionError])
def test_what_is_done_is_reported_whatever_ends_the_run(
    config, console, tmp_path, monkeypatch, error
):
    def run_trial(place, step, network, task, trial, *args):
        if len(list((tmp_path / "trials").iterdir())) == 2:
            raise error
        record = {"steps": trial.steps, "diverged": True, "spent_flops": trial.spent_flops}
        scores = dict.fromkeys(worker.SCORES)
        ledger = {"train": trial.spent_flops, "validate": 0, "search": 0, "prune": 0, "pretrain": 0}
        described = worker.describe(place.config, trial)
        return [{"type": "trial", **described, **record, **scores, "ledger": ledger, "wall_s": 1.0}]

    monkeypatch.setattr(runner, "run_trial", run_trial)
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
def test_pretrains_once_and_takes_it_up_again(config, console, tmp_path, monkeypatch, small_source):
    config.weights = ""
    config.pretrain.task = "embedded_source"
    config.pretrain.steps = 3
    config.pretrain.batch_size = 8
    config.stream.variant = "digits"
    config.methods = ("dense", "linear_probe", "channels@0.5")
    config.budgets.min_flops = config.budgets.max_flops
    config.budgets.num = 1
    run_trial = runner.run_trial
    monkeypatch.setattr(runner, "run_trial", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        experiment.run(config, tmp_path, console)
    assert "pretrained on" in console.file.getvalue()
    monkeypatch.setattr(runner, "run_trial", run_trial)
    console.file.truncate(0)
    experiment.run(config, tmp_path, console)
    assert "pretrained on" not in console.file.getvalue()
    records = _records(tmp_path)
    (pretraining,) = (r for r in records if r["type"] == "pretrain")
    assert pretraining["steps"] == 3
    assert pretraining["flops"] > 3 * pretraining["flops_per_step"]
    steps = {r["method"]: r["steps"] for r in records if r["type"] == "trial"}
    assert steps["linear_probe"] > steps["dense"]
    assert steps["channels@0.5"] > steps["dense"]


@pytest.mark.slow
def test_a_pretraining_that_diverges_is_not_kept(config, console, tmp_path, small_source):
    config.weights = ""
    config.pretrain.task = "embedded_source"
    config.pretrain.steps = 20
    config.pretrain.batch_size = 8
    config.pretrain.learning_rate = 1e30
    config.stream.variant = "digits"
    for _ in range(2):
        with pytest.raises(UserError, match=r"pretrain\.learning_rate=1e\+30: .*not finite"):
            experiment.run(config, tmp_path, console)
        assert not (tmp_path / "pretrained").exists()


def _interrupt(*args):
    raise KeyboardInterrupt


def test_another_config_in_the_same_folder_is_refused(done, config, console):
    config.finetune.batch_size = 16
    config.seeds = (0, 1)
    before = (done / "config.json").read_bytes()
    with pytest.raises(UserError, match="another config") as error:
        experiment.run(config, done, console)
    assert "config.finetune.batch_size=16 (there: 8)" in str(error.value)
    assert "config.seeds=[0, 1] (there: [0])" in str(error.value)
    assert "learning_rates" not in str(error.value)
    assert (done / "config.json").read_bytes() == before


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


def test_a_trial_whose_file_is_damaged_has_the_same_numbers_again(done, config, console):
    path = min((done / "trials").glob("*.jsonl"))
    content, results = path.read_bytes(), (done / "results.csv").read_bytes()
    path.write_bytes(content[:-20])
    experiment.run(config, done, console)
    assert (done / "results.csv").read_bytes() == results
    again = map(json.loads, path.read_text().splitlines()[:-1])
    before = map(json.loads, content.decode().splitlines()[:-1])
    assert [{**record, "wall_s": 0} for record in again] == [
        {**record, "wall_s": 0} for record in before
    ]
    printed = console.file.getvalue()
    assert f"ctl_jax: trials/{path.name} is cut off (damaged); that trial is done again" in printed
    assert f"{TRIALS - 1} done already" in printed


def test_the_loader_forgets_tasks_that_do_not_fit(config):
    loader = TaskLoader(validate(config), memory_bytes=1)
    digits, shapes = data.stream("digits+shapes")
    first = loader.load(digits)
    assert loader.load(digits) is first
    loader.load(shapes)
    again = loader.load(digits)
    assert again is not first
    assert again.fingerprint == first.fingerprint


def test_limited_evaluation_sees_every_class(config):
    """Also where labels go round: every n-th example of such a set may be of one class."""
    task = TaskLoader(validate(config)).load(data.stream("shapes")[0])
    for name in ("dev", "dev_test"):
        assert len(task.splits[name].labels) == 40
        assert len(np.unique(task.splits[name].labels)) >= 8
