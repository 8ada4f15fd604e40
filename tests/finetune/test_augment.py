"""Random resized crop, flip and mixtures."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctl_jax import compute, finetune
from ctl_jax.finetune import Augmentation
from ctl_jax.finetune._augment import mix

# One compilation instead of one an operation.
augment = jax.jit(finetune.augment, static_argnums=2)
WHOLE = Augmentation(crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0), flip=False)


def _images(batch=8, size=16):
    return np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)


def test_the_whole_image_comes_back_as_it_was():
    images = _images()
    out = augment(jax.random.key(0), images, WHOLE)
    chex.assert_shape(out, images.shape)
    chex.assert_type(out, jnp.float32)
    np.testing.assert_array_equal(out, images)


def test_flip_mirrors_about_half_of_the_images_and_nothing_else():
    images = _images(batch=400, size=4)
    settings = Augmentation(crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0), flip=True)
    out = np.asarray(augment(jax.random.key(1), images, settings))
    same = np.isclose(out, images, atol=1e-3).all((1, 2, 3))
    mirrored = np.isclose(out, images[:, :, ::-1], atol=1e-3).all((1, 2, 3))
    assert (same ^ mirrored).all()
    assert 150 < mirrored.sum() < 250


def test_crops_of_a_ramp_show_their_place_and_size():
    """In an image whose value is its column, a crop's width and place can be read off."""
    size = 64
    ramp = np.tile(np.arange(size, dtype=np.float32)[None, None, :, None], (256, size, 1, 3))
    settings = Augmentation(crop_area=(0.25, 0.25), crop_aspect=(1.0, 1.0), flip=False)
    out = np.asarray(augment(jax.random.key(2), ramp, settings))
    rows = out[:, 0, :, 0]
    # A quarter of the area is half of the width: columns are half a pixel apart inside.
    np.testing.assert_allclose(np.diff(rows[:, 1:-1], axis=1), 0.5, atol=1e-3)
    assert rows.min() >= 0
    assert rows.max() <= size - 1
    first = rows[:, 1]
    assert first.min() < 4
    assert 24 < first.max() < 34
    np.testing.assert_allclose(out, np.broadcast_to(out[:, :1], out.shape), atol=1e-3)


@pytest.mark.parametrize("aspect", [0.5, 2.0])
def test_aspect_is_width_over_height(aspect):
    size = 32
    x, y = np.meshgrid(np.arange(size), np.arange(size))
    image = np.stack([x, y, x], -1)[None].astype(np.float32)
    settings = Augmentation(crop_area=(0.2, 0.2), crop_aspect=(aspect, aspect), flip=False)
    out = np.asarray(augment(jax.random.key(3), image, settings))[0]
    width = np.median(np.diff(out[5, 2:-2, 0]))
    height = np.median(np.diff(out[2:-2, 5, 1]))
    assert width / height == pytest.approx(aspect, rel=1e-3)
    assert width * height == pytest.approx(0.2, rel=1e-3)


def test_same_key_same_crops_other_key_other_crops():
    images, settings = _images(), Augmentation()
    one = augment(jax.random.key(0), images, settings)
    chex.assert_trees_all_equal(one, augment(jax.random.key(0), images, settings))
    assert not np.allclose(one, augment(jax.random.key(1), images, settings))


def test_costs_no_flops():
    counted = compute.flops(lambda x: augment(jax.random.key(0), x, Augmentation()), _images())
    assert counted == 0


def test_images_are_mixed_with_the_one_before_by_a_share_of_their_batch():
    images = _images(batch=5, size=2).astype(np.float32)
    keys = jax.random.split(jax.random.key(0), 500)
    mixed_by = jax.jit(jax.vmap(mix, in_axes=(0, None, None)))
    for strength in (0.2, 1.0):
        mixed, shares = map(np.asarray, mixed_by(keys, images, strength))
        along = shares[:, None, None, None, None]
        expected = along * images + (1 - along) * np.roll(images, 1, axis=0)
        np.testing.assert_allclose(mixed, expected, rtol=1e-5, atol=1e-3)
        # Mean and variance of Beta(alpha, alpha).
        assert abs(shares.mean() - 0.5) < 0.06
        assert abs(shares.var() - 1 / (4 * (2 * strength + 1))) < 0.02
