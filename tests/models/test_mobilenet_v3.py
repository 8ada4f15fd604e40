"""MobileNetV3: sizes of the literature, and equality with torch."""

import functools

import jax
import pytest

from ctl_jax import models
from ctl_jax.models.mobilenet_v3 import PRESETS, MobileNetV3

# Of torchvision's models with 1000 outputs: parameters, FLOPs by torch's counter.
SIZES = {
    "mobilenet_v3_large": (5_483_032, 433_179_520),
    "mobilenet_v3_small": (2_542_856, 113_020_800),
}


@pytest.mark.parametrize("name", SIZES)
def test_size(name, check_size):
    check_size(MobileNetV3(1000, **PRESETS[name]), *SIZES[name])
    assert SIZES.keys() == PRESETS.keys()


@pytest.mark.parametrize(
    ("name", "options", "params"),
    [
        ("mobilenet_v3_small", {"width_multiplier": 0.5}, 1_593_224),
        ("mobilenet_v3_large", {"minimal": True}, 3_924_288),
    ],
)
def test_params_of_other_forms(name, options, params):
    """Of timm's models with 1000 outputs."""
    module = MobileNetV3(1000, **PRESETS[name], **options)
    init = functools.partial(models.init, module, image_size=224)
    assert models.count_params(jax.eval_shape(init, jax.random.key(0))) == params


def torch_features(t, x):
    """Features [B, F] by torch, of torch layers and images."""
    functional = t.torch.nn.functional
    swish, t.epsilon = functional.hardswish, 1e-3
    x = swish(t.conv_bn(x, "stem", 2))
    for name, expand, stride, squeeze, activation in (
        ("stage1_block1", False, 2, True, functional.relu),
        ("stage2_block1", True, 2, False, functional.relu),
        ("stage2_block2", True, 1, False, functional.relu),
        ("stage3_block1", True, 2, True, swish),
    ):
        shortcut = x
        if expand:
            x = activation(t.conv_bn(x, f"{name}/expand"))
        x = activation(t.conv_bn(x, f"{name}/depthwise", stride))
        if squeeze:
            gate = t.conv(x.mean((2, 3), keepdim=True), f"{name}/squeeze").relu()
            x = x * functional.hardsigmoid(t.conv(gate, f"{name}/excite"))
        x = t.conv_bn(x, f"{name}/project")
        if name == "stage2_block2":
            x = x + shortcut
    x = swish(t.conv_bn(x, "last")).mean((2, 3))
    return swish(t.dense(x, "last_dense"))


def test_equals_torch(check_torch):
    check_torch(MobileNetV3(5, "small", (1, 2, 1), width_multiplier=0.5), torch_features)
