"""Residual networks in Flax Linen: one definition for the ImageNet and the CIFAR families.

He et al., Deep Residual Learning for Image Recognition, 2015 (arXiv:1512.03385). ResNeXt: Xie et
al., Aggregated Residual Transformations for Deep Neural Networks, 2016 (arXiv:1611.05431). Wide:
Zagoruyko and Komodakis, Wide Residual Networks, 2016 (arXiv:1605.07146). Padding is explicit, as
in torchvision and Keras, so that weights trained there give the same outputs here.
"""

from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from ctl_jax.errors import UserError
from ctl_jax.models.layers import batch_norm, conv, global_mean, head, max_pool, relu
from ctl_jax.models.options import BOOL, COUNT, POSITIVE, STAGES, Options

Version = Literal["v1", "v1.5"]
Stem = Literal["imagenet", "cifar"]
Shortcut = Literal["project", "pad"]

# Of a bottleneck block: outputs per width of its stage.
EXPANSION = 4

# Names and sizes are torchvision's.
PRESETS: dict[str, dict[str, Any]] = {
    "resnet18": {"stages": (2, 2, 2, 2), "bottleneck": False},
    "resnet34": {"stages": (3, 4, 6, 3), "bottleneck": False},
    "resnet50": {"stages": (3, 4, 6, 3), "bottleneck": True},
    "resnet101": {"stages": (3, 4, 23, 3), "bottleneck": True},
    "resnet152": {"stages": (3, 8, 36, 3), "bottleneck": True},
}
PRESETS |= {
    "resnext50_32x4d": PRESETS["resnet50"] | {"groups": 32, "width_per_group": 4},
    "resnext101_32x8d": PRESETS["resnet101"] | {"groups": 32, "width_per_group": 8},
    "resnext101_64x4d": PRESETS["resnet101"] | {"groups": 64, "width_per_group": 4},
    "wide_resnet50_2": PRESETS["resnet50"] | {"width_per_group": 128},
    "wide_resnet101_2": PRESETS["resnet101"] | {"width_per_group": 128},
}
# The paper's networks for CIFAR, section 4.2: 6n + 2 layers.
PRESETS |= {
    f"resnet{6 * n + 2}": {
        "stages": (n, n, n),
        "bottleneck": False,
        "stem": "cifar",
        "shortcut": "pad",
        "width": 16,
    }
    for n in (3, 5, 7, 9, 18)
}

OPTIONS: Options = {
    "stages": STAGES,
    "version": (lambda value: value in ("v1", "v1.5"), "'v1' or 'v1.5'"),
    "stem": (lambda value: value in ("imagenet", "cifar"), "'imagenet' or 'cifar'"),
    "shortcut": (lambda value: value in ("project", "pad"), "'project' or 'pad'"),
    "conv_bias": BOOL,
    "width": COUNT,
    "groups": COUNT,
    "width_per_group": COUNT,
    "epsilon": POSITIVE,
}


class Layer(NamedTuple):
    """One convolution of a block: `size` x `size` kernel, output channels, stride, groups."""

    size: int
    features: int
    stride: int
    groups: int = 1


class Block(nn.Module):
    """relu(layers(x) + shortcut(x)), each layer a convolution and BatchNorm, ReLU between them.

    `project` and `pad` are decided from the full widths and not from the shapes at hand: pruning
    may make the two sides of a projection equal, and it must stay; and what it leaves of the
    padding's zeros stays, too.

    Attributes:
      layers: the convolutions, first to last.
      project: the shortcut is a 1x1 convolution and BatchNorm.
      pad: otherwise it gets so many channels of zeros, (before, behind) its own.
      conv_bias: convolutions have a bias.
      epsilon: of BatchNorm.
    """

    layers: tuple[Layer, ...]
    project: bool
    pad: tuple[int, int]
    conv_bias: bool
    epsilon: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shortcut = x
        stride = max(layer.stride for layer in self.layers)
        if not self.project:
            shortcut = _subsampled(shortcut, stride, self.pad)
        else:
            layer = Layer(1, self.layers[-1].features, stride)
            shortcut = _conv(layer, self.conv_bias, "shortcut_conv")(shortcut)
            shortcut = batch_norm(self.epsilon, "shortcut_bn")(shortcut)
        for i, layer in enumerate(self.layers, start=1):
            x = _conv(layer, self.conv_bias, f"conv{i}")(x)
            x = batch_norm(self.epsilon, f"bn{i}")(x)
            if i < len(self.layers):
                x = relu(x)
        return relu(x + shortcut)


def _subsampled(x: jax.Array, stride: int, pad: tuple[int, int]) -> jax.Array:
    """Every `stride`-th row and column of x [B, H, W, C], between channels of zeros."""
    if stride > 1:
        x = lax.slice(x, (0, 0, 0, 0), x.shape, (1, stride, stride, 1))
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), pad)) if any(pad) else x


class ResNet(nn.Module):
    """A residual network with a task head.

    Attributes:
      num_outputs: outputs of the task head, a Dense layer "head" whose kernel starts at zero.
      stages: blocks of each stage; stage i has `width * 2**i` channels (four times as many at the
        outputs of bottleneck blocks) and every stage but the first halves the image.
      bottleneck: blocks of 1x1, 3x3, 1x1 (ResNet-50 and up) instead of two 3x3.
      version: where a bottleneck block strides; "v1" in the first 1x1 (Keras), "v1.5" in the 3x3.
      stem: "imagenet", a 7x7/2 convolution and a 3x3/2 max pool; "cifar", a 3x3 convolution.
      shortcut: where a block changes the size or the channels, "project", a 1x1 convolution, or
        "pad", every other pixel and channels of zeros on either side (the paper's option A, which
        its CIFAR networks have).
      conv_bias: convolutions have a bias although BatchNorm follows (Keras's do).
      width: channels of the stem and the first stage.
      groups: of a bottleneck's 3x3 convolution (ResNeXt's cardinality).
      width_per_group: channels of one of those groups in a first stage of width 64; in stage i
        they are `width * 2**i * width_per_group / 64`, rounded down, at least 1.
      epsilon: of BatchNorm.

    Raises:
      UserError: `groups` or `width_per_group` of blocks that are no bottlenecks.
    """

    num_outputs: int
    stages: tuple[int, ...]
    bottleneck: bool
    version: Version = "v1.5"
    stem: Stem = "imagenet"
    shortcut: Shortcut = "project"
    conv_bias: bool = False
    width: int = 64
    groups: int = 1
    width_per_group: int = 64
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        for name, only in (("groups", 1), ("width_per_group", 64)):
            value = getattr(self, name)
            if not self.bottleneck and value != only:
                raise UserError(
                    f"option {name} is {value!r}; expected {only}, since only bottleneck blocks "
                    "have groups"
                )
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, return_features: bool = False) -> jax.Array:
        """Logits [B, num_outputs] of images [B, H, W, 3], or the features [B, F] under the head."""
        small = self.stem == "cifar"
        layer = Layer(3, self.width, 1) if small else Layer(7, self.width, 2)
        x = _conv(layer, self.conv_bias, "stem_conv")(images)
        x = relu(batch_norm(self.epsilon, "stem_bn")(x))
        if not small:
            x = max_pool(x)
        features = self.width
        for i, blocks in enumerate(self.stages):
            for j in range(blocks):
                stride = 2 if i > 0 and j == 0 else 1
                layers = self._block_layers(self.width * 2**i, stride)
                more = layers[-1].features - features
                project = self.shortcut == "project" and (stride != 1 or more != 0)
                pad = (more // 2, more - more // 2)
                name = f"stage{i + 1}_block{j + 1}"
                x = Block(layers, project, pad, self.conv_bias, self.epsilon, name=name)(x)
                features = layers[-1].features
        x = global_mean(x)
        return x if return_features else head(self.num_outputs)(x)

    def _block_layers(self, width: int, stride: int) -> tuple[Layer, ...]:
        """The convolutions of one block, first to last."""
        if not self.bottleneck:
            return Layer(3, width, stride), Layer(3, width, 1)
        inner = max(1, width * self.width_per_group // 64) * self.groups
        # v1 (the paper, Keras) strides in the first 1x1, v1.5 (torchvision) in the 3x3.
        first, second = (stride, 1) if self.version == "v1" else (1, stride)
        middle = Layer(3, inner, second, self.groups)
        return Layer(1, inner, first), middle, Layer(1, EXPANSION * width, 1)


def _conv(layer: Layer, use_bias: bool, name: str) -> nn.Conv:
    return conv(
        layer.features,
        layer.size,
        stride=layer.stride,
        groups=layer.groups,
        use_bias=use_bias,
        name=name,
    )
