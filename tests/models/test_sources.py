"""What the JSON files beside weights say, in the forms that libraries had; see test_pretrained."""

import json

import numpy as np
import pytest
import safetensors.numpy

from ctl_jax import models
from ctl_jax.errors import UserError
from ctl_jax.models.sources import open_source


@pytest.fixture
def opened(tmp_path):
    """Opens a folder of one array beside which there are JSON files."""

    def open_folder(config, processor=None):
        safetensors.numpy.save_file({"a": np.ones(1, "f4")}, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text(json.dumps(config))
        if processor is not None:
            (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
        return open_source(tmp_path)

    return open_folder


MEANS = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


@pytest.mark.parametrize(
    ("processor", "preprocess", "size"),
    [
        (None, None, 64),
        ({}, None, 64),
        (MEANS, "inception", 64),
        (MEANS | {"size": 96}, "inception", 96),
        (MEANS | {"size": {"height": 96, "width": 96}}, "inception", 96),
        (MEANS | {"size": {"shortest_edge": 256}, "crop_size": {"height": 96}}, "inception", 96),
        (MEANS | {"size": 96, "crop_size": 80, "do_center_crop": False}, "inception", 96),
        (MEANS | {"do_rescale": False}, "scale=1 mean=.5,.5,.5 std=.5,.5,.5", 64),
        (MEANS | {"do_normalize": False}, "scale=255", 64),
        ({"do_normalize": False, "do_flip_channel_order": True}, "scale=255 channels=bgr", 64),
        (MEANS | {"rescale_factor": 1 / 127.5}, "scale=127.5 mean=.5,.5,.5 std=.5,.5,.5", 64),
    ],
)
def test_processors(opened, processor, preprocess, size):
    found = opened({"model_type": "vit", "image_size": 64}, processor)
    expected = preprocess and models.Preprocess.parse(preprocess)
    assert (found.preprocess, found.image_size) == (expected, size)
    assert found.library == "huggingface"


def test_classes_without_names(opened):
    names = {str(i): f"LABEL_{i}" for i in range(12)}
    assert opened({"model_type": "vit", "id2label": names}).classes == ()
    names = {str(i): f"class {i}" for i in range(12)}
    found = opened({"model_type": "vit", "id2label": names})
    assert found.classes == tuple(names[str(i)] for i in range(12))


def test_a_hint(opened):
    found = opened({"architecture": "resnet50", "mean": [0.5] * 3, "std": [0.5] * 3})
    assert found.hint.endswith(" resnet50")
    assert (found.library, found.preprocess) == ("timm", models.PREPROCESS["inception"])


def test_a_config_of_other_weights(tmp_path, opened):
    """What is beside several files is of none of them in particular."""
    opened({"architecture": "resnet50"})
    for name in ("a.safetensors", "b.safetensors"):
        safetensors.numpy.save_file({"a": np.ones(1, "f4")}, tmp_path / name)
    assert open_source(tmp_path / "a.safetensors").config == {}
    assert open_source(tmp_path / "model.safetensors").config


def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.iterdir", refuse)
    with pytest.raises(UserError, match=r"^weights .*: cannot be read \(Permission denied\)$"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("beside", "license"),
    [
        ({"config.json": '{"architecture": "resnet18", "license": "mit"}'}, "mit"),
        ({"config.json": '{"pretrained_cfg": {"license": "cc-by-4.0"}}'}, "cc-by-4.0"),
        (
            {
                "config.json": "{}",
                "README.md": "---\ntags: [a]\nlicense: apache-2.0\n---\n# Card\n",
            },
            "apache-2.0",
        ),
        ({"config.json": "{}", "README.md": "license: mit\n"}, ""),
        ({"README.md": "---\nlicense: mit\n---\n"}, ""),
    ],
)
def test_the_licence_is_what_the_config_or_the_card_beside_says(tmp_path, beside, license):
    np.savez(tmp_path / "weights.npz", a=np.zeros(1, np.float32))
    for name, text in beside.items():
        (tmp_path / name).write_text(text)
    assert open_source(tmp_path).license == license
