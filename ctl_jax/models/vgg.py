"""VGG in Flax Linen: plain convolutions, then the flattened map into dense layers.

Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, 2014
(arXiv:1409.1556). Padding is explicit and symmetric and the last map is averaged to a fixed size,
as in torchvision; there is no dropout. The map is flattened in the order rows, columns, channels
(torchvision: channels, rows, columns).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctl_jax.models.layers import batch_norm, check_size, conv, head, relu
from ctl_jax.models.options import BOOL, COUNT, POSITIVE, STAGES, WHOLE, Options

# Channels grow up to the fourth stage.
WIDEST = 8

# Names and sizes are torchvision's.
PRESETS: dict[str, dict[str, Any]] = {
    "vgg11": {"stages": (1, 1, 2, 2, 2)},
    "vgg13": {"stages": (2, 2, 2, 2, 2)},
    "vgg16": {"stages": (2, 2, 3, 3, 3)},
    "vgg19": {"stages": (2, 2, 4, 4, 4)},
}
PRESETS |= {f"{name}_bn": preset | {"norm": True} for name, preset in PRESETS.items()}

OPTIONS: Options = {
    "stages": STAGES,
    "norm": BOOL,
    "width": COUNT,
    "hidden": WHOLE,
    "pool": COUNT,
    "epsilon": POSITIVE,
}


def adaptive_mean(x: jax.Array, size: int) -> jax.Array:
    """The mean of x over `size` x `size` windows that cover it, as torch's AdaptiveAvgPool2d.

    Window i of n rows is floor(i * n / size) up to ceil((i + 1) * n / size); windows overlap where
    the size does not divide n, so a map may be smaller than the result.

    Args:
      x: [B, H, W, C].
      size: rows and columns of the result.

    Returns:
      [B, size, size, C].
    """
    for axis in (1, 2):
        n = x.shape[axis]
        if n == size:
            continue
        windows = [(i * n // size, -(-(i + 1) * n // size)) for i in range(size)]
        parts = [jax.lax.slice_in_dim(x, *window, axis=axis) for window in windows]
        x = jnp.concatenate([jnp.mean(part, axis=axis, keepdims=True) for part in parts], axis)
    return x


class VGG(nn.Module):
    """A VGG with a task head.

    Attributes:
      num_outputs: outputs of the task head, a Dense layer "head" whose kernel starts at zero.
      stages: 3x3 convolutions of each stage, after which a max pool halves the image; stage i has
        `width * min(2**i, 8)` channels.
      norm: BatchNorm after each convolution.
      width: channels of the first stage.
      hidden: outputs of each of the two dense layers before the head; 0 is without them.
      pool: rows and columns of the map that is flattened.
      epsilon: of BatchNorm.
    """

    num_outputs: int
    stages: tuple[int, ...]
    norm: bool = False
    width: int = 64
    hidden: int = 4096
    pool: int = 7
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, images: jax.Array, return_features: bool = False) -> jax.Array:
        """Logits [B, num_outputs] of images [B, H, W, 3], or the features [B, F] under the head.

        Images have at least `2**len(stages)` rows and columns.
        """
        check_size(images, 2 ** len(self.stages))
        x = images
        for i, convolutions in enumerate(self.stages):
            features = self.width * min(2**i, WIDEST)
            for j in range(1, convolutions + 1):
                x = conv(features, 3, use_bias=True, name=f"stage{i + 1}_conv{j}")(x)
                if self.norm:
                    x = batch_norm(self.epsilon, f"stage{i + 1}_bn{j}")(x)
                x = relu(x)
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = adaptive_mean(x, self.pool)
        x = x.reshape(x.shape[0], -1)
        for i in (1, 2) if self.hidden else ():
            dense = nn.Dense(
                self.hidden, kernel_init=nn.initializers.he_normal(), name=f"hidden{i}"
            )
            x = relu(dense(x))
        return x if return_features else head(self.num_outputs)(x)
