"""MobileNetV3 in Flax Linen: inverted residuals with squeeze and excitation and hard swish.

Howard et al., Searching for MobileNetV3, 2019 (arXiv:1905.02244). There is no dropout before the
head.
"""

from collections.abc import Sequence
from typing import Any, Literal

import flax.linen as nn
import jax

from ctl_jax.models.inverted_residual import (
    ACTIVATIONS,
    PADDING,
    InvertedResidual,
    Stage,
    plan_blocks,
)
from ctl_jax.models.layers import (
    Padding,
    batch_norm,
    conv,
    global_mean,
    head,
    make_divisible,
)
from ctl_jax.models.options import BOOL, POSITIVE, Options, stages_up_to

Variant = Literal["large", "small"]

# Tables 1 and 2 of the paper, at width 1.
STAGES: dict[Variant, tuple[Stage, ...]] = {
    "large": (
        Stage((1,), 16, 1, 3, False, "relu"),
        Stage((4, 3), 24, 2, 3, False, "relu"),
        Stage((3,), 40, 2, 5, True, "relu"),
        Stage((6, 2.5, 2.3), 80, 2, 3, False, "hard_swish"),
        Stage((6,), 112, 1, 3, True, "hard_swish"),
        Stage((6,), 160, 2, 5, True, "hard_swish"),
    ),
    "small": (
        Stage((1,), 16, 2, 3, True, "relu"),
        Stage((4.5, 3.67), 24, 2, 3, False, "relu"),
        Stage((4, 6), 40, 2, 5, True, "hard_swish"),
        Stage((3,), 48, 1, 5, True, "hard_swish"),
        Stage((6,), 96, 2, 5, True, "hard_swish"),
    ),
}
STEM = 16
# Outputs of the last convolution per input; of the dense layer after it.
LAST, HIDDEN = 6, {"large": 1280, "small": 1024}
# Inner channels of a block per squeezed one.
SQUEEZE = 4

PRESETS: dict[str, dict[str, Any]] = {
    "mobilenet_v3_large": {"variant": "large", "stages": (1, 2, 3, 4, 2, 3)},
    "mobilenet_v3_small": {"variant": "small", "stages": (1, 2, 3, 2, 3)},
}

OPTIONS: Options = {
    "stages": stages_up_to(len(STAGES["large"])),
    "width_multiplier": POSITIVE,
    "minimal": BOOL,
    "last": BOOL,
    "padding": PADDING,
    "epsilon": POSITIVE,
}


def stem_width(width_multiplier: float) -> int:
    """Outputs of the first convolution, which the authors' narrow networks do not cut."""
    return STEM if width_multiplier < 0.75 else make_divisible(STEM * width_multiplier)


class MobileNetV3(nn.Module):
    """MobileNetV3 with a task head.

    Attributes:
      num_outputs: outputs of the task head, a Dense layer "head" whose kernel starts at zero.
      variant: which of the two networks of the paper.
      stages: blocks of each of its first stages, six in "large" and five in "small".
      width_multiplier: of all widths, which are then rounded to multiples of 8, but of the dense
        layer before the head, which does not become narrower.
      minimal: the authors' form without squeeze and excitation, hard swish and 5x5 kernels.
      last: there are a last 1x1 convolution and a dense layer after the mean; without them the head
        reads the last block.
      padding: of convolutions of stride 2, see `layers.Padding` (torchvision's and timm's are
        "symmetric", TensorFlow's "same").
      epsilon: of BatchNorm (torchvision's and TensorFlow's; timm's own is 1e-5).
    """

    num_outputs: int
    variant: Variant
    stages: tuple[int, ...]
    width_multiplier: float = 1.0
    minimal: bool = False
    last: bool = True
    padding: Padding = "symmetric"
    epsilon: float = 1e-3

    @nn.compact
    def __call__(self, images: jax.Array, return_features: bool = False) -> jax.Array:
        """Logits [B, num_outputs] of images [B, H, W, 3], or the features [B, F] under the head."""
        activation = ACTIVATIONS["relu" if self.minimal else "hard_swish"]
        width = stem_width(self.width_multiplier)
        x = conv(width, 3, stride=2, padding=self.padding, name="stem_conv")(images)
        x = activation(batch_norm(self.epsilon, "stem_bn")(x))
        table: Sequence[Stage] = STAGES[self.variant]
        if self.minimal:
            table = [stage._replace(size=3, squeeze=False, activation="relu") for stage in table]
        plan = plan_blocks(table, self.stages, width, self.width_multiplier, _squeezed)
        for name, block in plan.items():
            x = InvertedResidual(
                block, self.epsilon, self.padding, gate=nn.hard_sigmoid, name=name
            )(x)
        if self.last:
            x = conv(LAST * x.shape[-1], 1, name="last_conv")(x)
            x = activation(batch_norm(self.epsilon, "last_bn")(x))
        x = global_mean(x)
        if self.last:
            hidden = make_divisible(HIDDEN[self.variant] * max(1.0, self.width_multiplier))
            x = activation(
                nn.Dense(hidden, kernel_init=nn.initializers.he_normal(), name="last_dense")(x)
            )
        return x if return_features else head(self.num_outputs)(x)


def _squeezed(inputs: int, inner: int) -> int:
    return make_divisible(inner / SQUEEZE)
