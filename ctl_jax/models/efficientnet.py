"""EfficientNets in Flax Linen: inverted residuals with squeeze and excitation, scaled together.

Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, 2019
(arXiv:1905.11946). EfficientNet-Lite is its authors' form for phones: ReLU6, no squeeze and
excitation, and a first and a last convolution that are not scaled. There is no dropout, neither
before the head nor of whole blocks.
"""

from typing import Any

import flax.linen as nn
import jax

from ctl_jax.models.inverted_residual import (
    ACTIVATION,
    ACTIVATIONS,
    PADDING,
    InvertedResidual,
    Stage,
    plan_blocks,
)
from ctl_jax.models.layers import Padding, batch_norm, conv, global_mean, head, make_divisible
from ctl_jax.models.options import BOOL, POSITIVE, Options, stages_up_to

# Table 1 of the paper, at width 1.
STAGES = (
    Stage((1,), 16, 1, 3),
    Stage((6,), 24, 2, 3),
    Stage((6,), 40, 2, 5),
    Stage((6,), 80, 2, 3),
    Stage((6,), 112, 1, 5),
    Stage((6,), 192, 2, 5),
    Stage((6,), 320, 1, 3),
)
STEM = 32
# Outputs of the last convolution per input, and where it is not scaled.
LAST, FIXED_LAST = 4, 1280
# Inputs of a block per squeezed channel.
SQUEEZE = 4

# Widths and depths as scaled for B0 to B4 and Lite0 to Lite4; the resolution is that of the images
# given.
PRESETS: dict[str, dict[str, Any]] = {
    "efficientnet_b0": {"stages": (1, 2, 2, 3, 3, 4, 1)},
    "efficientnet_b1": {"stages": (2, 3, 3, 4, 4, 5, 2)},
    "efficientnet_b2": {"stages": (2, 3, 3, 4, 4, 5, 2), "width_multiplier": 1.1},
    "efficientnet_b3": {"stages": (2, 3, 3, 5, 5, 6, 2), "width_multiplier": 1.2},
    "efficientnet_b4": {"stages": (2, 4, 4, 6, 6, 8, 2), "width_multiplier": 1.4},
}
_LITE = {"activation": "relu6", "squeeze": False, "fixed_ends": True}
PRESETS |= {
    "efficientnet_lite0": _LITE | {"stages": (1, 2, 2, 3, 3, 4, 1)},
    "efficientnet_lite1": _LITE | {"stages": (1, 3, 3, 4, 4, 5, 1)},
    "efficientnet_lite2": _LITE | {"stages": (1, 3, 3, 4, 4, 5, 1), "width_multiplier": 1.1},
    "efficientnet_lite3": _LITE | {"stages": (1, 3, 3, 5, 5, 6, 1), "width_multiplier": 1.2},
    "efficientnet_lite4": _LITE | {"stages": (1, 4, 4, 6, 6, 8, 1), "width_multiplier": 1.4},
}

OPTIONS: Options = {
    "stages": stages_up_to(len(STAGES)),
    "width_multiplier": POSITIVE,
    "activation": ACTIVATION,
    "squeeze": BOOL,
    "fixed_ends": BOOL,
    "last": BOOL,
    "padding": PADDING,
    "epsilon": POSITIVE,
}


class EfficientNet(nn.Module):
    """An EfficientNet with a task head.

    Attributes:
      num_outputs: outputs of the task head, a Dense layer "head" whose kernel starts at zero.
      stages: blocks of each of the first stages of the paper's table 1.
      width_multiplier: of all widths, which are then rounded to multiples of 8.
      activation: a key of `ACTIVATIONS`.
      squeeze: blocks have squeeze and excitation.
      fixed_ends: the first and the last convolution keep their widths, 32 and 1280.
      last: there is a last 1x1 convolution; without it the head reads the last block.
      padding: of convolutions of stride 2, see `layers.Padding` (torchvision's is "symmetric",
        TensorFlow's "same").
      epsilon: of BatchNorm (torchvision's; TensorFlow's is 1e-3).
    """

    num_outputs: int
    stages: tuple[int, ...]
    width_multiplier: float = 1.0
    activation: str = "silu"
    squeeze: bool = True
    fixed_ends: bool = False
    last: bool = True
    padding: Padding = "symmetric"
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, images: jax.Array, return_features: bool = False) -> jax.Array:
        """Logits [B, num_outputs] of images [B, H, W, 3], or the features [B, F] under the head."""
        activation = ACTIVATIONS[self.activation]
        width = STEM if self.fixed_ends else make_divisible(STEM * self.width_multiplier)
        x = conv(width, 3, stride=2, padding=self.padding, name="stem_conv")(images)
        x = activation(batch_norm(self.epsilon, "stem_bn")(x))
        table = [
            stage._replace(squeeze=self.squeeze, activation=self.activation) for stage in STAGES
        ]
        plan = plan_blocks(
            table, self.stages, width, self.width_multiplier, lambda inputs, _: inputs // SQUEEZE
        )
        for name, block in plan.items():
            x = InvertedResidual(block, self.epsilon, self.padding, self.activation, name=name)(x)
        if self.last:
            features = FIXED_LAST if self.fixed_ends else LAST * x.shape[-1]
            x = conv(features, 1, name="last_conv")(x)
            x = activation(batch_norm(self.epsilon, "last_bn")(x))
        x = global_mean(x)
        return x if return_features else head(self.num_outputs)(x)
