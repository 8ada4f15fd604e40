"""Inverted residuals: the blocks of MobileNetV2, MobileNetV3 and the EfficientNets."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctl_jax.models.layers import (
    Padding,
    batch_norm,
    conv,
    depthwise_conv,
    make_divisible,
    relu,
)
from ctl_jax.models.options import Option, one_of

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": relu,
    "relu6": nn.relu6,
    "silu": nn.silu,
    "hard_swish": nn.hard_swish,
}

ACTIVATION: Option = one_of(*ACTIVATIONS)
PADDING: Option = one_of("symmetric", "same", "end")


class Stage(NamedTuple):
    """Blocks of one width.

    Attributes:
      expansions: inner channels of each block per input; the last is that of all that follow.
      features: outputs.
      stride: of the first block.
      size: side of the depthwise kernels.
      squeeze: blocks have squeeze and excitation.
      activation: a key of `ACTIVATIONS`.
    """

    expansions: tuple[float, ...]
    features: int
    stride: int
    size: int = 3
    squeeze: bool = False
    activation: str = "relu6"


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
      activation: after the first two convolutions, a key of `ACTIVATIONS`.
    """

    features: int
    inner: int | None
    stride: int
    size: int
    residual: bool
    squeezed: int | None
    activation: str


def plan_blocks(
    table: Sequence[Stage],
    stages: Sequence[int],
    width: int,
    width_multiplier: float,
    squeezed: Callable[[int, int], int] | None = None,
) -> dict[str, Block]:
    """The blocks of a network, first to last, by name.

    Args:
      table: its stages at width 1.
      stages: blocks of each of the first stages.
      width: channels before the first block.
      width_multiplier: of the widths of the table.
      squeezed: from a block's inputs and its inner channels to its squeezed ones.
    """
    plan = {}
    for i, (stage, blocks) in enumerate(zip(table, stages, strict=False), start=1):
        features = make_divisible(stage.features * width_multiplier)
        for j in range(1, blocks + 1):
            stride = stage.stride if j == 1 else 1
            expansion = stage.expansions[min(j, len(stage.expansions)) - 1]
            inner = None if expansion == 1 else make_divisible(expansion * width)
            plan[f"stage{i}_block{j}"] = Block(
                features=features,
                inner=inner,
                stride=stride,
                size=stage.size,
                residual=stride == 1 and features == width,
                squeezed=squeezed(width, inner or width) if stage.squeeze and squeezed else None,
                activation=stage.activation,
            )
            width = features
    return plan


class InvertedResidual(nn.Module):
    """1x1 to more channels, depthwise, squeeze and excite, 1x1 to few; BatchNorm after each conv.

    Attributes:
      block: what there is.
      epsilon: of BatchNorm.
      padding: of the depthwise convolution.
      squeeze_activation: between the two layers of the squeeze and excitation, a key of
        `ACTIVATIONS`.
      gate: what makes factors of 0 to 1 of what they give.
    """

    block: Block
    epsilon: float
    padding: Padding
    squeeze_activation: str = "relu"
    gate: Callable[[jax.Array], jax.Array] = nn.sigmoid

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        block, x = self.block, images
        activation = ACTIVATIONS[block.activation]
        if block.inner is not None:
            x = conv(block.inner, 1, name="expand_conv")(x)
            x = activation(batch_norm(self.epsilon, "expand_bn")(x))
        x = depthwise_conv(
            x, block.size, stride=block.stride, padding=self.padding, name="depthwise_conv"
        )
        x = activation(batch_norm(self.epsilon, "depthwise_bn")(x))
        if block.squeezed is not None:
            gate = jnp.mean(x, axis=(1, 2), keepdims=True)
            gate = conv(block.squeezed, 1, use_bias=True, name="squeeze")(gate)
            gate = ACTIVATIONS[self.squeeze_activation](gate)
            gate = conv(x.shape[-1], 1, use_bias=True, name="excite")(gate)
            x = x * self.gate(gate)
        x = conv(block.features, 1, name="project_conv")(x)
        x = batch_norm(self.epsilon, "project_bn")(x)
        return images + x if block.residual else x
