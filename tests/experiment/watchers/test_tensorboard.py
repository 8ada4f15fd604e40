"""TensorBoard's files of a run, read as TensorBoard reads them."""

import dataclasses
import itertools
import json
import pathlib
import subprocess
import sys

import pytest
from tensorboardX.proto import event_pb2, plugin_hparams_pb2

from ctl_jax import experiment, files, interrupts, records
from ctl_jax.errors import UserError
from ctl_jax.experiment import watching
from ctl_jax.experiment.watchers import Run, Watched
from ctl_jax.experiment.watchers.tensorboard import tensorboard
from ctl_jax.finetune import multihost

from ... import event_files

STEP = Watched(
    id="12345678",
    kind="finetune",
    training="12345678",
    name="digits/dense/4GFLOP/lr=0.1,seed=0-123456",
    settings={"task": "digits", "learning_rate": 0.1},
)


def shown(folder: pathlib.Path):
    """What TensorBoard shows of a run: {tag: [(step, value)]}, and the settings of its session.

    Files are read in the order of their names; a session that starts at a step replaces what there
    was from that step on (tensorboard/backend/event_processing/event_accumulator.py).
    """
    points, settings = {}, {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        first, *events = event_files.read(path)
        assert first.file_version == "brain.Event:2"
        for event in events:
            if event.session_log.status == event_pb2.SessionLog.START:
                for tag, found in points.items():
                    points[tag] = [point for point in found if point[0] < event.step]
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "hparams":
                    content = value.metadata.plugin_data.content
                    data = plugin_hparams_pb2.HParamsPluginData.FromString(content)
                    settings |= data.session_start_info.hparams
                else:
                    points.setdefault(value.tag, []).append((event.step, value.simple_value))
    return points, settings


def _train(step, loss):
    return records.TrainRecord(
        trial="t", step=step, flops_per_step=2, flops=2 * step, loss=loss, learning_rate=1, wall_s=1
    )


def _dev(step, dev):
    return records.DevRecord(trial="t", step=step, flops=2 * step, dev=dev, dev_top5=None)


def _follow(workdir, lines):
    """A step says this, and is left there."""
    follow = tensorboard(Run(files.path(workdir), None))
    with follow(STEP) as see:
        for line in lines:
            see(watching.seen_of(line, STEP.settings))
    return workdir / "tensorboard" / STEP.name


def test_a_training_that_goes_on_replaces_what_was_after_its_checkpoint(tmp_path):
    _follow(tmp_path, [_train(2, 9.0), _train(4, 8.0), _dev(4, 0.5), _train(6, 7.0)])
    folder = _follow(tmp_path, [_train(4, 8.5), _dev(4, 0.25), _train(6, 7.5)])
    points, _ = shown(folder)
    assert points["train/loss"] == [(2, 9.0), (4, 8.5), (6, 7.5)]
    assert points["train/flops"] == [(2, 4.0), (4, 8.0), (6, 12.0)]
    assert points["train/dev"] == [(4, 0.25)]
    # Killed after the checkpoint at 6 and before dev was looked at there.
    _follow(tmp_path, [_dev(6, 0.75), _train(8, 6.0)])
    points, _ = shown(folder)
    assert points["train/loss"] == [(2, 9.0), (4, 8.5), (6, 7.5), (8, 6.0)]
    assert points["train/dev"] == [(4, 0.25), (6, 0.75)]
    assert len(list(folder.iterdir())) == 3


def test_what_is_said_is_there_to_be_read_at_once(tmp_path):
    follow = tensorboard(Run(files.path(tmp_path), None))
    with follow(STEP) as see:
        see(watching.seen_of(_train(2, 9.0), {}))
        points, _ = shown(tmp_path / "tensorboard" / STEP.name)
        assert points["train/loss"] == [(2, 9.0)]


def test_steps_that_neither_train_nor_evaluate_are_left_out(tmp_path):
    follow = tensorboard(Run(files.path(tmp_path), None))
    step = dataclasses.replace(STEP, kind="prune")
    assert follow(step) is None
    assert not list(tmp_path.iterdir())


def test_a_run_in_a_bucket_is_refused_before_any_work(config, console, bucket):
    config.watch = ("tensorboard",)
    told = rf"^config\.watch='tensorboard': --workdir={bucket}/run: expected a folder on a disk"
    with pytest.raises(UserError, match=told):
        experiment.run(config, f"{bucket}/run", console)
    assert not files.names(files.path(f"{bucket}/run"))


def test_nothing_of_it_is_imported_before_it_is_asked_for():
    code = "import sys, ctl_jax.experiment; sys.exit('tensorboardX' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.usefixtures("without_figures")
def test_a_run_that_was_interrupted(config, console, tmp_path, monkeypatch):
    config.stream.variant, config.methods = "digits", ("dense",)
    config.finetune.log_every, config.finetune.evaluate_every = 2, 4
    config.checkpoint.every_s = 0.0
    config.watch = ("tensorboard",)
    asked = itertools.count()
    with monkeypatch.context() as patch:
        patch.setattr(multihost, "stop_requested", lambda: next(asked) > 6)
        with pytest.raises(interrupts.Stopped):
            experiment.run(config, tmp_path, console)
    assert len(list((tmp_path / "tensorboard").rglob("events.*"))) == 1
    experiment.run(config, tmp_path, console)
    lines = [records.from_json(line) for line in _lines(tmp_path)]
    trials = [line for line in lines if isinstance(line, records.TrialRecord)]
    folders = {path.parent for path in (tmp_path / "tensorboard").rglob("events.*")}
    assert len(folders) == len(trials) == 4
    for trial in trials:
        (folder,) = (path for path in folders if path.name.endswith(trial.id[:6]))
        rate = f"lr={trial.learning_rate:g},batch=8,seed=0"
        assert folder.parent.parent == tmp_path / "tensorboard/digits/dense"
        assert folder.name == f"{rate}-{trial.id[:6]}"
        points, settings = shown(folder)
        mine = [line for line in lines if getattr(line, "trial", None) == trial.id]
        for kind, name in ((records.TrainRecord, "loss"), (records.DevRecord, "dev")):
            there = [(line.step, getattr(line, name)) for line in mine if isinstance(line, kind)]
            assert points[f"train/{name}"] == [(at, pytest.approx(value)) for at, value in there]
        assert points["result/dev_test"] == [(trial.steps, pytest.approx(trial.dev_test))]
        assert points["result/spent_flops"] == [(trial.steps, pytest.approx(trial.spent_flops))]
        assert settings["trial"].string_value == trial.id
        assert settings["method"].string_value == "dense"
        assert settings["learning_rate"].number_value == trial.learning_rate


def _lines(workdir):
    return map(json.loads, (workdir / "records.jsonl").read_text().splitlines())
