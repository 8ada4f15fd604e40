"""U-Net in Flax Linen: a label for every pixel, from a path down and a path up beside it.

Ronneberger et al., U-Net: Convolutional Networks for Biomedical Image Segmentation, 2015
(arXiv:1505.04597), in the form common in PyTorch (milesial/Pytorch-UNet): convolutions are padded
on every side, so that the output is as large as the image, and have BatchNorm instead of a bias.
Flax's kernels of transposed convolutions are PyTorch's turned by 180 degrees.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctl_jax.models.layers import batch_norm, check_size, conv, head, kernel_init, relu
from ctl_jax.models.options import COUNT, POSITIVE, Options

PRESETS: dict[str, dict[str, Any]] = {"unet": {"depth": 4}}

OPTIONS: Options = {"depth": COUNT, "width": COUNT, "epsilon": POSITIVE}


class DoubleConv(nn.Module):
    """3x3 convolution, BatchNorm, ReLU; twice."""

    features: int
    epsilon: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i in (1, 2):
            x = conv(self.features, 3, name=f"conv{i}")(x)
            x = relu(batch_norm(self.epsilon, f"bn{i}")(x))
        return x


def pad_to(x: jax.Array, height: int, width: int) -> jax.Array:
    """x [B, H, W, C] amid zeros, [B, height, width, C]; an odd row or column is after it."""
    rows, columns = height - x.shape[1], width - x.shape[2]
    if rows == columns == 0:
        return x
    spatial = ((rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2))
    return jnp.pad(x, ((0, 0), *spatial, (0, 0)))


class UNet(nn.Module):
    """A U-Net with a task head at every pixel.

    Attributes:
      num_outputs: outputs of the task head, a Dense layer "head" whose kernel starts at zero.
      depth: times that the image is halved, by 2x2 max pools, and doubled again, by 2x2/2
        transposed convolutions.
      width: channels at full size; after i halvings they are `width * 2**i`.
      epsilon: of BatchNorm.
    """

    num_outputs: int
    depth: int = 4
    width: int = 64
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, images: jax.Array, return_features: bool = False) -> jax.Array:
        """Logits [B, H, W, num_outputs] of images [B, H, W, 3], or the head's inputs [B, H, W, F].

        Images have at least `2**depth` rows and columns.
        """
        check_size(images, 2**self.depth)
        x = DoubleConv(self.width, self.epsilon, name="down0")(images)
        skips = []
        for i in range(1, self.depth + 1):
            skips.append(x)
            x = nn.max_pool(x, (2, 2), (2, 2))
            x = DoubleConv(self.width * 2**i, self.epsilon, name=f"down{i}")(x)
        for i in reversed(range(self.depth)):
            features, skip = self.width * 2**i, skips.pop()
            up = nn.ConvTranspose(
                features,
                (2, 2),
                (2, 2),
                padding="VALID",
                kernel_init=kernel_init,
                name=f"up{i}_conv",
            )
            x = pad_to(up(x), *skip.shape[1:3])
            x = jnp.concatenate([skip, x], axis=-1)
            x = DoubleConv(features, self.epsilon, name=f"up{i}")(x)
        return x if return_features else head(self.num_outputs)(x)
