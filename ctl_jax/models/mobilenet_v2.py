"""MobileNetV2 in Flax Linen: inverted residuals with depthwise convolutions.

Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, 2018 (arXiv:1801.04381).
There is no dropout before the head.
"""

from typing import Any

import flax.linen as nn
import jax

from ctl_jax.models.inverted_residual import PADDING, InvertedResidual, Stage, plan_blocks
from ctl_jax.models.layers import Padding, batch_norm, conv, global_mean, head, make_divisible
from ctl_jax.models.options import BOOL, POSITIVE, Options, stages_up_to

# Table 2 of the paper, at width 1.
STAGES = (
    Stage((1,), 16, 1),
    Stage((6,), 24, 2),
    Stage((6,), 32, 2),
    Stage((6,), 64, 2),
    Stage((6,), 96, 1),
    Stage((6,), 160, 2),
    Stage((6,), 320, 1),
)
STEM, LAST = 32, 1280

PRESETS: dict[str, dict[str, Any]] = {"mobilenet_v2": {"stages": (1, 2, 3, 4, 3, 3, 1)}}

OPTIONS: Options = {
    "stages": stages_up_to(len(STAGES)),
    "width_multiplier": POSITIVE,
    "fixed_ends": BOOL,
    "last": BOOL,
    "padding": PADDING,
    "epsilon": POSITIVE,
}


class MobileNetV2(nn.Module):
    """MobileNetV2 with a task head.

    Attributes:
      num_outputs: outputs of the task head, a Dense layer "head" whose kernel starts at zero.
      stages: blocks of each of the first stages of the paper's table 2.
      width_multiplier: of all widths, which are then rounded to multiples of 8; the last
        convolution's 1280 outputs do not become fewer.
      fixed_ends: the first and the last convolution keep their widths, as in timm's
        mobilenetv2_110d and 120d.
      last: there is a last 1x1 convolution; without it the head reads the last block.
      padding: of convolutions of stride 2, see `layers.Padding`.
      epsilon: of BatchNorm (torchvision's; TensorFlow's is 1e-3).
    """

    num_outputs: int
    stages: tuple[int, ...]
    width_multiplier: float = 1.0
    fixed_ends: bool = False
    last: bool = True
    padding: Padding = "symmetric"
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, images: jax.Array, return_features: bool = False) -> jax.Array:
        """Logits [B, num_outputs] of images [B, H, W, 3], or the features [B, F] under the head."""
        ends = 1.0 if self.fixed_ends else self.width_multiplier
        width = make_divisible(STEM * ends)
        x = conv(width, 3, stride=2, padding=self.padding, name="stem_conv")(images)
        x = nn.relu6(batch_norm(self.epsilon, "stem_bn")(x))
        plan = plan_blocks(STAGES, self.stages, width, self.width_multiplier)
        for name, block in plan.items():
            x = InvertedResidual(block, self.epsilon, self.padding, name=name)(x)
        if self.last:
            x = conv(make_divisible(LAST * max(1.0, ends)), 1, name="last_conv")(x)
            x = nn.relu6(batch_norm(self.epsilon, "last_bn")(x))
        x = global_mean(x)
        return x if return_features else head(self.num_outputs)(x)
