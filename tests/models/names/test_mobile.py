"""MobileNets, EfficientNets and SqueezeNets: what names and shapes tell, and what the hint does."""

import functools
import re

import numpy as np
import pytest

from ctl_jax import models
from ctl_jax.models import matching, names
from ctl_jax.models.names import mobile


@functools.cache
def written(library, name, options=()):
    """(the naming, shapes of a network's arrays by a library's names)."""
    module = models.create(name, 10, **dict(options))
    (naming,) = names.of_module(module, library)
    shapes = matching.shapes_of(module, 224)
    arrays = {path: broadcast(shape) for path, shape in shapes.items()}
    return naming, {key: array.shape for key, array in names.write(naming, arrays).items()}


def broadcast(shape):
    return np.broadcast_to(np.float32(0), shape)


def recognise(library, name, options=(), hint="", drop=None):
    naming, shapes = written(library, name, options)
    kept = {key: s for key, s in shapes.items() if not drop or not re.fullmatch(drop, key)}
    return naming.recognise(kept, hint)


SAME = {"padding": "same", "epsilon": 1e-3}
END = {"padding": "end", "epsilon": 1e-3}


@pytest.mark.parametrize(
    ("library", "name", "hint", "options", "preprocess", "size"),
    [
        ("timm", "efficientnet_b2", "efficientnet_b2.ra_in1k", {}, "imagenet_bicubic", 256),
        ("timm", "efficientnet_b2", "tf_efficientnet_b2.in1k", SAME, "imagenet_bicubic", 260),
        ("torchvision", "efficientnet_b2", "efficientnet_b2-c35c1473", {}, "imagenet_bicubic", 288),
        ("timm", "efficientnet_lite4", "tf_efficientnet_lite4.in1k", SAME, None, 380),
        ("efficientnet_pytorch", "efficientnet_lite4", "any", SAME, "lite", 300),
        ("efficientnet_pytorch", "efficientnet_b0", "any", SAME, "imagenet_bicubic", 224),
        ("keras", "efficientnet_b0", "any", SAME, "imagenet_bicubic", 224),
        ("huggingface", "efficientnet_b2", "any", SAME, "imagenet_bicubic", 260),
        ("keras", "mobilenet_v1", "mobilenet_1_0_224_tf", END, "inception", 224),
        ("huggingface", "mobilenet_v1", "any", SAME, "inception", 224),
        ("torchvision", "mobilenet_v2", "mobilenet_v2-b0353104", {}, "imagenet", 224),
        ("huggingface", "mobilenet_v2", "any", SAME, "inception", 224),
        ("torchvision", "mobilenet_v3_large", "any", {}, "imagenet", 224),
        ("timm", "mobilenet_v3_large", "mobilenetv3_large_100", {"epsilon": 1e-5}, "imagenet", 224),
        (
            "timm", "mobilenet_v3_small", "tf_mobilenetv3_small_100", {"padding": "same"},
            "inception", 224,
        ),
        ("torchvision", "squeezenet1_0", "any", {"relu_head": True}, "imagenet", 224),
    ],
)  # fmt: skip
def test_what_no_shape_tells(library, name, hint, options, preprocess, size):
    found = recognise(library, name, hint=hint)
    assert (found.name, found.options, found.image_size) == (name, options, size)
    if preprocess:
        assert str(found.preprocess) == preprocess
    else:
        assert (found.preprocess.mean, found.preprocess.interpolation) == ((0.5,) * 3, "bicubic")


# timm's mobilenetv2_110d.
DEEP = {"stages": (1, 3, 4, 5, 4, 4, 1), "width_multiplier": 1.1, "fixed_ends": True}


@pytest.mark.parametrize(
    ("library", "name", "options"),
    [
        ("timm", "mobilenet_v2", DEEP),
        ("torchvision", "mobilenet_v2", {"width_multiplier": 0.35}),
        ("timm", "mobilenet_v3_small", {"width_multiplier": 0.5, "epsilon": 1e-5}),
        ("timm", "mobilenet_v3_large", {"minimal": True, "epsilon": 1e-5}),
        ("timm", "mobilenet_v3_small", {"minimal": True, "epsilon": 1e-5}),
        ("timm", "mobilenet_v1", {"last": True, "width_multiplier": 1.25}),
    ],
)  # fmt: skip
def test_widths_and_forms(library, name, options):
    assert recognise(library, name, tuple(options.items()))[:2] == (name, options)


@pytest.mark.parametrize(
    ("library", "name", "drop", "stages"),
    [
        ("timm", "efficientnet_b0", r"(blocks\.[56]|conv_head|bn2|class).*", (1, 2, 2, 3, 3)),
        ("torchvision", "mobilenet_v2", r"features\.1[45678]\..*|classifier.*", (1, 2, 3, 4, 3)),
        ("torchvision", "mobilenet_v3_small", r"features\.(9|1\d)\..*|classifier.*", (1, 2, 3, 2)),
    ],
)  # fmt: skip
def test_truncated(library, name, drop, stages):
    found = recognise(library, name, drop=drop)
    assert found[:2] == (name, {"stages": stages, "last": False})


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "efficientnet_lite0"])
def test_a_guess_is_said(name):
    """Of a file called model.safetensors nothing tells that its weights are not TensorFlow's."""
    (remark,) = recognise("timm", name, hint="model").remarks
    assert "padding='same' and epsilon=1e-3" in remark
    assert recognise("timm", name, hint=f"tf_{name}").remarks == ()


def test_truncated_squeezenet():
    found = recognise("torchvision", "squeezenet1_1", drop=r"classifier.*|features\.(9|1\d)\..*")
    assert found[:2] == ("squeezenet1_1", {"stages": (2, 2)})


def test_a_files_batch_norms_are_not_needed():
    """They may be folded into the convolutions."""
    drop = r".*\.(bn\d|running_\w+)(\..*)?"
    assert recognise("timm", "efficientnet_b0", drop=drop)[:2] == ("efficientnet_b0", {})
    found = recognise("torchvision", "mobilenet_v2", drop=r".*\.(running_\w+|bias)")
    assert found[:2] == ("mobilenet_v2", {})


def test_each_file_is_of_one_family():
    """timm's names of four families are alike."""
    cases = ("mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "efficientnet_lite0")
    for name in cases:
        _, shapes = written("timm", name)
        found = {
            network.name
            for naming in names.namings()
            if naming.library == "timm" and (network := naming.recognise(shapes, ""))
        }
        assert found == {name}


def test_hugging_faces_config():
    (naming,) = names.of_module(models.create("mobilenet_v2", 1), "huggingface")
    network = recognise("huggingface", "mobilenet_v2")
    told = naming.configure(network, {"tf_padding": False, "layer_norm_eps": 1e-5})
    assert told.options == {"padding": "symmetric", "epsilon": 1e-5}
    (naming,) = names.of_module(models.create("efficientnet_b0", 1), "huggingface")
    told = naming.configure(recognise("huggingface", "efficientnet_b0"), {"depthwise_padding": []})
    assert told.options == END


def test_keras_3_names_of_depthwise_kernels():
    naming, shapes = written("keras", "mobilenet_v1")
    renamed = {name.replace("depthwise_kernel", "kernel"): s for name, s in shapes.items()}
    arrays = naming.arrays({name: broadcast(shape) for name, shape in renamed.items()})
    assert {name: each.array.shape for name, each in arrays.items()} == shapes


def test_kerass_own_normalisation_is_passed_over():
    naming, shapes = written("keras", "efficientnet_b0")
    more = {"normalization/mean:0": (3,), "normalization/normalization/count:0": ()}
    arrays = naming.arrays({name: broadcast(shape) for name, shape in (shapes | more).items()})
    assert arrays.keys() == shapes.keys()


def block(inputs, outputs, expanded=True):
    return mobile.Found(3, inputs, outputs, expanded, False)


def test_blocks_in_a_row_are_split_by_a_known_network_or_by_widths():
    split = mobile.splitter([(1, 2, 2)], lambda stage, block: stage < 3)
    narrow = [block(8, 8)] * 5
    assert split(narrow) == (1, 2, 2)
    assert split(narrow[:3]) == (1, 2)
    # A known network's stages are of one width.
    assert split([block(4, 8), block(8, 8), block(8, 12), block(12, 16), block(16, 16)]) == (
        2,
        1,
        2,
    )


@pytest.mark.parametrize(
    ("widths", "multiplier"),
    [
        ([32, 16, 24], 1.0),
        ([16, 8, 16], 0.5),
        # The stem is not scaled; of a pruned network; and none that is as wide.
        ([32, 24, 40], 1.5),
        ([30, 11, 24], 1.0),
        ([30, 17, 24], 1.15),
        ([9999, 9999, 9999], None),
    ],
)
def test_width_multiplier(widths, multiplier):
    found = mobile.width_multiplier(widths, lambda by: mobile.scaled([32, 16, 24], by))
    assert found == multiplier
