"""DenseNets: sizes of the literature, and equality with torch."""

import functools

import jax
import jax.numpy as jnp
import pytest

from ctl_jax import models
from ctl_jax.errors import UserError
from ctl_jax.models.densenet import PRESETS, DenseNet

# Of torchvision's models with 1000 outputs: parameters, FLOPs by torch's counter.
SIZES = {
    "densenet121": (7_978_856, 5_668_323_328),
    "densenet161": (28_681_000, 15_455_814_144),
    "densenet169": (14_149_480, 6_719_686_656),
    "densenet201": (20_013_928, 8_582_731_776),
}


@pytest.mark.parametrize(
    "name", ["densenet121", *(pytest.param(n, marks=pytest.mark.slow) for n in list(SIZES)[1:])]
)
def test_size(name, check_size):
    check_size(DenseNet(1000, **PRESETS[name]), *SIZES[name])
    assert SIZES.keys() == PRESETS.keys()


def torch_features(stages, t, x):
    """Features [B, F] by torch, of torch layers and images."""
    pool = t.torch.nn.functional
    x = pool.max_pool2d(t.conv_bn(x, "stem", 2).relu(), 3, 2, 1)
    for i, layers in enumerate(stages, start=1):
        for j in range(1, layers + 1):
            name = f"stage{i}_layer{j}"
            new = t.conv(t.batch_norm(x, f"{name}/bn1").relu(), f"{name}/conv1")
            new = t.conv(t.batch_norm(new, f"{name}/bn2").relu(), f"{name}/conv2")
            x = t.torch.cat([x, new], 1)
        if i < len(stages):
            x = t.batch_norm(x, f"transition{i}/bn").relu()
            x = pool.avg_pool2d(t.conv(x, f"transition{i}/conv"), 2)
    return t.batch_norm(x, "final_bn").relu().mean((2, 3))


def test_equals_torch(check_torch):
    stages = (2, 3, 1)
    module = DenseNet(5, stages, growth=4, width=6)
    check_torch(module, functools.partial(torch_features, stages))


def test_images_too_small():
    module = DenseNet(5, (1, 1, 1), growth=4, width=6)
    init = functools.partial(models.init, module)
    shapes = jax.eval_shape(lambda key: init(key, 13), jax.random.key(0))
    with pytest.raises(UserError, match="images are 12 x 12 px; expected at least 13 x 13"):
        init(jax.random.key(0), 12)
    images = jax.ShapeDtypeStruct((2, 20, 12, 3), jnp.float32)
    with pytest.raises(UserError, match="images are 20 x 12 px; expected at least 13 x 13"):
        jax.eval_shape(functools.partial(models.apply, module), shapes, images)
