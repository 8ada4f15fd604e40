"""What names, shapes and hints tell of residual networks."""

import pytest

from ctl_jax import models
from ctl_jax.models import matching, names


def recognised(name, library="torchvision", hint="", **options):
    module = models.create(name, 3, **options)
    (naming,) = names.of_module(module, library)
    shapes = {}
    ours = matching.shapes_of(module, 32)
    for entry in naming.entries(ours):
        arrays = entry.write(matching.zeros([ours[path] for path in entry.ours]))
        shapes |= zip(entry.theirs, (array.shape for array in arrays), strict=True)
    return naming.recognise(shapes, hint), naming


@pytest.mark.parametrize(
    ("hint", "version", "preprocess"),
    [
        ("resnet50", "v1.5", "imagenet"),
        ("resnet50-v1.5", "v1.5", "imagenet"),
        ("resnet50_v1b", "v1.5", "imagenet"),
        ("resnet50_v1", "v1", "imagenet"),
        ("resnet50_caffe", "v1", "imagenet"),
        ("R-50-MSRA", "v1", "imagenet"),
        ("resnet50.a1_in1k", "v1.5", "imagenet_bicubic"),
        ("resnet50.tv_in1k", "v1.5", "imagenet"),
    ],
)
def test_hints(hint, version, preprocess):
    network, _ = recognised("resnet50", hint=hint, stages=(1, 1), width=8)
    assert network.options.get("version", "v1.5") == version
    assert network.preprocess == models.PREPROCESS[preprocess]


def test_the_version_that_hugging_face_says():
    network, naming = recognised("resnet50", "huggingface", stages=(1, 1), width=8)
    assert "version" not in naming.configure(network, {}).options
    told = naming.configure(network, {"downsample_in_bottleneck": True})
    assert told.options["version"] == "v1"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet50", {"stages": (3, 4, 6)}),
        ("resnet101", {"stages": (3, 4, 23)}),
        ("resnet56", {"stages": (9, 9)}),
    ],
)
def test_the_first_stages(name, options):
    network, _ = recognised(name, **options)
    assert (network.name, network.options) == (name, options)
    assert network.image_size == (32 if name == "resnet56" else 224)


def test_kerass_own_epsilon():
    network, _ = recognised("resnet50", "keras", version="v1", conv_bias=True)
    assert network.options == {"version": "v1", "conv_bias": True, "epsilon": 1.001e-5}
    assert network.preprocess == models.PREPROCESS["caffe"]
