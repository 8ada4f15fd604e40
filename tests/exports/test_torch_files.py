"""Files for PyTorch: original names, true widths, the same logits, and the same bytes again."""

import dataclasses
import functools
import importlib.util

import chex
import numpy as np
import pytest
from safetensors.numpy import load

from ctl_jax import models
from ctl_jax.exports import torch_files


@pytest.fixture(scope="module")
def exported(small):
    """(case, pruned) -> files."""
    return functools.cache(lambda case, pruned: torch_files.files(small(case, pruned)))


def test_the_graph_computes_the_logits(case, small, exported, images, check, compute):
    model, found = small(case, True), exported(case, True)
    arrays = load(found["model.safetensors"])
    check(model, images(model), compute(found["graph.json"], arrays, images(model)))


def test_read_again_it_is_the_same(case, small, exported, tmp_path):
    model, found = small(case, True), exported(case, True)
    (tmp_path / "model.safetensors").write_bytes(found["model.safetensors"])
    again = models.load_pretrained(tmp_path)
    chex.assert_trees_all_equal(again.variables, model.variables)
    for name in ("architecture", "options", "preprocess", "image_size", "classes"):
        assert getattr(again, name) == getattr(model, name)
    assert torch_files.files(again)["graph.json"] == found["graph.json"]
    assert (
        load(torch_files.files(again)["model.safetensors"]).keys()
        == load(found["model.safetensors"]).keys()
    )


@pytest.mark.parametrize("pruned", [False, True], ids=["whole", "pruned"])
def test_torch_runs_it(case, pruned, small, exported, images, check, tmp_path):
    torch = pytest.importorskip("torch")
    model = small(case, pruned)
    for name, content in exported(case, pruned).items():
        (tmp_path / name).write_bytes(content)
    spec = importlib.util.spec_from_file_location("loaded", tmp_path / "load_torch.py")
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    network = loader.Network(tmp_path)
    for count in (1, 3):
        pixels = images(model, count)
        check(model, pixels, network(torch.from_numpy(pixels)).numpy())


def test_names_are_the_librarys(small):
    model = small("resnet", True)
    arrays = load(torch_files.files(model)["model.safetensors"])
    kernel = model.variables["params"]["stage1_block1"]["conv2"]["kernel"]
    assert kernel.shape[-1] == 4  # Of 8.
    np.testing.assert_array_equal(
        arrays["layer1.0.conv2.weight"], np.asarray(kernel).transpose(3, 2, 0, 1)
    )
    assert "layer1.0.bn2.running_mean" in arrays

    of_hub = dataclasses.replace(model, notes={"library": "huggingface"})
    arrays = load(torch_files.files(of_hub)["model.safetensors"])
    assert "resnet.encoder.stages.0.layers.0.layer.1.convolution.weight" in arrays


def test_the_same_bytes_each_time(small):
    model = small("resnet_cifar", False)
    assert torch_files.files(model) == torch_files.files(model)
