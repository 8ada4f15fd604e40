"""MobileNetV1: sizes of the literature, and equality with torch."""

import functools

import pytest

from ctl_jax.models.mobilenet_v1 import PRESETS, MobileNetV1


@pytest.mark.parametrize(
    ("last", "params", "flops"),
    [(False, 4_231_976, 1_137_480_704), (True, 5_282_600, 1_240_241_152)],
)
def test_size(last, params, flops, check_size):
    """Of timm's models with 1000 outputs; FLOPs by torch's counter."""
    check_size(MobileNetV1(1000, **PRESETS["mobilenet_v1"], last=last), params, flops)


def torch_features(padding, t, x):
    """Features [B, F] by torch, of torch layers and images."""
    # Keras pads depthwise convolutions at the end, but leaves the first one to TensorFlow.
    t.padding = "same" if padding == "end" else padding
    x = t.conv_bn(x, "stem", 2).clip(0, 6)
    t.padding = padding
    for name, stride in (("stage1_block1", 1), ("stage2_block1", 2), ("stage2_block2", 1)):
        x = t.conv_bn(x, f"{name}/depthwise", stride).clip(0, 6)
        x = t.conv_bn(x, f"{name}/pointwise").clip(0, 6)
    return x.mean((2, 3))


@pytest.mark.parametrize("padding", ["symmetric", "same", "end"])
def test_equals_torch(padding, check_torch):
    # Contrast enough that ReLU6 cuts at 6.
    module = MobileNetV1(5, (1, 2), width_multiplier=0.25, padding=padding)
    check_torch(module, functools.partial(torch_features, padding), contrast=5.0)
