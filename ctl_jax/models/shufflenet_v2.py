"""ShuffleNet V2 in Flax Linen: half of the channels pass a unit as they are, then all shuffle.

Ma et al., ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design, 2018
(arXiv:1807.11164). Padding is explicit and symmetric, as in torchvision.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctl_jax.models.layers import (
    batch_norm,
    channel_shuffle,
    conv,
    depthwise_conv,
    global_mean,
    head,
    max_pool,
    relu,
)
from ctl_jax.models.options import COUNT, POSITIVE, STAGES, Options

# Names and sizes are torchvision's.
PRESETS: dict[str, dict[str, Any]] = {
    "shufflenet_v2_x0_5": {"stages": (4, 8, 4), "width": 48},
    "shufflenet_v2_x1_0": {"stages": (4, 8, 4), "width": 116},
    "shufflenet_v2_x1_5": {"stages": (4, 8, 4), "width": 176},
    "shufflenet_v2_x2_0": {"stages": (4, 8, 4), "width": 244, "last_width": 2048},
}

OPTIONS: Options = {
    "stages": STAGES,
    "width": (
        lambda value: COUNT[0](value) and value % 2 == 0,
        "a positive even int, since units work on one half of the channels",
    ),
    "stem_width": COUNT,
    "last_width": COUNT,
    "epsilon": POSITIVE,
}


class Unit(nn.Module):
    """One half of x beside the branch of the other half, shuffled.

    With `downsample`, the branch of all of x beside a shorter branch of all of x, at half the
    image. The branch: 1x1, depthwise 3x3, 1x1 convolution, each with BatchNorm.

    Attributes:
      features: outputs of each branch, half of the unit's.
      downsample: the image is halved.
      epsilon: of BatchNorm.
    """

    features: int
    downsample: bool
    epsilon: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        stride = 2 if self.downsample else 1

        def pointwise(x: jax.Array, name: str) -> jax.Array:
            x = conv(self.features, 1, name=f"{name}_conv")(x)
            return relu(batch_norm(self.epsilon, f"{name}_bn")(x))

        def depthwise(x: jax.Array, name: str) -> jax.Array:
            x = depthwise_conv(x, 3, stride=stride, name=f"{name}_conv")
            return batch_norm(self.epsilon, f"{name}_bn")(x)

        if self.downsample:
            shortcut = pointwise(depthwise(x, "shortcut_depthwise"), "shortcut_pointwise")
        else:
            shortcut, x = jnp.split(x, 2, axis=-1)
        x = pointwise(depthwise(pointwise(x, "pointwise1"), "depthwise"), "pointwise2")
        return channel_shuffle(jnp.concatenate([shortcut, x], axis=-1), 2)


class ShuffleNetV2(nn.Module):
    """ShuffleNet V2 with a task head.

    Attributes:
      num_outputs: outputs of the task head, a Dense layer "head" whose kernel starts at zero.
      stages: units of each stage; every stage halves the image.
      width: outputs of the first stage, even; stage i has `width * 2**i`.
      stem_width: channels of the stem, a 3x3/2 convolution and a 3x3/2 max pool.
      last_width: outputs of the last 1x1 convolution.
      epsilon: of BatchNorm.
    """

    num_outputs: int
    stages: tuple[int, ...]
    width: int = 116
    stem_width: int = 24
    last_width: int = 1024
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, images: jax.Array, return_features: bool = False) -> jax.Array:
        """Logits [B, num_outputs] of images [B, H, W, 3], or the features [B, F] under the head."""
        x = conv(self.stem_width, 3, stride=2, name="stem_conv")(images)
        x = max_pool(relu(batch_norm(self.epsilon, "stem_bn")(x)))
        for i, units in enumerate(self.stages):
            for j in range(units):
                name = f"stage{i + 1}_unit{j + 1}"
                unit = Unit(self.width * 2**i // 2, j == 0, self.epsilon, name=name)
                x = unit(x)
        x = conv(self.last_width, 1, name="last_conv")(x)
        x = global_mean(relu(batch_norm(self.epsilon, "last_bn")(x)))
        return x if return_features else head(self.num_outputs)(x)
