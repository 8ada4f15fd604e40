"""Random resized crops, horizontal flips and mixtures of images, inside the compiled step."""

import dataclasses
import functools

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How training images vary. The defaults are Nevis'22's own.

    Attributes:
      crop_area: least and largest area of the crop, as fractions of the image's.
      crop_aspect: least and largest width / height of the crop.
      flip: whether half of the images are mirrored left to right.
    """

    crop_area: tuple[float, float] = (0.08, 1.0)
    crop_aspect: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True

    @property
    def varies(self) -> bool:
        """Whether an image is ever another than as it is."""
        return self.flip or self.crop_area != (1, 1) or self.crop_aspect != (1, 1)


# Images as they are.
NONE = Augmentation(crop_area=(1, 1), crop_aspect=(1, 1), flip=False)


def augment(key: jax.Array, images: jax.Array, settings: Augmentation) -> jax.Array:
    """Crops each image at random, resizes the crop to the image's size, and mirrors half of them.

    The resize is bilinear and separable, by gathers: first rows, then columns. There is no matrix
    product in it, so it adds no FLOPs to a step; and since a crop is never larger than its image,
    it needs no low-pass filter.

    Args:
      key: a PRNG key.
      images: uint8 or float array [batch, height, width, channels].
      settings: the distribution of crops and flips.

    Returns:
      A float32 array of the same shape and range.
    """
    if not settings.varies:
        # The identity; as crops it would be half of a small network's program to compile.
        return images.astype(jnp.float32)
    batch, height, width, _ = images.shape
    area_key, aspect_key, y_key, x_key, flip_key = jax.random.split(key, 5)
    # float32 by name: jax.config.jax_enable_x64 would draw other numbers.
    uniform = functools.partial(jax.random.uniform, shape=(batch,), dtype=jnp.float32)
    area = uniform(area_key, minval=settings.crop_area[0], maxval=settings.crop_area[1])
    low, high = (jnp.log(jnp.float32(a)) for a in settings.crop_aspect)
    aspect = jnp.exp(uniform(aspect_key, minval=low, maxval=high))
    # A crop that would be wider (or higher) than the image is clipped to it.
    crop_height = jnp.minimum(jnp.sqrt(area / aspect), 1.0)
    crop_width = jnp.minimum(jnp.sqrt(area * aspect), 1.0)
    top = uniform(y_key) * (1 - crop_height)
    left = uniform(x_key) * (1 - crop_width)
    flip = jax.random.bernoulli(flip_key, jnp.float32(0.5), (batch,)) & settings.flip

    columns = _positions(left, crop_width, width)
    columns = jnp.where(flip[:, None], columns[:, ::-1], columns)
    images = _interpolate(images.astype(jnp.float32), _positions(top, crop_height, height), axis=1)
    return _interpolate(images, columns, axis=2)


def mix(key: jax.Array, images: jax.Array, strength: float) -> tuple[jax.Array, jax.Array]:
    """Mixes each image of a batch with its `partner` (mixup: Zhang et al. 2018, arXiv:1710.09412).

    Args:
      key: the PRNG key that `augment` has.
      images: float32 [batch, height, width, channels].
      strength: alpha, positive: the share of an image is drawn for the batch from
        Beta(alpha, alpha).

    Returns:
      The mixed images, and the share of each in its mixture, a scalar in 0 .. 1.
    """
    # Beyond the keys that `augment` splits from it.
    key = jax.random.fold_in(key, 1 << 16)
    share = jax.random.beta(key, strength, strength, dtype=jnp.float32)
    return share * images + (1 - share) * partner(images), share


def partner(batch: jax.Array) -> jax.Array:
    """What each example of a batch is mixed with: the one before it; the order is random anyway."""
    return jnp.roll(batch, 1, axis=0)


def _positions(start: jax.Array, extent: jax.Array, size: int) -> jax.Array:
    """Where `size` samples of [start, start + extent] fall, in pixels: float32 [batch, size]."""
    centres = (jnp.arange(size, dtype=jnp.float32) + 0.5) / size
    positions = (start[:, None] + extent[:, None] * centres[None, :]) * size - 0.5
    return jnp.clip(positions, 0, size - 1)


def _interpolate(images: jax.Array, positions: jax.Array, *, axis: int) -> jax.Array:
    """Linear interpolation of each image along `axis` (1 or 2) at `positions` [batch, size]."""
    low = jnp.floor(positions).astype(jnp.int32)
    high = jnp.minimum(low + 1, images.shape[axis] - 1)
    shape = [1] * images.ndim
    shape[0], shape[axis] = positions.shape
    weight = (positions - low.astype(positions.dtype)).reshape(shape)
    take = jax.vmap(lambda image, index: jnp.take(image, index, axis=axis - 1, mode="clip"))
    below, above = take(images, low), take(images, high)
    return below + weight * (above - below)
