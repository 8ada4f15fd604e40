"""SqueezeNet: sizes of the literature, and equality with torch."""

import functools

import chex
import jax
import numpy as np
import pytest

from ctl_jax import models
from ctl_jax.errors import UserError
from ctl_jax.models.squeezenet import PRESETS, SqueezeNet

# Of torchvision's models with 1000 outputs: parameters, FLOPs by torch's counter.
SIZES = {
    "squeezenet1_0": (1_248_424, 1_637_849_152),
    "squeezenet1_1": (1_235_496, 698_303_872),
}
TINY = {"stages": (1, 2), "width": 4, "stem_width": 6, "stem_size": 3}


@pytest.mark.parametrize("name", SIZES)
def test_size(name, check_size):
    # With the paper's classifier, at every place.
    check_size(SqueezeNet(1000, **PRESETS[name], relu_head=True), *SIZES[name])
    assert SIZES.keys() == PRESETS.keys()


def torch_maps(t, x):
    """What is under the head, [B, F, H, W], by torch, of torch layers and images."""
    functional = t.torch.nn.functional
    weight, bias = t.arrays("params", "stem_conv", "kernel", "bias")
    x = functional.conv2d(x, weight.permute(3, 2, 0, 1), bias, stride=2).relu()
    for stage, fires in ((1, 1), (2, 2)):
        x = functional.max_pool2d(x, 3, 2, ceil_mode=True)
        for fire in range(1, fires + 1):
            name = f"stage{stage}_block{fire}"
            x = t.conv(x, f"{name}/squeeze").relu()
            parts = [t.conv(x, f"{name}/expand{size}x{size}") for size in (1, 3)]
            x = t.torch.cat(parts, 1).relu()
    return x


def test_equals_torch(check_torch):
    # Poolings of an even side and of an odd one.
    sizes = ((32, 32), (45, 38))
    check_torch(SqueezeNet(5, **TINY), lambda t, x: torch_maps(t, x).mean((2, 3)), sizes)


def test_the_papers_classifier(random_variables, torch_layers):
    module = SqueezeNet(5, **TINY, relu_head=True)
    variables = random_variables(module)
    images = np.random.default_rng(0).normal(size=(3, 33, 40, 3)).astype(np.float32)
    layers = torch_layers(variables)
    maps = torch_maps(layers, layers.images(images)).permute(0, 2, 3, 1)
    expected = layers.dense(maps, "head").relu().mean((1, 2)).numpy()
    got = jax.jit(functools.partial(models.apply, module))(variables, images)
    chex.assert_trees_all_close(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(("name", "least"), [("squeezenet1_0", 21), ("squeezenet1_1", 17)])
def test_the_smallest_images(name, least):
    module = models.create(name, 3)
    shapes = jax.eval_shape(
        functools.partial(models.init, module, image_size=least), jax.random.key(0)
    )
    assert shapes["params"]["head"]["kernel"].shape == (512, 3)
    with pytest.raises(UserError, match=f"images are {least - 1} x {least - 1} px; .* {least} x"):
        models.init(module, jax.random.key(0), least - 1)
