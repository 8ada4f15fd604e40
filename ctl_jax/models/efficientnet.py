"""EfficientNets in Flax Linen: inverted residuals with squeeze and excitation, scaled together.

Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, 2019
(arXiv:1905.11946). Padding is explicit and symmetric, as in torchvision (TensorFlow's "SAME" is
not); there is no dropout, neither before the head nor of whole blocks.
"""

from typing import Any

import flax.linen as nn
import jax

from ctl_jax.models.layers import batch_norm, conv, global_mean, head, make_divisible
from ctl_jax.models.mobilenet import InvertedResidual, Stage, plan_blocks
from ctl_jax.models.options import POSITIVE, Options, stages_up_to

# Table 1 of the paper, at width 1.
STAGES = (
    Stage(1, 16, 1, 3),
    Stage(6, 24, 2, 3),
    Stage(6, 40, 2, 5),
    Stage(6, 80, 2, 3),
    Stage(6, 112, 1, 5),
    Stage(6, 192, 2, 5),
    Stage(6, 320, 1, 3),
)
STEM = 32
# Outputs of the last convolution per input; inputs of a block per squeezed channel.
LAST, SQUEEZE = 4, 4

# Widths and depths as scaled for B0 to B4; the resolution is that of the images given.
PRESETS: dict[str, dict[str, Any]] = {
    "efficientnet_b0": {"stages": (1, 2, 2, 3, 3, 4, 1)},
    "efficientnet_b1": {"stages": (2, 3, 3, 4, 4, 5, 2)},
    "efficientnet_b2": {"stages": (2, 3, 3, 4, 4, 5, 2), "width_multiplier": 1.1},
    "efficientnet_b3": {"stages": (2, 3, 3, 5, 5, 6, 2), "width_multiplier": 1.2},
    "efficientnet_b4": {"stages": (2, 4, 4, 6, 6, 8, 2), "width_multiplier": 1.4},
}

OPTIONS: Options = {
    "stages": stages_up_to(len(STAGES)),
    "width_multiplier": POSITIVE,
    "epsilon": POSITIVE,
}


class EfficientNet(nn.Module):
    """An EfficientNet with a task head.

    Attributes:
      num_outputs: outputs of the task head, a Dense layer "head" whose kernel starts at zero.
      stages: blocks of each of the first stages of the paper's table 1.
      width_multiplier: of all widths, which are then rounded to multiples of 8.
      epsilon: of BatchNorm (torchvision's; TensorFlow's is 1e-3).
    """

    num_outputs: int
    stages: tuple[int, ...]
    width_multiplier: float = 1.0
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, images: jax.Array, return_features: bool = False) -> jax.Array:
        """Logits [B, num_outputs] of images [B, H, W, 3], or the features [B, F] under the head."""
        width = make_divisible(STEM * self.width_multiplier)
        x = conv(width, 3, stride=2, name="stem_conv")(images)
        x = nn.silu(batch_norm(self.epsilon, "stem_bn")(x))
        plan = plan_blocks(STAGES, self.stages, width, self.width_multiplier, SQUEEZE)
        for name, block in plan.items():
            x = InvertedResidual(block, nn.silu, self.epsilon, name=name)(x)
        x = conv(LAST * x.shape[-1], 1, name="last_conv")(x)
        x = global_mean(nn.silu(batch_norm(self.epsilon, "last_bn")(x)))
        return x if return_features else head(self.num_outputs)(x)
