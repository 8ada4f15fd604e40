"""EfficientNets: sizes of the literature, and equality with torch."""

import functools

import jax
import pytest

from ctl_jax import models
from ctl_jax.models.efficientnet import PRESETS, EfficientNet

# Of torchvision's models with 1000 outputs: parameters, FLOPs by torch's counter.
SIZES = {
    "efficientnet_b0": (5_288_548, 771_629_504),
    "efficientnet_b1": (7_794_184, 1_139_303_360),
    "efficientnet_b2": (9_109_994, 1_317_926_880),
    "efficientnet_b3": (12_233_232, 1_925_416_480),
    "efficientnet_b4": (19_341_616, 3_007_420_864),
}

# Of timm's.
LITE = {
    "efficientnet_lite0": 4_652_008,
    "efficientnet_lite1": 5_416_680,
    "efficientnet_lite2": 6_092_072,
    "efficientnet_lite3": 8_197_096,
    "efficientnet_lite4": 13_006_568,
}


@pytest.mark.parametrize("name", LITE)
def test_lite_size(name):
    init = functools.partial(models.init, EfficientNet(1000, **PRESETS[name]), image_size=224)
    assert models.count_params(jax.eval_shape(init, jax.random.key(0))) == LITE[name]


@pytest.mark.parametrize(
    "name", ["efficientnet_b0", *(pytest.param(n, marks=pytest.mark.slow) for n in list(SIZES)[1:])]
)
def test_size(name, check_size):
    check_size(EfficientNet(1000, **PRESETS[name]), *SIZES[name])
    assert {*SIZES, *LITE} == PRESETS.keys()


def torch_features(t, x):
    """Features [B, F] by torch, of torch layers and images."""
    silu = t.torch.nn.functional.silu
    t.padding, t.epsilon = "same", 1e-3
    x = silu(t.conv_bn(x, "stem", 2))
    for name, expand, stride, residual in (
        ("stage1_block1", False, 1, False),
        ("stage2_block1", True, 2, False),
        ("stage2_block2", True, 1, True),
        ("stage3_block1", True, 2, False),
    ):
        shortcut = x
        if expand:
            x = silu(t.conv_bn(x, f"{name}/expand"))
        x = silu(t.conv_bn(x, f"{name}/depthwise", stride))
        gate = silu(t.conv(x.mean((2, 3), keepdim=True), f"{name}/squeeze"))
        x = x * t.conv(gate, f"{name}/excite").sigmoid()
        x = t.conv_bn(x, f"{name}/project")
        if residual:
            x = x + shortcut
    return silu(t.conv_bn(x, "last")).mean((2, 3))


def test_equals_torch(check_torch):
    module = EfficientNet(5, (1, 2, 1), width_multiplier=0.5, padding="same", epsilon=1e-3)
    check_torch(module, torch_features)


def lite_features(t, x):
    """The same of a Lite."""
    x = t.conv_bn(x, "stem", 2).clip(0, 6)
    x = t.conv_bn(t.conv_bn(x, "stage1_block1/depthwise").clip(0, 6), "stage1_block1/project")
    x = t.conv_bn(x, "stage2_block1/expand").clip(0, 6)
    x = t.conv_bn(x, "stage2_block1/depthwise", 2).clip(0, 6)
    x = t.conv_bn(x, "stage2_block1/project")
    return t.conv_bn(x, "last").clip(0, 6).mean((2, 3))


def test_lite_equals_torch(check_torch):
    preset = PRESETS["efficientnet_lite0"] | {"stages": (1, 1), "width_multiplier": 0.5}
    check_torch(EfficientNet(5, **preset), lite_features, contrast=5.0)


def test_ends_of_a_lite_are_not_scaled(random_variables):
    preset = PRESETS["efficientnet_lite4"] | {"stages": (1, 1)}
    params = random_variables(EfficientNet(5, **preset))["params"]
    assert params["stem_conv"]["kernel"].shape == (3, 3, 3, 32)
    assert params["last_conv"]["kernel"].shape == (1, 1, 32, 1280)
    assert "squeeze" not in params["stage2_block1"]


def test_squeezed_channels_are_a_quarter_of_the_blocks_inputs(random_variables):
    params = random_variables(EfficientNet(5, (1, 2, 1)))["params"]
    assert params["stage1_block1"]["squeeze"]["kernel"].shape == (1, 1, 32, 8)
    assert params["stage2_block1"]["squeeze"]["kernel"].shape == (1, 1, 96, 4)
    assert params["stage3_block1"]["depthwise_conv"]["kernel"].shape == (5, 5, 1, 144)
