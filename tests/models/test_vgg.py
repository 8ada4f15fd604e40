"""VGGs: sizes of the literature, and equality with torch."""

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from ctl_jax import models
from ctl_jax.errors import UserError
from ctl_jax.models.vgg import PRESETS, VGG, adaptive_mean

# Of torchvision's models with 1000 outputs: parameters, FLOPs by torch's counter.
SIZES = {
    "vgg11": (132_863_336, 15_218_180_096),
    "vgg13": (133_047_848, 22_616_932_352),
    "vgg16": (138_357_544, 30_940_528_640),
    "vgg19": (143_667_240, 39_264_124_928),
    "vgg11_bn": (132_868_840, 15_218_180_096),
    "vgg13_bn": (133_053_736, 22_616_932_352),
    "vgg16_bn": (138_365_992, 30_940_528_640),
    "vgg19_bn": (143_678_248, 39_264_124_928),
}


@pytest.mark.parametrize("name", SIZES)
def test_size(name, check_size):
    check_size(VGG(1000, **PRESETS[name]), *SIZES[name])
    assert SIZES.keys() == PRESETS.keys()


def test_widths_stop_growing():
    module = VGG(5, (1,) * 6, width=4, hidden=6, pool=1)
    params = jax.eval_shape(lambda key: models.init(module, key, 64), jax.random.key(0))["params"]
    widths = [params[f"stage{i}_conv1"]["kernel"].shape[-1] for i in range(1, 7)]
    assert widths == [4, 8, 16, 32, 32, 32]


@pytest.mark.parametrize(("norm", "pool"), [(False, 3), (True, 7)])
def test_equals_torch(norm, pool, check_torch):
    def features(t, x):
        functional = t.torch.nn.functional
        for name in ("1,1", "2,1", "2,2"):
            stage, layer = name.split(",")
            x = t.conv(x, f"stage{stage}_conv{layer}")
            if norm:
                x = t.batch_norm(x, f"stage{stage}_bn{layer}")
            x = x.relu()
            if name != "2,1":
                x = functional.max_pool2d(x, 2)
        x = functional.adaptive_avg_pool2d(x, pool).permute(0, 2, 3, 1).flatten(1)
        return t.dense(t.dense(x, "hidden1").relu(), "hidden2").relu()

    module = VGG(5, (1, 2), norm=norm, width=4, hidden=12, pool=pool)
    check_torch(module, features, sizes=((12, 12), (45, 18)))


@hypothesis.settings(max_examples=12)
@hypothesis.given(st.integers(1, 16), st.integers(1, 16), st.integers(1, 8))
def test_adaptive_mean_equals_torchs(height, width, size):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(2, height, width, 3)).astype(np.float32)
    pool = torch.nn.functional.adaptive_avg_pool2d
    expected = pool(torch.from_numpy(x).permute(0, 3, 1, 2), size).permute(0, 2, 3, 1).numpy()
    chex.assert_trees_all_close(
        jax.jit(adaptive_mean, static_argnums=1)(x, size), expected, atol=1e-6
    )


def test_images_too_small():
    with pytest.raises(UserError, match="images are 7 x 7 px; expected at least 8 x 8"):
        models.init(VGG(5, (1, 1, 1), width=2, hidden=3), jax.random.key(0), 7)
