"""Each convention against numbers worked out by hand; texts and back."""

import chex
import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctl_jax import models
from ctl_jax.errors import UserError
from ctl_jax.models import Preprocess

PIXEL = np.array([255, 0, 51], np.uint8).reshape(1, 1, 1, 3)
IMAGENET = ((1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225)
EXPECTED = {
    "nevis": (1.0, -1.0, -0.6),
    "caffe": (51 - 103.939, 0 - 116.779, 255 - 123.68),
    "imagenet": IMAGENET,
    "imagenet_bicubic": IMAGENET,
    "inception": (1.0, -1.0, -0.6),
    "lite": (1.0, -127 / 128, -76 / 128),
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


@pytest.mark.parametrize("name", EXPECTED)
def test_names(name):
    assert str(models.PREPROCESS[name]) == name
    assert Preprocess.parse(name) is models.PREPROCESS[name]


POSITIVE = st.floats(1e-3, 1e3)


@given(
    st.builds(
        Preprocess,
        POSITIVE,
        st.tuples(*[st.floats(-300, 300)] * 3),
        st.tuples(*[POSITIVE] * 3),
        st.sampled_from(["rgb", "bgr"]),
        st.sampled_from(["bilinear", "bicubic"]),
    )
)
def test_texts(preprocess):
    assert Preprocess.parse(str(preprocess)) == preprocess
    assert Preprocess.parse(preprocess) is preprocess


def test_values_as_people_write_them():
    text = "scale=255 mean=0.5,0.5,0.5  std=.5,.5,.5 channels=rgb"
    assert Preprocess.parse(text) == models.PREPROCESS["inception"]
    assert str(Preprocess.parse("scale=2")) == (
        "scale=2.0 mean=0,0,0 std=1,1,1 channels=rgb interpolation=bilinear"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("vgg", "preprocess is 'vgg'; expected one of nevis, caffe, "),
        ("", "preprocess is ''"),
        ("scale=", "preprocess is 'scale='"),
        ("mean=1,2", "preprocess is 'mean=1,2'"),
        ("scale=255 size=3", "preprocess is 'scale=255 size=3'"),
        ("scale=0", "scale 0.0, .*expected a positive scale"),
        ("std=1,1,nan", "expected .* positive standard deviations"),
        ("mean=1,1,inf", "expected .* finite means"),
        ("channels=grb", "channels is 'grb'; expected one of rgb, bgr"),
        ("interpolation=cubic", "interpolation is 'cubic'; expected one of nearest, bilinear"),
    ],
)
def test_bad_texts(text, said):
    with pytest.raises(UserError, match=said) as caught:
        Preprocess.parse(text)
    assert "\n" not in str(caught.value)
