"""ConvNeXts: sizes of the literature, and equality with torch."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctl_jax import models
from ctl_jax.errors import UserError
from ctl_jax.models.convnext import PRESETS, ConvNeXt

# Of torchvision's models with 1000 outputs, or else of timm's: parameters, and billions of
# multiply-adds where torchvision gives them.
SIZES = {
    "convnext_atto": (3_695_520, None),
    "convnext_femto": (5_217_784, None),
    "convnext_pico": (9_045_672, None),
    "convnext_nano": (15_593_560, None),
    "convnext_tiny": (28_589_128, 4.456),
    "convnext_small": (50_223_688, 8.684),
    "convnext_base": (88_591_464, 15.355),
    "convnext_large": (197_767_336, 34.361),
    "convnext_xlarge": (350_196_968, None),
}


def macs(stages, width):
    """Multiply-adds of one image of 224x224."""
    total, pixels, channels = 0, 56**2, width
    total += pixels * 4**2 * 3 * width
    for i, blocks in enumerate(stages):
        if i > 0:
            pixels //= 4
            total += pixels * 2**2 * channels * 2 * channels
            channels *= 2
        total += blocks * pixels * (7**2 * channels + 2 * 4 * channels**2)
    return total + 1000 * channels


@pytest.mark.parametrize("name", SIZES)
def test_size(name, check_size):
    module = models.create(name, 1000)
    params, billions = SIZES[name]
    expected = macs(module.stages, module.width)
    assert billions in (None, round(expected / 1e9, 3))
    check_size(module, params, 2 * expected)
    assert SIZES.keys() == PRESETS.keys()


def test_without_layer_scale(random_variables):
    module, plain = (ConvNeXt(5, (1, 1), width=4, layer_scale=scale) for scale in (True, False))
    variables = random_variables(module)
    without = {**variables["params"]}
    for name in ("stage1_block1", "stage2_block1"):
        variables["params"][name]["layer_scale"] = jnp.ones(4 if name == "stage1_block1" else 8)
        without[name] = {k: v for k, v in without[name].items() if k != "layer_scale"}
    images = np.random.default_rng(0).normal(size=(2, 9, 8, 3)).astype(np.float32)
    apply = jax.jit(models.apply, static_argnums=0)
    chex.assert_trees_all_equal(
        apply(plain, {"params": without}, images), apply(module, variables, images)
    )


def torch_features(t, x):
    """Features [B, F] by torch, of torch layers and images."""
    functional = t.torch.nn.functional

    def norm(x, name):
        gamma, beta = t.arrays("params", name, "scale", "bias")
        return functional.layer_norm(x, gamma.shape, gamma, beta, 1e-6)

    def map_norm(x, name):
        return norm(x.permute(0, 2, 3, 1), name).permute(0, 3, 1, 2)

    def strided(x, name):
        weight, bias = t.arrays("params", name, "kernel", "bias")
        return functional.conv2d(x, weight.permute(3, 2, 0, 1), bias, stride=weight.shape[0])

    x = map_norm(strided(x, "stem_conv"), "stem_norm")
    for name in ("stage1_block1", "stage2_block1", "stage2_block2"):
        if name == "stage2_block1":
            x = strided(map_norm(x, "stage2_norm"), "stage2_conv")
        y = norm(t.conv(x, f"{name}/depthwise").permute(0, 2, 3, 1), f"{name}/norm")
        y = t.dense(functional.gelu(t.dense(y, f"{name}/mlp/fc1")), f"{name}/mlp/fc2")
        (scale,) = t.arrays("params", name, "layer_scale")
        x = x + (scale * y).permute(0, 3, 1, 2)
    return norm(x.mean((2, 3)), "norm")


def test_equals_torch(check_torch):
    check_torch(ConvNeXt(5, (1, 2), width=4), torch_features)


def test_too_small_images(random_variables):
    module = ConvNeXt(5, (1, 1, 1), width=4)
    apply = functools.partial(models.apply, module, random_variables(module))
    assert jax.eval_shape(apply, jnp.zeros((1, 16, 19, 3))).shape == (1, 5)
    with pytest.raises(UserError, match="images are 64 x 15 px; expected 16 px or more"):
        apply(jnp.zeros((1, 64, 15, 3)))
