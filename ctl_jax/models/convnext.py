"""ConvNeXt in Flax Linen.

Liu et al., A ConvNet for the 2020s, 2022 (arXiv:2201.03545).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctl_jax.errors import UserError
from ctl_jax.models.layers import global_mean, head
from ctl_jax.models.options import COUNT, STAGES, Options
from ctl_jax.models.transformer import MLP_RATIO, Mlp, kernel_init, layer_norm, patch_conv


class Block(nn.Module):
    """x + layer_scale * mlp(norm(depthwise 7x7 convolution(x)))."""

    hidden: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """A map [B, H, W, C] to a map [B, H, W, C]."""
        depthwise = nn.Conv(
            x.shape[-1],
            (7, 7),
            padding=3,
            feature_group_count=x.shape[-1],
            kernel_init=kernel_init,
            name="depthwise",
        )
        y = Mlp(self.hidden, name="mlp")(layer_norm("norm")(depthwise(x)))
        start = nn.initializers.constant(1e-6, jnp.float32)
        scale = self.param("layer_scale", start, (x.shape[-1],))
        return x + scale.reshape(1, 1, 1, -1) * y


class ConvNeXt(nn.Module):
    """A ConvNeXt with a task head.

    Attributes:
      num_outputs: outputs of the task head, a Dense layer "head" whose kernel starts at zero.
      stages: blocks of each stage; stage i has `width * 2**i` channels, and every stage but the
        first halves the image.
      width: channels of the stem, which quarters the image, and of the first stage.
    """

    num_outputs: int
    stages: tuple[int, ...] = (3, 3, 9, 3)
    width: int = 96

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
        x = layer_norm("stem_norm")(patch_conv(self.width, 4, "stem_conv")(images))
        for i, blocks in enumerate(self.stages):
            features = self.width * 2**i
            if i > 0:
                x = layer_norm(f"stage{i + 1}_norm")(x)
                x = patch_conv(features, 2, f"stage{i + 1}_conv")(x)
            for j in range(blocks):
                x = Block(MLP_RATIO * features, name=f"stage{i + 1}_block{j + 1}")(x)
        x = layer_norm("norm")(global_mean(x))
        return x if return_features else head(self.num_outputs)(x)


PRESETS: dict[str, dict[str, Any]] = {
    "convnext_tiny": {},
    "convnext_small": {"stages": (3, 3, 27, 3)},
    "convnext_base": {"stages": (3, 3, 27, 3), "width": 128},
}

OPTIONS: Options = {"stages": STAGES, "width": COUNT}
