"""ShuffleNet V1: sizes of the paper, and equality with torch."""

import functools

import jax
import jax.numpy as jnp
import pytest

from ctl_jax import compute, models
from ctl_jax.errors import UserError
from ctl_jax.models.shufflenet_v1 import PRESETS, ShuffleNetV1

# Multiply-adds of table 1 in the paper, in millions; parameters in thousands of the authors' models
# of three and eight groups (which have no bias in the head), and ours exactly.
SIZES = {
    "shufflenet_v1_g1": (143, None, 1_531_936),
    "shufflenet_v1_g2": (140, None, 1_733_848),
    "shufflenet_v1_g3": (137, 1_900, 1_865_728),
    "shufflenet_v1_g4": (133, None, 1_968_344),
    "shufflenet_v1_g8": (137, 2_400, 2_434_768),
}


@pytest.mark.parametrize("name", SIZES)
def test_size(name):
    assert SIZES.keys() == PRESETS.keys()
    multiply_adds, thousands, params = SIZES[name]
    module = ShuffleNetV1(1000, **PRESETS[name])
    shapes = jax.eval_shape(lambda key: models.init(module, key, 64), jax.random.key(0))
    assert models.count_params(shapes) == params
    assert thousands is None or round(params - 1000, -5) == thousands * 1000
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    flops = compute.flops(functools.partial(models.apply, module), shapes, images)
    assert flops / 2 == pytest.approx(multiply_adds * 1e6, rel=0.011)


def torch_features(groups, t, x):
    """Features [B, F] by torch, of torch layers and images."""
    pool = t.torch.nn.functional
    x = pool.max_pool2d(t.conv_bn(x, "stem", 2).relu(), 3, 2, 1)
    for name, stride in (("stage1_unit1", 2), ("stage2_unit1", 2), ("stage2_unit2", 1)):
        shortcut = x
        x = t.batch_norm(t.conv(x, f"{name}/conv1"), f"{name}/bn1").relu()
        b, c, h, w = x.shape
        x = x.view(b, groups, c // groups, h, w).transpose(1, 2).reshape(b, c, h, w)
        x = t.conv_bn(x, f"{name}/depthwise", stride)
        x = t.batch_norm(t.conv(x, f"{name}/conv2"), f"{name}/bn2")
        if stride == 1:
            x = (x + shortcut).relu()
        else:
            x = t.torch.cat([pool.avg_pool2d(shortcut, 3, 2, 1), x], 1).relu()
    return x.mean((2, 3))


@pytest.mark.parametrize("groups", [1, 3])
def test_equals_torch(groups, check_torch):
    module = ShuffleNetV1(5, (1, 2), groups=groups, width=24, stem_width=6)
    check_torch(module, functools.partial(torch_features, groups))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 250}, "option width is 250; expected a multiple of 12, groups being 3"),
        ({"stem_width": 25}, "option stem_width is 25; expected a multiple of 3, groups being 3"),
        ({"stem_width": 240}, "option stem_width is 240; expected less than the width, 240"),
    ],
)
def test_widths_that_do_not_fit(options, message):
    with pytest.raises(UserError, match=message):
        ShuffleNetV1(5, (1,), **options)
