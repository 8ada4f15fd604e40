"""Vision transformers in Flax Linen: ViT, DeiT and DINOv2.

Dosovitskiy et al., An Image is Worth 16x16 Words, 2020 (arXiv:2010.11929); Touvron et al., Training
data-efficient image transformers & distillation through attention, 2020 (arXiv:2012.12877); Oquab
et al., DINOv2: Learning Robust Visual Features without Supervision, 2023 (arXiv:2304.07193); Darcet
et al., Vision Transformers Need Registers, 2023 (arXiv:2309.16588).
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ctl_jax.errors import UserError
from ctl_jax.models.layers import head
from ctl_jax.models.options import BOOL, COUNT, POSITIVE, WHOLE, Options, one_of
from ctl_jax.models.transformer import (
    MLP_RATIO,
    Mlp,
    kernel_init,
    layer_norm,
    layer_scale,
    patch_tokens,
)


class Block(nn.Module):
    """Attention and an MLP, each on the normalised tokens and added to them.

    The kernels of queries, keys and values are [channels, heads, head_width], the output's is
    [heads, head_width, channels]: heads are an axis, and can be cut as such.
    """

    heads: int
    head_width: int
    layer_scale: bool
    epsilon: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Tokens [B, N, D] to tokens [B, N, D]."""
        attention = nn.MultiHeadDotProductAttention(
            self.heads,
            qkv_features=self.heads * self.head_width,
            kernel_init=kernel_init,
            name="attention",
        )
        x = x + self._scaled("layer_scale1", attention(layer_norm("norm1", self.epsilon)(x)))
        mlp = Mlp(MLP_RATIO * self.heads * self.head_width, name="mlp")
        return x + self._scaled("layer_scale2", mlp(layer_norm("norm2", self.epsilon)(x)))

    def _scaled(self, name: str, x: jax.Array) -> jax.Array:
        return layer_scale(self, name, x, start=1e-5) if self.layer_scale else x


class ViT(nn.Module):
    """A vision transformer with a task head.

    Attributes:
      num_outputs: outputs of the task head, a layer "head" whose kernel starts at zero.
      heads: attention heads of a block; tokens have `heads * head_width` channels.
      depth: blocks.
      head_width: channels of a head.
      patch: height and width of a patch, in pixels.
      distilled: a second, distillation token (DeiT); "head" then holds a kernel for each of the
        two, [2, D, num_outputs], and the logits are the mean of both (DeiT, section 4).
      pool: what the head reads: "token", the class token (and the distillation token); "mean", the
        mean of the patches after the last LayerNorm; "mean_norm", that of the patches before it,
        which is normalised instead (a layer "fc_norm", as in timm); "token+mean", the class token
        and the mean side by side.
      class_token: a learnt token before those of the patches.
      token_position: the position embedding has entries for the class token (and the distillation
        token), before those of the patches.
      registers: further learnt tokens, without a position, that the head does not read (DINOv2).
      layer_scale: what a block adds is multiplied by a learnt number a channel (DINOv2, DeiT III).
      epsilon: of LayerNorm.
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
    pool: str = "token"
    class_token: bool = True
    token_position: bool = True
    registers: int = 0
    layer_scale: bool = False
    epsilon: float = 1e-6
    scan: bool = False
    remat: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, return_features: bool = False) -> jax.Array:
        """Logits [B, num_outputs] of images [B, H, W, 3], or the features under the head.

        The features are [B, D], or [B, 2 D] where the head reads two tokens.

        Raises:
          UserError: images of another size than those that the position embedding is for, or that
            patches do not fill; a pool for which the network has not the tokens.
        """
        count = int(self.class_token) + int(self.distilled)
        if (self.distilled and self.pool != "token") or ("token" in self.pool and not count):
            raise UserError(f"pool is {self.pool!r}; expected one for {count} class tokens")
        patches = patch_tokens(images, self.heads * self.head_width, self.patch)
        tokens = self._learnt("tokens", count, patches)
        if self.token_position:
            x = self._with_position(jnp.concatenate([*tokens, patches], axis=1), images)
        else:
            x = jnp.concatenate([*tokens, self._with_position(patches, images)], axis=1)
        # Attention knows no order, so registers may come last.
        x = jnp.concatenate([x, *self._learnt("registers", self.registers, x)], axis=1)
        x = self._pooled(self._blocks(x), count, patches.shape[1])
        if return_features:
            return x.reshape(x.shape[0], -1)
        if not self.distilled:
            return head(self.num_outputs)(x.reshape(x.shape[0], -1))
        shape = (*x.shape[1:], self.num_outputs)
        zeros = nn.initializers.zeros
        logits = nn.Einsum(shape, "btd,tdk->btk", kernel_init=zeros, name="head")(x)
        return jnp.mean(logits, axis=1)

    def _learnt(self, name: str, count: int, beside: jax.Array) -> list[jax.Array]:
        """[] or [[B, count, D]]: `count` learnt tokens, the same for each image."""
        if not count:
            return []
        tokens = self.param(name, kernel_init, (1, count, beside.shape[-1]))
        return [jnp.broadcast_to(tokens, (beside.shape[0], *tokens.shape[1:]))]

    def _with_position(self, x: jax.Array, images: jax.Array) -> jax.Array:
        position = self.param("position", kernel_init, (1, *x.shape[1:]))
        if position.shape[1] != x.shape[1]:
            raise UserError(
                f"images of {images.shape[1]} x {images.shape[2]} px make {x.shape[1]} tokens; "
                f"the position embedding is for {position.shape[1]}"
            )
        return x + position

    def _pooled(self, x: jax.Array, count: int, patches: int) -> jax.Array:
        """What the head reads, [B, 1 or 2, D], of `count` class tokens, patches and registers."""
        norm = layer_norm("fc_norm" if self.pool == "mean_norm" else "norm", self.epsilon)
        if self.pool == "token":
            return norm(x[:, :count])
        if self.pool == "mean_norm":
            return norm(jnp.mean(x[:, count : count + patches], axis=1, keepdims=True))
        x = norm(x[:, : count + patches])
        mean = jnp.mean(x[:, count:], axis=1, keepdims=True)
        return mean if self.pool == "mean" else jnp.concatenate([x[:, :count], mean], axis=1)

    def _blocks(self, x: jax.Array) -> jax.Array:
        # Inside a loop XLA can not undo a rematerialisation, so it need not be kept from it.
        block: Any = nn.remat(Block, prevent_cse=not self.scan) if self.remat else Block
        fields = (self.heads, self.head_width, self.layer_scale, self.epsilon)
        if not self.scan:
            for i in range(self.depth):
                x = block(*fields, name=f"block{i + 1}")(x)
            return x
        loop = nn.scan(
            lambda block, x, _: (block(x), None),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.depth,
        )
        x, _ = loop(block(*fields, name="blocks"), x, None)
        return x


def resized_position(position: np.ndarray, count: int, tokens: int) -> np.ndarray:
    """A position embedding for images of another size: that of the patches is resized bicubically.

    With an antialiasing filter where it shrinks, as timm does (and DINOv2 for its networks with
    registers; Hugging Face and DINOv2 without registers use another bicubic kernel without).

    Args:
      position: [1, positions, D] of a square grid of patches, perhaps after `tokens` others, which
        stay as they are.
      count: positions of the result, with as many others, float32 where it is resized.
      tokens: class and distillation tokens.

    Raises:
      UserError: the patches are no square.
    """
    if position.shape[1] == count:
        return position
    before, after = (
        (number, 0) if math.isqrt(number) ** 2 == number else (number - tokens, tokens)
        for number in (position.shape[1], count)
    )
    sides = math.isqrt(before[0]), math.isqrt(after[0])
    if before[1] != after[1] or before[0] != sides[0] ** 2 or after[0] != sides[1] ** 2:
        raise UserError(
            f"a position embedding is for {position.shape[1]} tokens; expected {count}, or those "
            "of another square of patches"
        )
    first, grid = position[:, : before[1]], position[:, before[1] :]
    grid = grid.reshape(sides[0], sides[0], -1).astype(np.float32)
    grid = jax.image.resize(grid, (sides[1], sides[1], grid.shape[-1]), "bicubic")
    return np.concatenate([first, np.asarray(grid).reshape(1, after[0], -1)], axis=1)


# Heads and blocks by size, names as in timm.
_TINY, _SMALL, _BASE = ({"heads": heads} for heads in (3, 6, 12))
_LARGE = {"heads": 16, "depth": 24}
_DINOV2 = {"patch": 14, "layer_scale": True}
_DISTILLED = {"distilled": True}
PRESETS: dict[str, dict[str, Any]] = {
    "vit_ti16": _TINY,
    "vit_s16": _SMALL,
    "vit_s32": _SMALL | {"patch": 32},
    "vit_b16": _BASE,
    "vit_b32": _BASE | {"patch": 32},
    "vit_l16": _LARGE,
    "vit_l32": _LARGE | {"patch": 32},
    "deit_ti16": _TINY,
    "deit_s16": _SMALL,
    "deit_b16": _BASE,
    "deit_ti16_distilled": _TINY | _DISTILLED,
    "deit_s16_distilled": _SMALL | _DISTILLED,
    "deit_b16_distilled": _BASE | _DISTILLED,
}
for _letter, _size in (("s", _SMALL), ("b", _BASE), ("l", _LARGE)):
    PRESETS[f"vit_{_letter}14_dinov2"] = _size | _DINOV2
    PRESETS[f"vit_{_letter}14_reg4_dinov2"] = _size | _DINOV2 | {"registers": 4}

OPTIONS: Options = {
    "heads": COUNT,
    "depth": COUNT,
    "head_width": COUNT,
    "patch": COUNT,
    "pool": one_of("token", "mean", "mean_norm", "token+mean"),
    "class_token": BOOL,
    "token_position": BOOL,
    "registers": WHOLE,
    "layer_scale": BOOL,
    "epsilon": POSITIVE,
    "scan": BOOL,
    "remat": BOOL,
}
