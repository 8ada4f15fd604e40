"""MLP-Mixers: sizes of the literature, and equality with torch."""

import functools

import jax.numpy as jnp
import pytest

from ctl_jax import models
from ctl_jax.errors import UserError
from ctl_jax.models.mixer import PRESETS, Mixer

# Of timm's models with 1000 outputs.
PARAMS = {"mixer_s16": 18_528_264, "mixer_b16": 59_880_472}
SMALL = {"width": 6, "depth": 2, "token_hidden": 5, "patch": 8}


@pytest.mark.parametrize("name", PARAMS)
def test_size(name, check_size):
    preset = PRESETS[name]
    width, tokens = preset["width"], 14 * 14
    mlps = 2 * tokens * width * (preset["token_hidden"] + 4 * width)
    macs = tokens * 3 * 16**2 * width + preset["depth"] * mlps + 1000 * width
    check_size(models.create(name, 1000), PARAMS[name], 2 * macs)
    assert PARAMS.keys() == PRESETS.keys()


def torch_features(t, x):
    """Features [B, F] by torch, of torch layers and images."""
    functional = t.torch.nn.functional

    def norm(x, name):
        gamma, beta = t.arrays("params", name, "scale", "bias")
        return functional.layer_norm(x, gamma.shape, gamma, beta, 1e-6)

    def mlp(x, name):
        return t.dense(functional.gelu(t.dense(x, f"{name}/fc1")), f"{name}/fc2")

    weight, bias = t.arrays("params", "patch_conv", "kernel", "bias")
    x = functional.conv2d(x, weight.permute(3, 2, 0, 1), bias, stride=8)
    x = x.flatten(2).transpose(1, 2)
    for i in (1, 2):
        y = mlp(norm(x, f"block{i}/norm1").transpose(1, 2), f"block{i}/token_mlp")
        x = x + y.transpose(1, 2)
        x = x + mlp(norm(x, f"block{i}/norm2"), f"block{i}/channel_mlp")
    return norm(x, "norm").mean(1)


def test_equals_torch(check_torch):
    check_torch(Mixer(5, **SMALL), torch_features, sizes=((32, 32),))


def test_images_of_another_size(random_variables):
    module = Mixer(5, **SMALL)
    apply = functools.partial(models.apply, module, random_variables(module))
    with pytest.raises(UserError, match=r"images of 40 x 32 px make 20 tokens; .* are for 16"):
        apply(jnp.zeros((1, 40, 32, 3)))
    with pytest.raises(UserError, match=r"images are 30 x 32 px; expected multiples of .* 8 px"):
        apply(jnp.zeros((1, 30, 32, 3)))
