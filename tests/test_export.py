"""The export command: where from, where to, and what is wrong in one line."""

import pytest

from ctl_jax import export, models


@pytest.fixture
def folder(tiny_model, tmp_path):
    models.save(tmp_path / "model", tiny_model)
    return str(tmp_path / "model")


def test_it_says_what_it_wrote(folder, tmp_path, capsys):
    assert export.main([folder, "--to=safetensors", f"--out={tmp_path}/out"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(lines) == sorted(map(str, (tmp_path / "out").iterdir()))
    assert f"{tmp_path}/out/model.safetensors" in lines


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "the following arguments are required: --out"),
        (["--out=o", "--to=tflite"], "target is 'tflite'; expected one of safetensors, onnx"),
        (["--out=o", "--to="], "--to is empty; expected some of safetensors, onnx"),
        (["--out=o", "--task=cars"], "its task is 'pets'; expected 'cars'"),
        (["--out=s3://b"], "expected a local folder or gs://"),
    ],
)
def test_bad_input_is_one_line(folder, tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    assert export.main([folder, *words]) == 2
    complaints = capsys.readouterr().err
    assert complaints.startswith("ctl_jax.export: ")
    assert complaints.count("\n") == 1
    assert said in complaints
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
