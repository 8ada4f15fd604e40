"""MLP-Mixer in Flax Linen.

Tolstikhin et al., MLP-Mixer: An all-MLP Architecture for Vision, 2021 (arXiv:2105.01601).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctl_jax.errors import UserError
from ctl_jax.models.layers import head
from ctl_jax.models.options import COUNT, Options
from ctl_jax.models.transformer import MLP_RATIO, Mlp, layer_norm, patch_tokens


class Block(nn.Module):
    """An MLP over the tokens of each channel, then one over the channels of each token."""

    token_hidden: int
    channel_hidden: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Tokens [B, N, D] to tokens [B, N, D]."""
        y = jnp.swapaxes(layer_norm("norm1")(x), 1, 2)
        y = Mlp(self.token_hidden, name="token_mlp")(y)
        x = x + jnp.swapaxes(y, 1, 2)
        return x + Mlp(self.channel_hidden, name="channel_mlp")(layer_norm("norm2")(x))


class Mixer(nn.Module):
    """An MLP-Mixer with a task head.

    Attributes:
      num_outputs: outputs of the task head, a Dense layer "head" whose kernel starts at zero.
      width: channels of a token.
      depth: blocks.
      token_hidden: hidden units of the MLPs over tokens; those over channels have `4 * width`.
      patch: height and width of a patch, in pixels.
    """

    num_outputs: int
    width: int
    depth: int
    token_hidden: int
    patch: int = 16

    @nn.compact
    def __call__(self, images: jax.Array, return_features: bool = False) -> jax.Array:
        """Logits [B, num_outputs] of images [B, H, W, 3], or the features [B, D] under the head.

        Raises:
          UserError: images that patches do not fill, or of another size than the parameters are
            for.
        """
        x = patch_tokens(images, self.width, self.patch)
        if self.has_variable("params", "block1"):
            block: Any = self.get_variable("params", "block1")
            tokens = block["token_mlp"]["fc1"]["kernel"].shape[0]
            if tokens != x.shape[1]:
                raise UserError(
                    f"images of {images.shape[1]} x {images.shape[2]} px make {x.shape[1]} tokens; "
                    f"the parameters are for {tokens}"
                )
        for i in range(self.depth):
            name = f"block{i + 1}"
            x = Block(self.token_hidden, MLP_RATIO * self.width, name=name)(x)
        x = jnp.mean(layer_norm("norm")(x), axis=1)
        return x if return_features else head(self.num_outputs)(x)


PRESETS: dict[str, dict[str, Any]] = {
    "mixer_s16": {"width": 512, "depth": 8, "token_hidden": 256},
    "mixer_b16": {"width": 768, "depth": 12, "token_hidden": 384},
}

OPTIONS: Options = {"width": COUNT, "depth": COUNT, "token_hidden": COUNT, "patch": COUNT}
