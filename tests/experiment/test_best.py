"""Where the best models of a finished run are."""

import dataclasses
import json

import pytest

from ctl_jax import records
from ctl_jax.errors import UserError
from ctl_jax.experiment import best_models
from ctl_jax.experiment.best import weights_path

from .samples import RECORD


def done(task, id, dev):
    return dataclasses.replace(RECORD, task=task, id=id, dev=dev, diverged=dev is None)


def pending(task):
    return records.PendingRecord(
        id="p", task=task, method="dense", budget="9 flops", seed=0, learning_rate=0.1
    )


@pytest.fixture
def workdir(tmp_path):
    """A run's folder, of some records, where the models of some trials were kept."""

    def make(lines, models=()):
        (tmp_path / "steps").mkdir()
        for id in models:
            (tmp_path / "models" / id).mkdir(parents=True)
        if lines:
            text = "".join(json.dumps(records.to_json(line)) + "\n" for line in lines)
            (tmp_path / "records.jsonl").write_text(text)
        return tmp_path

    return make


def test_best_models_are_found_by_records_alone(workdir):
    lines = [done("b", "x", 0.5), done("a", "y", 0.4), done("b", "z", 0.7), pending("c")]
    run = workdir(lines, ["x", "y", "z"])
    assert best_models(run, "b") == {"b": run / "models/z"}
    with pytest.raises(UserError, match="1 trials on task 'c' are not done"):
        best_models(run)
    (run / "records.jsonl").write_text((run / "records.jsonl").read_text().replace("pending", "-"))
    assert list(best_models(str(run)).items()) == [("b", run / "models/z"), ("a", run / "models/y")]


@pytest.mark.parametrize(
    ("lines", "task", "expected"),
    [
        ([], "", "no records.jsonl yet; expected a finished run"),
        ([done("a", "x", 0.5)], "b", "no task 'b'; expected one of a$"),
        ([done("a", "x", 0.5)], "a", "models/x, is not there; expected .*keep_models='best'"),
        ([done("a", "x", None)], "", "every trial on task 'a' diverged; expected a model"),
        ([dataclasses.replace(pending("a"))], "a", "1 trials on task 'a' are not done; expected"),
    ],
)
def test_what_a_run_lacks_is_said(workdir, lines, task, expected):
    with pytest.raises(UserError, match=expected) as error:
        best_models(workdir(lines), task)
    assert "\n" not in str(error.value)


def test_a_folder_that_is_no_run(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(UserError, match="no run there; expected the --workdir of one"):
            best_models(folder)
    (tmp_path / "records.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match="no trial in its records"):
        best_models(tmp_path)
    (tmp_path / "records.jsonl").write_text("{\n")
    with pytest.raises(UserError, match=r"line 1 of records\.jsonl is not JSON"):
        best_models(tmp_path)


def test_a_runs_folder_stands_for_its_one_model(workdir, tmp_path):
    run = workdir([done("a", "x", 0.5), done("b", "y", 0.7)], ["x", "y"])
    with pytest.raises(UserError, match=f"several tasks; expected .*: {run}/models/x .a., .*y .b."):
        weights_path(str(run))
    (run / "records.jsonl").write_text((run / "records.jsonl").read_text().splitlines()[0])
    assert weights_path(str(run)) == str(run / "models" / "x")
    for other in (run / "models" / "x", run / "none"):
        assert weights_path(str(other)) == str(other)
    assert weights_path("hf:timm/resnet50.a1_in1k") == "hf:timm/resnet50.a1_in1k"


def test_what_auto_has_so_far_is_a_model(workdir):
    """Of each trial of it that is not done; of others there is none before they are."""
    so_far = [
        dataclasses.replace(done("a", id, dev), method="auto", seed=seed)
        for id, dev, seed in (("x", 0.5, 0), ("y", 0.7, 1))
    ]
    left = [
        dataclasses.replace(pending("a"), method="auto", seed=seed, learning_rate=None)
        for seed in (0, 1)
    ]
    run = workdir([*so_far, *left], ["x", "y"])
    assert best_models(run) == {"a": run / "models/y"}
    for other in (
        dataclasses.replace(left[0], seed=2),
        dataclasses.replace(left[0], budget="8 flops"),
        dataclasses.replace(left[0], method="probe"),
    ):
        text = "".join(json.dumps(records.to_json(line)) + "\n" for line in [*so_far, other])
        (run / "records.jsonl").write_text(text)
        with pytest.raises(UserError, match="1 trials on task 'a' are not done"):
            best_models(run)
