"""MobileNetV2 in Flax Linen: inverted residuals with depthwise convolutions.

Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, 2018 (arXiv:1801.04381).
Padding is explicit and symmetric, as in torchvision (TensorFlow's "SAME" is not); there is no
dropout before the head.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctl_jax.models.layers import (
    batch_norm,
    conv,
    depthwise_conv,
    global_mean,
    head,
    make_divisible,
)
from ctl_jax.models.options import POSITIVE, Options, stages_up_to


class Stage(NamedTuple):
    """Blocks of one width: inner channels per input, outputs, stride of the first, kernel side."""

    expansion: int
    features: int
    stride: int
    size: int = 3


# Table 2 of the paper, at width 1.
STAGES = (
    Stage(1, 16, 1),
    Stage(6, 24, 2),
    Stage(6, 32, 2),
    Stage(6, 64, 2),
    Stage(6, 96, 1),
    Stage(6, 160, 2),
    Stage(6, 320, 1),
)
STEM, LAST = 32, 1280

PRESETS: dict[str, dict[str, Any]] = {"mobilenet_v2": {"stages": (1, 2, 3, 4, 3, 3, 1)}}

OPTIONS: Options = {
    "stages": stages_up_to(len(STAGES)),
    "width_multiplier": POSITIVE,
    "epsilon": POSITIVE,
}


class Block(NamedTuple):
    """An inverted residual at full width.

    What there is of it is decided here and not from the shapes at hand, which pruning changes.

    Attributes:
      features: outputs.
      inner: channels of the depthwise convolution; None: those of the input, without the first
        1x1 convolution.
      stride: of the depthwise convolution.
      size: side of the depthwise kernels.
      residual: the input is added to the output.
      squeezed: channels between the two layers of the squeeze and excitation (Hu et al. 2017,
        arXiv:1709.01507); None: there is none.
    """

    features: int
    inner: int | None
    stride: int
    size: int
    residual: bool
    squeezed: int | None


def plan_blocks(
    table: Sequence[Stage],
    stages: Sequence[int],
    width: int,
    width_multiplier: float,
    squeeze: int | None = None,
) -> dict[str, Block]:
    """The blocks of a network, first to last, by name.

    Args:
      table: its stages at width 1.
      stages: blocks of each of the first stages.
      width: channels before the first block.
      width_multiplier: of the widths of the table.
      squeeze: inputs of a block per squeezed channel; None: without squeeze and excitation.
    """
    plan = {}
    for i, (stage, blocks) in enumerate(zip(table, stages, strict=False), start=1):
        features = make_divisible(stage.features * width_multiplier)
        for j in range(1, blocks + 1):
            stride = stage.stride if j == 1 else 1
            plan[f"stage{i}_block{j}"] = Block(
                features=features,
                inner=None if stage.expansion == 1 else stage.expansion * width,
                stride=stride,
                size=stage.size,
                residual=stride == 1 and features == width,
                squeezed=None if squeeze is None else width // squeeze,
            )
            width = features
    return plan


class InvertedResidual(nn.Module):
    """1x1 to more channels, depthwise, squeeze and excite, 1x1 to few; BatchNorm after each conv.

    Attributes:
      block: what there is.
      activation: after the first two convolutions, and within the squeeze and excitation.
      epsilon: of BatchNorm.
    """

    block: Block
    activation: Callable[[jax.Array], jax.Array]
    epsilon: float

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        block, x = self.block, images
        if block.inner is not None:
            x = conv(block.inner, 1, name="expand_conv")(x)
            x = self.activation(batch_norm(self.epsilon, "expand_bn")(x))
        x = depthwise_conv(x, block.size, stride=block.stride, name="depthwise_conv")
        x = self.activation(batch_norm(self.epsilon, "depthwise_bn")(x))
        if block.squeezed is not None:
            gate = jnp.mean(x, axis=(1, 2), keepdims=True)
            gate = conv(block.squeezed, 1, use_bias=True, name="squeeze")(gate)
            gate = self.activation(gate)
            gate = conv(x.shape[-1], 1, use_bias=True, name="excite")(gate)
            x = x * nn.sigmoid(gate)
        x = conv(block.features, 1, name="project_conv")(x)
        x = batch_norm(self.epsilon, "project_bn")(x)
        return images + x if block.residual else x


class MobileNetV2(nn.Module):
    """MobileNetV2 with a task head.

    Attributes:
      num_outputs: outputs of the task head, a Dense layer "head" whose kernel starts at zero.
      stages: blocks of each of the first stages of the paper's table 2.
      width_multiplier: of all widths, which are then rounded to multiples of 8; the last
        convolution's 1280 outputs do not become fewer.
      epsilon: of BatchNorm.
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
        x = nn.relu6(batch_norm(self.epsilon, "stem_bn")(x))
        plan = plan_blocks(STAGES, self.stages, width, self.width_multiplier)
        for name, block in plan.items():
            x = InvertedResidual(block, nn.relu6, self.epsilon, name=name)(x)
        last = make_divisible(LAST * max(1.0, self.width_multiplier))
        x = conv(last, 1, name="last_conv")(x)
        x = global_mean(nn.relu6(batch_norm(self.epsilon, "last_bn")(x)))
        return x if return_features else head(self.num_outputs)(x)
