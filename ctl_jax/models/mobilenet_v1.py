"""MobileNetV1 in Flax Linen: depthwise convolutions, each followed by a 1x1.

Howard et al., MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications,
2017 (arXiv:1704.04861). There is no dropout before the head.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax

from ctl_jax.models.inverted_residual import ACTIVATION, ACTIVATIONS, PADDING
from ctl_jax.models.layers import (
    Padding,
    batch_norm,
    conv,
    depthwise_conv,
    global_mean,
    head,
    make_divisible,
)
from ctl_jax.models.options import BOOL, POSITIVE, Options, stages_up_to


class Stage(NamedTuple):
    """Blocks of one width at one size of the image: outputs, stride of the first."""

    features: int
    stride: int


# Table 1 of the paper, at width 1.
STAGES = (Stage(64, 1), Stage(128, 2), Stage(256, 2), Stage(512, 2), Stage(1024, 2))
STEM, LAST = 32, 1024

PRESETS: dict[str, dict[str, Any]] = {"mobilenet_v1": {"stages": (1, 2, 2, 6, 2)}}

OPTIONS: Options = {
    "stages": stages_up_to(len(STAGES)),
    "width_multiplier": POSITIVE,
    "activation": ACTIVATION,
    "last": BOOL,
    "padding": PADDING,
    "epsilon": POSITIVE,
}


class Separable(nn.Module):
    """A depthwise 3x3 convolution and a 1x1 one, BatchNorm and the activation after each.

    Attributes:
      features: outputs.
      stride: of the depthwise convolution.
      activation: a key of `ACTIVATIONS`.
      padding: of the depthwise convolution.
      epsilon: of BatchNorm.
    """

    features: int
    stride: int
    activation: str
    padding: Padding
    epsilon: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        activation = ACTIVATIONS[self.activation]
        x = depthwise_conv(x, 3, stride=self.stride, padding=self.padding, name="depthwise_conv")
        x = activation(batch_norm(self.epsilon, "depthwise_bn")(x))
        x = conv(self.features, 1, name="pointwise_conv")(x)
        return activation(batch_norm(self.epsilon, "pointwise_bn")(x))


class MobileNetV1(nn.Module):
    """MobileNetV1 with a task head.

    Attributes:
      num_outputs: outputs of the task head, a Dense layer "head" whose kernel starts at zero.
      stages: blocks of each of the first stages, which have 64, 128, 256, 512 and 1024 outputs.
      width_multiplier: of all widths, which are then rounded to multiples of 8.
      activation: a key of `ACTIVATIONS`; the authors' weights are of "relu6".
      last: there is a last 1x1 convolution, which the paper has not (timm's mobilenetv1_100h).
      padding: of convolutions of stride 2, see `layers.Padding` (timm's is "symmetric",
        TensorFlow's "same", Keras's "end", which is "same" in the first).
      epsilon: of BatchNorm (timm's; TensorFlow's is 1e-3).
    """

    num_outputs: int
    stages: tuple[int, ...]
    width_multiplier: float = 1.0
    activation: str = "relu6"
    last: bool = False
    padding: Padding = "symmetric"
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, images: jax.Array, return_features: bool = False) -> jax.Array:
        """Logits [B, num_outputs] of images [B, H, W, 3], or the features [B, F] under the head."""
        activation = ACTIVATIONS[self.activation]
        width = make_divisible(STEM * self.width_multiplier)
        # Keras pads its depthwise convolutions by hand.
        padding: Padding = "same" if self.padding == "end" else self.padding
        x = conv(width, 3, stride=2, padding=padding, name="stem_conv")(images)
        x = activation(batch_norm(self.epsilon, "stem_bn")(x))
        for i, (stage, blocks) in enumerate(zip(STAGES, self.stages, strict=False), start=1):
            features = make_divisible(stage.features * self.width_multiplier)
            for j in range(1, blocks + 1):
                stride = stage.stride if j == 1 else 1
                name = f"stage{i}_block{j}"
                x = Separable(
                    features, stride, self.activation, self.padding, self.epsilon, name=name
                )(x)
        if self.last:
            x = conv(make_divisible(LAST * max(1.0, self.width_multiplier)), 1, name="last_conv")(x)
            x = activation(batch_norm(self.epsilon, "last_bn")(x))
        x = global_mean(x)
        return x if return_features else head(self.num_outputs)(x)
