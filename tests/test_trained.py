"""A path becomes the model that it is of."""

import dataclasses
import json

import chex
import pytest

from ctl_jax import exports, models, trained
from ctl_jax.errors import UserError


@pytest.fixture
def folder(tmp_path, tiny_model):
    models.save(tmp_path / "m", tiny_model)
    return tmp_path / "m"


def test_of_a_folder(folder, tiny_model):
    for task in ("", "pets"):
        found = trained.open_model(str(folder), task)
        chex.assert_trees_all_equal(found.variables, tiny_model.variables)
    with pytest.raises(UserError, match=r"model .*/m: its task is 'pets'; expected 'cars'"):
        trained.open_model(str(folder), "cars")


def test_of_weights(tmp_path, tiny_model):
    exports.write(tiny_model, ["safetensors"], tmp_path / "out")
    found = trained.open_model(str(tmp_path / "out"))
    chex.assert_trees_all_equal(found.variables, tiny_model.variables)
    with pytest.raises(UserError, match="out: no run; expected one with a task 'cars'"):
        trained.open_model(str(tmp_path / "out"), "cars")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere", "nowhere: no such file or folder; expected a run's --workdir"),
        ("s3://a/b", r"expected a local folder or gs://"),
        ("empty", "no weights in this folder"),
        ("unfinished", "no records.jsonl yet; expected a finished run"),
    ],
)
def test_of_nothing(tmp_path, monkeypatch, name, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "unfinished" / "steps").mkdir(parents=True)
    with pytest.raises(UserError, match=said):
        trained.open_model(name)


def test_of_a_run(tmp_path, folder, tiny_model, monkeypatch):
    other = dataclasses.replace(tiny_model, notes={"task": "cars"})
    models.save(tmp_path / "o", other)
    best = {"pets": folder, "cars": tmp_path / "o"}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "records.jsonl").write_text(json.dumps({}))
    monkeypatch.setattr(
        "ctl_jax.experiment.best_models",
        lambda place, task="": {name: best[name] for name in ([task] if task else best)},
    )
    assert trained.open_model(str(tmp_path / "run"), "cars").notes == other.notes
    with pytest.raises(UserError, match=r"of several tasks; expected --task=pets\|cars"):
        trained.open_model(str(tmp_path / "run"))
