"""Densely connected networks in Flax Linen: every layer reads what all layers before it wrote.

Huang et al., Densely Connected Convolutional Networks, 2016 (arXiv:1608.06993), the bottlenecked
and compressed form (DenseNet-BC). Padding is explicit and symmetric, as in torchvision.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctl_jax.models.layers import batch_norm, check_size, conv, global_mean, head, max_pool, relu
from ctl_jax.models.options import BOOL, COUNT, POSITIVE, STAGES, Options

# Channels of a layer's 1x1 convolution per channel that the layer adds.
BOTTLENECK = 4

# Names and sizes are torchvision's.
PRESETS: dict[str, dict[str, Any]] = {
    "densenet121": {"stages": (6, 12, 24, 16)},
    "densenet161": {"stages": (6, 12, 36, 24), "growth": 48, "width": 96},
    "densenet169": {"stages": (6, 12, 32, 32)},
    "densenet201": {"stages": (6, 12, 48, 32)},
}

OPTIONS: Options = {
    "stages": STAGES,
    "growth": COUNT,
    "width": COUNT,
    "last_norm": BOOL,
    "epsilon": POSITIVE,
}


class DenseLayer(nn.Module):
    """x with `growth` new channels behind: BatchNorm, ReLU, 1x1 convolution, again with a 3x3."""

    growth: int
    epsilon: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = relu(batch_norm(self.epsilon, "bn1")(x))
        y = conv(BOTTLENECK * self.growth, 1, name="conv1")(y)
        y = relu(batch_norm(self.epsilon, "bn2")(y))
        return jnp.concatenate([x, conv(self.growth, 3, name="conv2")(y)], axis=-1)


class Transition(nn.Module):
    """Half of the channels and half of the image: BatchNorm, ReLU, 1x1 convolution, mean of 2x2."""

    epsilon: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = relu(batch_norm(self.epsilon, "bn")(x))
        x = conv(x.shape[-1] // 2, 1, name="conv")(x)
        return nn.avg_pool(x, (2, 2), (2, 2))


class DenseNet(nn.Module):
    """A densely connected network with a task head.

    Attributes:
      num_outputs: outputs of the task head, a Dense layer "head" whose kernel starts at zero.
      stages: layers of each dense block; a transition stands between two blocks.
      growth: channels that a layer adds (k in the paper).
      width: channels of the stem, a 7x7/2 convolution and a 3x3/2 max pool; at least 2.
      last_norm: BatchNorm and ReLU before the mean over the map; without, that of a network whose
        last stages were cut off.
      epsilon: of BatchNorm.
    """

    num_outputs: int
    stages: tuple[int, ...]
    growth: int = 32
    width: int = 64
    last_norm: bool = True
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, images: jax.Array, return_features: bool = False) -> jax.Array:
        """Logits [B, num_outputs] of images [B, H, W, 3], or the features [B, F] under the head.

        Images have at least `2 ** (len(stages) + 1) - 3` rows and columns.
        """
        # The stem quarters an image and rounds up, a transition halves and rounds down.
        check_size(images, 2 ** (len(self.stages) + 1) - 3)
        x = conv(self.width, 7, stride=2, name="stem_conv")(images)
        x = max_pool(relu(batch_norm(self.epsilon, "stem_bn")(x)))
        for i, layers in enumerate(self.stages, start=1):
            for j in range(1, layers + 1):
                x = DenseLayer(self.growth, self.epsilon, name=f"stage{i}_layer{j}")(x)
            if i < len(self.stages):
                x = Transition(self.epsilon, name=f"transition{i}")(x)
        if self.last_norm:
            x = relu(batch_norm(self.epsilon, "final_bn")(x))
        x = global_mean(x)
        return x if return_features else head(self.num_outputs)(x)
