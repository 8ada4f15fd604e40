"""ShuffleNet V2: sizes of the literature, and equality with torch."""

import pytest

from ctl_jax.models.shufflenet_v2 import OPTIONS, PRESETS, ShuffleNetV2

# Of torchvision's models with 1000 outputs: parameters, FLOPs by torch's counter.
SIZES = {
    "shufflenet_v2_x0_5": (1_366_792, 80_952_896),
    "shufflenet_v2_x1_0": (2_278_604, 289_815_984),
    "shufflenet_v2_x1_5": (3_503_624, 591_518_784),
    "shufflenet_v2_x2_0": (7_393_996, 1_166_506_928),
}


@pytest.mark.parametrize("name", SIZES)
def test_size(name, check_size):
    check_size(ShuffleNetV2(1000, **PRESETS[name]), *SIZES[name])
    assert SIZES.keys() == PRESETS.keys()


def torch_features(t, x):
    """Features [B, F] by torch, of torch layers and images."""
    x = t.torch.nn.functional.max_pool2d(t.conv_bn(x, "stem", 2).relu(), 3, 2, 1)
    for name, stride in (("stage1_unit1", 2), ("stage2_unit1", 2), ("stage2_unit2", 1)):
        if stride == 2:
            shortcut = t.conv_bn(x, f"{name}/shortcut_depthwise", 2)
            shortcut = t.conv_bn(shortcut, f"{name}/shortcut_pointwise").relu()
        else:
            shortcut, x = x.chunk(2, 1)
        x = t.conv_bn(x, f"{name}/pointwise1").relu()
        x = t.conv_bn(x, f"{name}/depthwise", stride)
        x = t.conv_bn(x, f"{name}/pointwise2").relu()
        x = t.torch.cat([shortcut, x], 1)
        b, c, h, w = x.shape
        x = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
    return t.conv_bn(x, "last").relu().mean((2, 3))


def test_equals_torch(check_torch):
    module = ShuffleNetV2(5, (1, 2), width=12, stem_width=6, last_width=20)
    check_torch(module, torch_features)


@pytest.mark.parametrize(("width", "is_valid"), [(12, True), (13, False), (0, False), (4.0, False)])
def test_units_need_two_halves(width, is_valid):
    assert OPTIONS["width"][0](width) == is_valid
