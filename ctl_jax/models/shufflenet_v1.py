"""ShuffleNet V1 in Flax Linen: grouped 1x1 convolutions, with a shuffle between the groups.

Zhang et al., ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices,
2017 (arXiv:1707.01083). Padding is explicit and symmetric, as in the authors' PyTorch models.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctl_jax.errors import UserError
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

# Outputs of a unit per channel of its depthwise convolution.
BOTTLENECK = 4

# Table 1 of the paper: of about equal cost, the wider the more groups there are.
PRESETS: dict[str, dict[str, Any]] = {
    f"shufflenet_v1_g{groups}": {"stages": (4, 8, 4), "groups": groups, "width": width}
    for groups, width in ((1, 144), (2, 200), (3, 240), (4, 272), (8, 384))
}

OPTIONS: Options = {
    "stages": STAGES,
    "groups": COUNT,
    "width": COUNT,
    "stem_width": COUNT,
    "epsilon": POSITIVE,
}


class Unit(nn.Module):
    """relu(x + branch(x)); with `downsample`, the mean of x's 3x3/2 beside relu(branch(x)).

    The branch: grouped 1x1 convolution, shuffle, depthwise 3x3, grouped 1x1.

    Attributes:
      features: outputs of the branch.
      inner: channels of the depthwise convolution.
      groups: of the 1x1 convolutions.
      first: the first 1x1 convolution has no groups, its inputs being few.
      downsample: the image is halved.
      epsilon: of BatchNorm.
    """

    features: int
    inner: int
    groups: int
    first: bool
    downsample: bool
    epsilon: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shortcut = x
        x = conv(self.inner, 1, groups=1 if self.first else self.groups, name="conv1")(x)
        x = relu(batch_norm(self.epsilon, "bn1")(x))
        if self.groups > 1:
            x = channel_shuffle(x, self.groups)
        x = depthwise_conv(x, 3, stride=2 if self.downsample else 1, name="depthwise_conv")
        x = batch_norm(self.epsilon, "depthwise_bn")(x)
        x = conv(self.features, 1, groups=self.groups, name="conv2")(x)
        x = batch_norm(self.epsilon, "bn2")(x)
        if not self.downsample:
            return relu(shortcut + x)
        shortcut = nn.avg_pool(shortcut, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        return jnp.concatenate([shortcut, relu(x)], axis=-1)


class ShuffleNetV1(nn.Module):
    """ShuffleNet V1 with a task head.

    Attributes:
      num_outputs: outputs of the task head, a Dense layer "head" whose kernel starts at zero.
      stages: units of each stage; every stage halves the image.
      groups: of the 1x1 convolutions.
      width: outputs of the first stage, a multiple of 4 * groups; stage i has `width * 2**i`.
      stem_width: channels of the stem, a 3x3/2 convolution and a 3x3/2 max pool; a multiple of
        groups, less than `width`.
      epsilon: of BatchNorm.

    Raises:
      UserError: widths that the groups do not divide, or a stem as wide as the first stage.
    """

    num_outputs: int
    stages: tuple[int, ...]
    groups: int = 3
    width: int = 240
    stem_width: int = 24
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        for name, divisor in (("width", BOTTLENECK * self.groups), ("stem_width", self.groups)):
            value = getattr(self, name)
            if value % divisor:
                raise UserError(
                    f"option {name} is {value}; expected a multiple of {divisor}, "
                    f"groups being {self.groups}"
                )
        if self.stem_width >= self.width:
            raise UserError(
                f"option stem_width is {self.stem_width}; expected less than the width, "
                f"{self.width}"
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, return_features: bool = False) -> jax.Array:
        """Logits [B, num_outputs] of images [B, H, W, 3], or the features [B, F] under the head."""
        x = conv(self.stem_width, 3, stride=2, name="stem_conv")(images)
        x = max_pool(relu(batch_norm(self.epsilon, "stem_bn")(x)))
        inputs = self.stem_width
        for i, units in enumerate(self.stages):
            features = self.width * 2**i
            for j in range(units):
                x = Unit(
                    features=features - inputs if j == 0 else features,
                    inner=features // BOTTLENECK,
                    groups=self.groups,
                    first=i == 0 and j == 0,
                    downsample=j == 0,
                    epsilon=self.epsilon,
                    name=f"stage{i + 1}_unit{j + 1}",
                )(x)
            inputs = features
        x = global_mean(x)
        return x if return_features else head(self.num_outputs)(x)
