"""Preprocessing: what pretrained weights expect of an image."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal, Self, get_args

import jax
import jax.numpy as jnp

from ctl_jax.errors import UserError

Channels = Literal["rgb", "bgr"]
# How an image is brought to the size that a network expects.
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Triple = tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Preprocess:
    """(images / scale - mean) / std, channel by channel.

    Attributes:
      scale: what values of 0..255 are divided by first.
      mean: subtracted from each channel, in the order of `channels`.
      std: what each channel is divided by at last.
      channels: the order in which the network reads them.
      interpolation: by which images are resized before.

    Raises:
      UserError: a scale or standard deviation that is not positive, a mean that is not finite, or
        another order or interpolation.

    Example:
      >>> Preprocess.parse("scale=255 mean=0.5,0.5,0.5 std=0.5,0.5,0.5")
      >>> images = PREPROCESS["imagenet"](images)
    """

    scale: float = 255.0
    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)
    channels: Channels = "rgb"
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        positive = (self.scale, *self.std)
        if not (all(0 < v < math.inf for v in positive) and all(map(math.isfinite, self.mean))):
            raise UserError(
                f"scale {self.scale}, mean {self.mean}, std {self.std}; expected a positive scale, "
                "finite means and positive standard deviations"
            )
        for field, known in (("channels", Channels), ("interpolation", Interpolation)):
            if (value := getattr(self, field)) not in get_args(known):
                expected = ", ".join(get_args(known))
                raise UserError(f"{field} is {value!r}; expected one of {expected}")

    def __call__(self, images: jax.Array) -> jax.Array:
        """RGB images [B, H, W, 3], uint8 or float 0..255, to float32 of that shape."""
        x = jnp.asarray(images, jnp.float32)
        if self.channels == "bgr":
            # Indexing would look channels up by a gather where the batch's size is left open.
            x = jax.lax.rev(x, (x.ndim - 1,))
        if self.scale != 1:
            x = x / self.scale
        if any(self.mean):
            x = x - _by_channel(self.mean, x.ndim)
        return x if self.std == (1, 1, 1) else x / _by_channel(self.std, x.ndim)

    def __str__(self) -> str:
        """Its name in `PREPROCESS`, or its values as `parse` takes them."""
        for name, known in PREPROCESS.items():
            if known == self:
                return name
        return " ".join(
            f"{name}={','.join(map(_shortest, value)) if isinstance(value, tuple) else value}"
            for name, value in dataclasses.asdict(self).items()
        )

    @classmethod
    def parse(cls, text: str | Self) -> "Preprocess":
        """What `str` wrote: a name, or values such as "scale=255 mean=.5,.5,.5 channels=bgr".

        Args:
          text: values that it does not give are the defaults; a `Preprocess` stays as it is.

        Raises:
          UserError: an unknown name or key, or a value that cannot be.
        """
        if isinstance(text, cls):
            return text
        if text in PREPROCESS:
            return PREPROCESS[text]
        fields: dict[str, Any] = {}
        for part in str(text).split():
            key, _, value = part.partition("=")
            try:
                fields[key] = _PARSERS[key](value)
            except (KeyError, ValueError):
                fields.clear()
                break
        if not fields:
            raise UserError(
                f"preprocess is {text!r}; expected one of {', '.join(PREPROCESS)}, or values such "
                "as 'scale=255 mean=0.5,0.5,0.5 std=0.5,0.5,0.5 channels=rgb interpolation=bicubic'"
            )
        return cls(**fields)


def _by_channel(values: Triple, ndim: int) -> jax.Array:
    return jnp.asarray(values, jnp.float32).reshape((1,) * (ndim - 1) + (3,))


def _shortest(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _triple(text: str) -> tuple[float, ...]:
    values = tuple(map(float, text.split(",")))
    if len(values) != 3:
        raise ValueError(text)
    return values


_PARSERS: dict[str, Callable[[str], Any]] = {
    "scale": float,
    "mean": _triple,
    "std": _triple,
    "channels": str,
    "interpolation": str,
}

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

PREPROCESS: dict[str, Preprocess] = {
    # To -1..1, as Nevis'22 trains its networks.
    "nevis": Preprocess(127.5, mean=(1.0, 1.0, 1.0)),
    # ImageNet's means, as Keras Applications' ResNets v1 and VGGs expect.
    "caffe": Preprocess(1.0, mean=(103.939, 116.779, 123.68), channels="bgr"),
    # ImageNet's mean and standard deviation, as torchvision's weights expect.
    "imagenet": Preprocess(mean=_IMAGENET_MEAN, std=_IMAGENET_STD),
    # The same values, for networks whose images were resized more smoothly: most of timm's.
    "imagenet_bicubic": Preprocess(mean=_IMAGENET_MEAN, std=_IMAGENET_STD, interpolation="bicubic"),
    # To -1..1, as TensorFlow's networks of Inception's line, and many ViTs, expect.
    "inception": Preprocess(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    # As TensorFlow's EfficientNet-Lite expects.
    "lite": Preprocess(
        1.0, mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0), interpolation="bicubic"
    ),
}
