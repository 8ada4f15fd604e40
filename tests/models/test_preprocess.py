"""Each convention against numbers worked out by hand."""

import chex
import jax
import numpy as np
import pytest

from ctl_jax import models

PIXEL = np.array([255, 0, 51], np.uint8).reshape(1, 1, 1, 3)
EXPECTED = {
    "nevis": (1.0, -1.0, -0.6),
    "caffe": (51 - 103.939, 0 - 116.779, 255 - 123.68),
    "imagenet": ((1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225),
}


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_by_hand(name, dtype):
    images = np.broadcast_to(PIXEL, (2, 4, 5, 3)).astype(dtype)
    got = jax.jit(models.PREPROCESS[name])(images)
    assert got.dtype == np.float32
    expected = np.broadcast_to(np.float32(EXPECTED[name]), images.shape)
    chex.assert_trees_all_close(got, expected, rtol=1e-6, atol=1e-6)


def test_all_are_covered():
    assert set(models.PREPROCESS) == set(EXPECTED)
