"""What pretrained weights expect of an image, by the name of the convention."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def _channels(values: tuple[float, float, float], ndim: int) -> jax.Array:
    return jnp.asarray(values, jnp.float32).reshape((1,) * (ndim - 1) + (3,))


def nevis(images: jax.Array) -> jax.Array:
    """0..255 to -1..1, as Nevis'22 trains its networks."""
    return jnp.asarray(images, jnp.float32) / 127.5 - 1.0


def caffe(images: jax.Array) -> jax.Array:
    """RGB to BGR minus ImageNet's means, as Keras Applications' ResNet v1 weights expect."""
    images = jnp.asarray(images, jnp.float32)[..., ::-1]
    return images - _channels((103.939, 116.779, 123.68), images.ndim)


def imagenet(images: jax.Array) -> jax.Array:
    """0..255 to ImageNet's mean 0 and standard deviation 1, as torchvision's weights expect."""
    images = jnp.asarray(images, jnp.float32) / 255.0
    mean = _channels((0.485, 0.456, 0.406), images.ndim)
    return (images - mean) / _channels((0.229, 0.224, 0.225), images.ndim)


# Each takes RGB images [B, H, W, 3], uint8 or float 0..255, and returns float32 of that shape.
PREPROCESS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "nevis": nevis,
    "caffe": caffe,
    "imagenet": imagenet,
}
