"""Vision transformers in Flax Linen: ViT and DeiT.

Dosovitskiy et al., An Image is Worth 16x16 Words, 2020 (arXiv:2010.11929); Touvron et al., Training
data-efficient image transformers & distillation through attention, 2020 (arXiv:2012.12877).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctl_jax.errors import UserError
from ctl_jax.models.layers import head
from ctl_jax.models.options import BOOL, COUNT, Options
from ctl_jax.models.transformer import MLP_RATIO, Mlp, kernel_init, layer_norm, patch_tokens


class Block(nn.Module):
    """Attention and an MLP, each on the normalised tokens and added to them.

    The kernels of queries, keys and values are [channels, heads, head_width], the output's is
    [heads, head_width, channels]: heads are an axis, and can be cut as such.
    """

    heads: int
    head_width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Tokens [B, N, D] to tokens [B, N, D]."""
        attention = nn.MultiHeadDotProductAttention(
            self.heads,
            qkv_features=self.heads * self.head_width,
            kernel_init=kernel_init,
            name="attention",
        )
        x = x + attention(layer_norm("norm1")(x))
        hidden = MLP_RATIO * self.heads * self.head_width
        return x + Mlp(hidden, name="mlp")(layer_norm("norm2")(x))


class ViT(nn.Module):
    """A vision transformer with a task head on its class token.

    Attributes:
      num_outputs: outputs of the task head, a layer "head" whose kernel starts at zero.
      heads: attention heads of a block; tokens have `heads * head_width` channels.
      depth: blocks.
      head_width: channels of a head.
      patch: height and width of a patch, in pixels.
      distilled: a second, distillation token (DeiT); "head" then holds a kernel for each of the
        two, [2, D, num_outputs], and the logits are the mean of both (DeiT, section 4).
      scan: the blocks are one loop and their parameters "blocks", with a leading axis [depth]: the
        program is as long as one block, and pruning cuts the same channels of all of them.
      remat: blocks are computed again for the gradient instead of kept.
    """

    num_outputs: int
    heads: int
    depth: int = 12
    head_width: int = 64
    patch: int = 16
    distilled: bool = False
    scan: bool = False
    remat: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, return_features: bool = False) -> jax.Array:
        """Logits [B, num_outputs] of images [B, H, W, 3], or the features under the head.

        The features are the class token [B, D]; if distilled, both tokens [B, 2 D].

        Raises:
          UserError: images of another size than those that the position embedding is for, or that
            patches do not fill.
        """
        width = self.heads * self.head_width
        x = patch_tokens(images, width, self.patch)
        tokens = self.param("tokens", kernel_init, (1, 2 if self.distilled else 1, width))
        tokens = jnp.broadcast_to(tokens, (x.shape[0], *tokens.shape[1:]))
        x = jnp.concatenate([tokens, x], axis=1)
        position = self.param("position", kernel_init, (1, x.shape[1], width))
        if position.shape[1] != x.shape[1]:
            raise UserError(
                f"images of {images.shape[1]} x {images.shape[2]} px make {x.shape[1]} tokens; "
                f"the position embedding is for {position.shape[1]}"
            )
        x = self._blocks(x + position)
        x = layer_norm("norm")(x[:, : tokens.shape[1]])
        if return_features:
            return x.reshape(x.shape[0], -1)
        if not self.distilled:
            return head(self.num_outputs)(x[:, 0])
        shape = (*x.shape[1:], self.num_outputs)
        zeros = nn.initializers.zeros
        logits = nn.Einsum(shape, "btd,tdk->btk", kernel_init=zeros, name="head")(x)
        return jnp.mean(logits, axis=1)

    def _blocks(self, x: jax.Array) -> jax.Array:
        # Inside a loop XLA can not undo a rematerialisation, so it need not be kept from it.
        block: Any = nn.remat(Block, prevent_cse=not self.scan) if self.remat else Block
        if not self.scan:
            for i in range(self.depth):
                x = block(self.heads, self.head_width, name=f"block{i + 1}")(x)
            return x
        loop = nn.scan(
            lambda block, x, _: (block(x), None),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.depth,
        )
        x, _ = loop(block(self.heads, self.head_width, name="blocks"), x, None)
        return x


PRESETS: dict[str, dict[str, Any]] = {
    "vit_ti16": {"heads": 3},
    "vit_s16": {"heads": 6},
    "vit_b16": {"heads": 12},
    "deit_s16": {"heads": 6},
    "deit_s16_distilled": {"heads": 6, "distilled": True},
}

OPTIONS: Options = {
    "heads": COUNT,
    "depth": COUNT,
    "head_width": COUNT,
    "patch": COUNT,
    "scan": BOOL,
    "remat": BOOL,
}
