"""Residual networks with groups and wide bottlenecks; test_resnet_torch.py has the outputs."""

import jax
import pytest

from ctl_jax import models
from ctl_jax.errors import UserError
from ctl_jax.models.resnet import PRESETS, ResNet

# Of torchvision's models with 1000 outputs: parameters, FLOPs by torch's counter.
SIZES = {
    "resnet18": (11_689_512, 3_628_146_688),
    "resnet34": (21_797_672, 7_327_522_816),
    "resnet50": (25_557_032, 8_178_368_512),
    "resnet101": (44_549_160, 15_602_810_880),
    "resnet152": (60_192_808, 23_027_253_248),
    "resnext50_32x4d": (25_028_904, 8_460_959_744),
    "resnext101_32x8d": (88_791_336, 32_828_030_976),
    "resnext101_64x4d": (83_455_272, 30_920_540_160),
    "wide_resnet50_2": (68_883_240, 22_796_042_240),
    "wide_resnet101_2": (126_886_696, 45_506_101_248),
}
# With 10 outputs: parameters, as github.com/akamaster/pytorch_resnet_cifar10 has them.
CIFAR = {
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
}
SLOW = [name for name in SIZES if "101" in name or "152" in name]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in SIZES]
)
def test_size(name, check_size):
    check_size(ResNet(1000, **PRESETS[name]), *SIZES[name])
    assert SIZES.keys() | CIFAR.keys() == PRESETS.keys()


@pytest.mark.parametrize("name", CIFAR)
def test_size_for_cifar(name):
    module = models.create(name, 10)
    shapes = jax.eval_shape(lambda key: models.init(module, key, 32), jax.random.key(0))
    assert models.count_params(shapes) == CIFAR[name]


@pytest.mark.parametrize(
    ("width", "groups", "width_per_group", "inner", "inputs"),
    [(64, 32, 4, 128, 4), (64, 1, 64, 64, 64), (64, 1, 128, 128, 128), (8, 4, 4, 4, 1)],
)
def test_inner_widths(width, groups, width_per_group, inner, inputs):
    module = ResNet(
        2, (1,), bottleneck=True, width=width, groups=groups, width_per_group=width_per_group
    )
    params = jax.eval_shape(lambda key: models.init(module, key, 32), jax.random.key(0))["params"]
    kernel = params["stage1_block1"]["conv2"]["kernel"]
    assert kernel.shape == (3, 3, inputs, inner)


@pytest.mark.parametrize(
    ("option", "value", "only"), [("groups", 2, 1), ("width_per_group", 8, 64)]
)
def test_only_bottlenecks_have_groups(option, value, only):
    message = f"option {option} is {value}; expected {only}, since only bottleneck blocks"
    with pytest.raises(UserError, match=message):
        ResNet(5, (1, 1), bottleneck=False, **{option: value})
