"""The vision transformer of `torch_models`."""

from collections import OrderedDict

import torch
from torch import nn


class SplitAttention(nn.Module):
    """What `nn.MultiheadAttention` computes, with a layer for each of q, k, v.

    Its heads can be fewer than the stream's width asks for, and every product is seen by
    PyTorch's counter, which the fused kernel of `nn.MultiheadAttention` is not.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5  # stays, whatever is cut
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # [B, tokens, heads x d] -> [B, heads, tokens, d]
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        weights = torch.softmax(q @ k.transpose(-1, -2) * self.scale, -1)
        return self.out_proj((weights @ v).transpose(1, 2).flatten(2))


class EncoderBlock(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, heads: int, hidden: int, split: bool) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=1e-6)
        self.self_attention: nn.Module = (
            SplitAttention(width, heads)
            if split
            else nn.MultiheadAttention(width, heads, batch_first=True)
        )
        self.ln_2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Dropout(0.0), nn.Linear(hidden, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.ln_1(x)
        if isinstance(self.self_attention, SplitAttention):
            x = x + self.self_attention(y)
        else:
            x = x + self.self_attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class Encoder(nn.Module):
    """Position embedding, blocks, LayerNorm."""

    def __init__(
        self, tokens: int, layers: int, width: int, heads: int, hidden: int, split: bool
    ) -> None:
        super().__init__()
        self.pos_embedding = nn.Parameter(torch.empty(1, tokens, width).normal_(std=0.02))
        self.layers = nn.Sequential(
            OrderedDict(
                (f"encoder_layer_{i}", EncoderBlock(width, heads, hidden, split))
                for i in range(layers)
            )
        )
        self.ln = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.ln(self.layers(x + self.pos_embedding))


class VisionTransformer(nn.Module):
    """Dosovitskiy et al. 2020; `split`: `SplitAttention` instead of `nn.MultiheadAttention`."""

    def __init__(
        self,
        size: int,
        patch: int,
        layers: int,
        width: int,
        heads: int,
        hidden: int,
        classes: int,
        split: bool,
    ) -> None:
        super().__init__()
        self.conv_proj = nn.Conv2d(3, width, patch, patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        tokens = (size // patch) ** 2 + 1
        self.encoder = Encoder(tokens, layers, width, heads, hidden, split)
        self.heads = nn.Sequential(OrderedDict(head=nn.Linear(width, classes)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv_proj(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], 1)
        return self.heads(self.encoder(x)[:, 0])
