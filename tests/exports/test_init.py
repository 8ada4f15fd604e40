"""An export is a folder that says how to run it; nothing that is there is lost."""

import json

import pytest

from ctl_jax import exports, models
from ctl_jax.errors import UserError


@pytest.fixture
def model(small):
    return small("resnet_cifar", True)


def test_files_of_a_folder(model, tmp_path):
    out = tmp_path / "new" / "out"
    paths = exports.write(model, ["safetensors", "stablehlo"], out)
    assert {path.name for path in paths} == {path.name for path in out.iterdir()}
    readme = (out / "README.md").read_text()
    assert "uint8 RGB [batch, 16, 16, 3]" in readme
    assert "## PyTorch" in readme
    assert "## ONNX" not in readme
    about = json.loads((out / "export.json").read_bytes())
    assert about["classes"] == list(model.classes)
    assert models.load_pretrained(out).classes == model.classes
    # Once more, and a part of it.
    before = {path: path.read_bytes() for path in paths}
    assert exports.write(model, ["safetensors", "stablehlo"], out) == paths
    assert {path: path.read_bytes() for path in paths} == before


def test_nothing_is_overwritten(model, tmp_path):
    (tmp_path / "graph.json").write_text("mine")
    with pytest.raises(UserError, match=r"graph\.json is there, and is another; expected a new"):
        exports.write(model, ["safetensors"], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["graph.json"]


def test_what_there_is_not(model, tmp_path):
    with pytest.raises(UserError, match="target is 'tflite'; expected one of safetensors, onnx"):
        exports.write(model, ["safetensors", "tflite"], tmp_path / "a")
    assert not (tmp_path / "a").exists()
