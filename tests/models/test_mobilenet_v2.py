"""MobileNetV2: sizes of the literature, and equality with torch."""

import pytest

from ctl_jax.models.mobilenet_v2 import PRESETS, MobileNetV2


@pytest.mark.parametrize(
    ("width_multiplier", "params", "flops"),
    [
        (1.0, 3_504_872, 601_548_544),
        (0.35, 1_677_128, 118_571_616),
        (1.4, 6_108_776, 1_164_391_648),
    ],
)
def test_size(width_multiplier, params, flops, check_size):
    """Of torchvision's models with 1000 outputs; FLOPs by torch's counter."""
    module = MobileNetV2(1000, **PRESETS["mobilenet_v2"], width_multiplier=width_multiplier)
    check_size(module, params, flops)


def torch_features(t, x):
    """Features [B, F] by torch, of torch layers and images."""
    x = t.conv_bn(x, "stem", 2).clip(0, 6)
    for name, expand, stride, residual in (
        ("stage1_block1", False, 1, False),
        ("stage2_block1", True, 2, False),
        ("stage2_block2", True, 1, True),
        ("stage3_block1", True, 2, False),
    ):
        shortcut = x
        if expand:
            x = t.conv_bn(x, f"{name}/expand").clip(0, 6)
        x = t.conv_bn(x, f"{name}/depthwise", stride).clip(0, 6)
        x = t.conv_bn(x, f"{name}/project")
        if residual:
            x = x + shortcut
    return t.conv_bn(x, "last").clip(0, 6).mean((2, 3))


def test_equals_torch(check_torch):
    # Contrast enough that ReLU6 cuts at 6.
    module = MobileNetV2(5, (1, 2, 1), width_multiplier=0.5)
    check_torch(module, torch_features, contrast=5.0)
