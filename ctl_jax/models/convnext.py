"""ConvNeXt in Flax Linen.

Liu et al., A ConvNet for the 2020s, 2022 (arXiv:2201.03545).
"""

from typing import Any

import flax.linen as nn
import jax

from ctl_jax.errors import UserError
from ctl_jax.models import cpu
from ctl_jax.models.layers import global_mean, head
from ctl_jax.models.options import BOOL, COUNT, POSITIVE, STAGES, Options
from ctl_jax.models.transformer import (
    MLP_RATIO,
    Mlp,
    kernel_init,
    layer_norm,
    layer_scale,
    patch_conv,
)


class Block(nn.Module):
    """x + layer_scale * mlp(norm(depthwise 7x7 convolution(x)))."""

    hidden: int
    layer_scale: bool
    epsilon: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """A map [B, H, W, C] to a map [B, H, W, C]."""
        depthwise = nn.Conv(
            x.shape[-1],
            (7, 7),
            padding=3,
            feature_group_count=x.shape[-1],
            kernel_init=kernel_init,
            conv_general_dilated=cpu.conv_general_dilated,
            name="depthwise",
        )
        y = Mlp(self.hidden, name="mlp")(layer_norm("norm", self.epsilon)(depthwise(x)))
        return x + (layer_scale(self, "layer_scale", y, start=1e-6) if self.layer_scale else y)


class ConvNeXt(nn.Module):
    """A ConvNeXt with a task head.

    Attributes:
      num_outputs: outputs of the task head, a Dense layer "head" whose kernel starts at zero.
      stages: blocks of each stage; stage i has `width * 2**i` channels, and every stage but the
        first halves the image.
      width: channels of the stem, which quarters the image, and of the first stage.
      layer_scale: what a block adds is multiplied by a learnt number a channel.
      last_norm: LayerNorm after the mean over the map; without, that of a network whose last stages
        were cut off.
      epsilon: of LayerNorm.
    """

    num_outputs: int
    stages: tuple[int, ...] = (3, 3, 9, 3)
    width: int = 96
    layer_scale: bool = True
    last_norm: bool = True
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, images: jax.Array, return_features: bool = False) -> jax.Array:
        """Logits [B, num_outputs] of images [B, H, W, 3], or the features [B, F] under the head.

        Raises:
          UserError: images so small that nothing is left of them.
        """
        least = 4 * 2 ** (len(self.stages) - 1)
        if min(images.shape[1:3]) < least:
            raise UserError(
                f"images are {images.shape[1]} x {images.shape[2]} px; expected {least} px or more"
            )
        x = layer_norm("stem_norm", self.epsilon)(patch_conv(self.width, 4, "stem_conv")(images))
        for i, blocks in enumerate(self.stages):
            features = self.width * 2**i
            if i > 0:
                x = layer_norm(f"stage{i + 1}_norm", self.epsilon)(x)
                x = patch_conv(features, 2, f"stage{i + 1}_conv")(x)
            for j in range(blocks):
                fields = (MLP_RATIO * features, self.layer_scale, self.epsilon)
                x = Block(*fields, name=f"stage{i + 1}_block{j + 1}")(x)
        x = global_mean(x)
        if self.last_norm:
            x = layer_norm("norm", self.epsilon)(x)
        return x if return_features else head(self.num_outputs)(x)


# Names and sizes are timm's.
PRESETS: dict[str, dict[str, Any]] = {
    "convnext_atto": {"stages": (2, 2, 6, 2), "width": 40},
    "convnext_femto": {"stages": (2, 2, 6, 2), "width": 48},
    "convnext_pico": {"stages": (2, 2, 6, 2), "width": 64},
    "convnext_nano": {"stages": (2, 2, 8, 2), "width": 80},
    "convnext_tiny": {},
    "convnext_small": {"stages": (3, 3, 27, 3)},
    "convnext_base": {"stages": (3, 3, 27, 3), "width": 128},
    "convnext_large": {"stages": (3, 3, 27, 3), "width": 192},
    "convnext_xlarge": {"stages": (3, 3, 27, 3), "width": 256},
}

OPTIONS: Options = {
    "stages": STAGES,
    "width": COUNT,
    "layer_scale": BOOL,
    "last_norm": BOOL,
    "epsilon": POSITIVE,
}
