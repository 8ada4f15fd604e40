"""U-Net: the size of the PyTorch model, and equality with torch."""

import functools

import jax
import numpy as np
import pytest

from ctl_jax import compute, models
from ctl_jax.errors import UserError
from ctl_jax.models.unet import PRESETS, UNet


def test_parameter_count():
    """Of milesial/Pytorch-UNet for RGB images and two classes, a logit for each."""
    module = UNet(2, **PRESETS["unet"])
    shapes = jax.eval_shape(lambda key: models.init(module, key, 64), jax.random.key(0))
    assert models.count_params(shapes) == 31_037_698


def torch_features(depth, t, x):
    """The head's inputs [B, H, W, F] by torch, of torch layers and images."""
    functional = t.torch.nn.functional

    def double_conv(x, name):
        for i in (1, 2):
            x = t.batch_norm(t.conv(x, f"{name}/conv{i}"), f"{name}/bn{i}").relu()
        return x

    x = double_conv(x, "down0")
    skips = []
    for i in range(1, depth + 1):
        skips.append(x)
        x = double_conv(functional.max_pool2d(x, 2), f"down{i}")
    for i in reversed(range(depth)):
        weight, bias = t.arrays("params", f"up{i}_conv", "kernel", "bias")
        weight = weight.flip(0, 1).permute(2, 3, 0, 1)
        x = functional.conv_transpose2d(x, weight, bias, 2)
        skip = skips[i]
        rows, columns = (skip.shape[axis] - x.shape[axis] for axis in (2, 3))
        pad = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
        x = double_conv(t.torch.cat([skip, functional.pad(x, pad)], 1), f"up{i}")
    return x.permute(0, 2, 3, 1)


def test_equals_torch(check_torch):
    # Sizes that halving leaves a row or column of, at one level or the other.
    features = functools.partial(torch_features, 2)
    check_torch(UNet(5, depth=2, width=4), features, sizes=((16, 20), (19, 14)))


def test_flops(torch_layers, random_variables):
    """By torch's counter; the transposed convolutions multiply no zeros."""
    counter = pytest.importorskip("torch.utils.flop_counter").FlopCounterMode(display=False)
    module = UNet(5, depth=2, width=4)
    variables = random_variables(module)
    images = np.ones((2, 22, 24, 3), np.float32)
    t = torch_layers(variables)
    with counter:
        x = torch_features(2, t, t.images(images)).reshape(-1, 4)
        kernel, bias = t.arrays("params", "head", "kernel", "bias")
        t.torch.addmm(bias, x, kernel)
    flops = compute.flops(functools.partial(models.apply, module), variables, images)
    assert flops == counter.get_total_flops()


def test_images_too_small():
    with pytest.raises(UserError, match="images are 7 x 7 px; expected at least 8 x 8"):
        models.init(UNet(5, depth=3, width=2), jax.random.key(0), 7)
