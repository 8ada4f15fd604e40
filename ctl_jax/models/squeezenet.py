"""SqueezeNet in Flax Linen: fire modules, which squeeze by a 1x1 convolution and expand by two.

Iandola et al., SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size,
2016 (arXiv:1602.07360). There is no BatchNorm, and no dropout before the head.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctl_jax.models.layers import check_size, conv, global_mean, head, kernel_init, relu
from ctl_jax.models.options import BOOL, COUNT, Options, stages_up_to

# Outputs of each of a fire module's two expansions per squeezed channel.
EXPANSION = 4

# The authors' two versions, as torchvision has them.
PRESETS: dict[str, dict[str, Any]] = {
    "squeezenet1_0": {"stages": (3, 4, 1), "stem_width": 96, "stem_size": 7},
    "squeezenet1_1": {"stages": (2, 2, 4), "stem_width": 64, "stem_size": 3},
}

OPTIONS: Options = {
    "stages": stages_up_to(3),
    "width": COUNT,
    "stem_width": COUNT,
    "relu_head": BOOL,
}


class Fire(nn.Module):
    """ReLU of a 1x1 convolution to few channels, then of a 1x1 and a 3x3 one, side by side."""

    squeezed: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = relu(conv(self.squeezed, 1, use_bias=True, name="squeeze")(x))
        features = EXPANSION * self.squeezed
        parts = [
            conv(features, size, use_bias=True, name=f"expand{size}x{size}")(x) for size in (1, 3)
        ]
        return relu(jnp.concatenate(parts, axis=-1))


class SqueezeNet(nn.Module):
    """A SqueezeNet with a task head.

    Attributes:
      num_outputs: outputs of the task head, a Dense layer "head" whose kernel starts at zero.
      stages: fire modules between the poolings.
      stem_width: outputs of the first convolution.
      stem_size: side of its kernel.
      width: squeezed channels of the first two fire modules; the next two have twice as many, the
        next three times, and so on.
      relu_head: logits are means of the rectified outputs of the head at every place, as those of
        the paper are and so those of pretrained weights; else the head reads means, as a head that
        starts at zero must, since where a ReLU is zero so is its gradient.
    """

    num_outputs: int
    stages: tuple[int, ...]
    stem_width: int
    stem_size: int
    width: int = 16
    relu_head: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, return_features: bool = False) -> jax.Array:
        """Logits [B, num_outputs] of images [B, H, W, 3], or the features [B, F] under the head.

        Raises:
          UserError: images so small that pooling would leave nothing.
        """
        check_size(images, 2 * (2 ** len(self.stages) - 1) + self.stem_size)
        x = nn.Conv(
            self.stem_width,
            (self.stem_size, self.stem_size),
            strides=2,
            padding="VALID",
            kernel_init=kernel_init,
            name="stem_conv",
        )(images)
        x = relu(x)
        fires = 0
        for i, blocks in enumerate(self.stages, start=1):
            x = _pool(x)
            for j in range(1, blocks + 1):
                x = Fire(self.width * (fires // 2 + 1), name=f"stage{i}_block{j}")(x)
                fires += 1
        if return_features:
            return global_mean(x)
        logits = head(self.num_outputs)
        return global_mean(relu(logits(x))) if self.relu_head else logits(global_mean(x))


def _pool(x: jax.Array) -> jax.Array:
    """3x3 max-pooling of stride 2, a window over the end where one more fits in part."""
    pads = [(0, (size - 3) % 2) for size in x.shape[1:3]]
    return nn.max_pool(x, (3, 3), (2, 2), padding=pads)
