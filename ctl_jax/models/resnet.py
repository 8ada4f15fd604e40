"""Residual networks in Flax Linen: one definition for the ImageNet and the CIFAR families.

He et al., Deep Residual Learning for Image Recognition, 2015 (arXiv:1512.03385). Padding is
explicit, as in torchvision and Keras, so that weights trained there give the same outputs here.
"""

import math
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctl_jax.models.convolution import conv_general_dilated

Version = Literal["v1", "v1.5"]
Stem = Literal["imagenet", "cifar"]

# Of a bottleneck block: outputs per width of its 3x3 convolution.
EXPANSION = 4


def _kernel_init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    """He initialisation with the fan of the outputs, as in the paper and in torchvision.

    XLA compiles a draw anew for each shape, a quarter of a second each. Drawing powers of four
    and cutting them leaves a handful of shapes in all.
    """
    size = math.prod(shape)
    drawn = jax.random.normal(key, (4 ** math.ceil(math.log(size, 4)),), dtype)
    fan_out = size // shape[-2]
    return (drawn[:size] * math.sqrt(2 / fan_out)).reshape(shape)


class Layer(NamedTuple):
    """One convolution of a block: `size` x `size` kernel, output channels, stride."""

    size: int
    features: int
    stride: int


def block_layers(bottleneck: bool, version: Version, width: int, stride: int) -> tuple[Layer, ...]:
    """The convolutions of one block, first to last."""
    if not bottleneck:
        return Layer(3, width, stride), Layer(3, width, 1)
    # v1 (the paper, Keras) strides in the first 1x1, v1.5 (torchvision) in the 3x3.
    first, second = (stride, 1) if version == "v1" else (1, stride)
    return Layer(1, width, first), Layer(3, width, second), Layer(1, EXPANSION * width, 1)


def _conv(layer: Layer, use_bias: bool, name: str) -> nn.Conv:
    pad = (layer.size - 1) // 2
    return nn.Conv(
        layer.features,
        (layer.size, layer.size),
        strides=layer.stride,
        padding=((pad, pad), (pad, pad)),
        use_bias=use_bias,
        kernel_init=_kernel_init,
        conv_general_dilated=conv_general_dilated,
        name=name,
    )


def _batch_norm(train: bool, epsilon: float, name: str) -> nn.BatchNorm:
    # Momentum 0: training gives back each batch's own statistics, for the trainer to average.
    return nn.BatchNorm(use_running_average=not train, momentum=0.0, epsilon=epsilon, name=name)


class Block(nn.Module):
    """relu(layers(x) + shortcut(x)), each layer a convolution and BatchNorm, ReLU between them.

    `project` is decided from the full widths and not from the shapes at hand: pruning may make
    the two sides of a projection equal, and it must stay.
    """

    layers: tuple[Layer, ...]
    project: bool
    conv_bias: bool
    epsilon: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        shortcut = x
        if self.project:
            stride = max(layer.stride for layer in self.layers)
            layer = Layer(1, self.layers[-1].features, stride)
            shortcut = _conv(layer, self.conv_bias, "shortcut_conv")(shortcut)
            shortcut = _batch_norm(train, self.epsilon, "shortcut_bn")(shortcut)
        for i, layer in enumerate(self.layers, start=1):
            x = _conv(layer, self.conv_bias, f"conv{i}")(x)
            x = _batch_norm(train, self.epsilon, f"bn{i}")(x)
            if i < len(self.layers):
                x = nn.relu(x)
        return nn.relu(x + shortcut)


class ResNet(nn.Module):
    """A residual network with a task head.

    Attributes:
      num_outputs: outputs of the task head, a Dense layer "head" whose kernel starts at zero.
      stages: blocks of each stage; stage i has `width * 2**i` channels (four times as many at the
        outputs of bottleneck blocks) and every stage but the first halves the image.
      bottleneck: blocks of 1x1, 3x3, 1x1 (ResNet-50 and up) instead of two 3x3.
      version: where a bottleneck block strides; "v1" in the first 1x1 (Keras), "v1.5" in the 3x3.
      stem: "imagenet", a 7x7/2 convolution and a 3x3/2 max pool; "cifar", a 3x3 convolution.
      conv_bias: convolutions have a bias although BatchNorm follows (Keras's do).
      width: channels of the stem and the first stage.
      epsilon: of BatchNorm.
    """

    num_outputs: int
    stages: tuple[int, ...]
    bottleneck: bool
    version: Version = "v1.5"
    stem: Stem = "imagenet"
    conv_bias: bool = False
    width: int = 64
    epsilon: float = 1e-5

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False, return_features: bool = False
    ) -> jax.Array:
        """Logits [B, num_outputs] of images [B, H, W, 3], or the features [B, F] under the head."""
        small = self.stem == "cifar"
        layer = Layer(3, self.width, 1) if small else Layer(7, self.width, 2)
        x = _conv(layer, self.conv_bias, "stem_conv")(images)
        x = nn.relu(_batch_norm(train, self.epsilon, "stem_bn")(x))
        if not small:
            x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        features = self.width
        for i, blocks in enumerate(self.stages):
            for j in range(blocks):
                stride = 2 if i > 0 and j == 0 else 1
                layers = block_layers(self.bottleneck, self.version, self.width * 2**i, stride)
                project = stride != 1 or layers[-1].features != features
                name = f"stage{i + 1}_block{j + 1}"
                x = Block(layers, project, self.conv_bias, self.epsilon, name=name)(x, train)
                features = layers[-1].features
        x = jnp.mean(x, axis=(1, 2))
        if return_features:
            return x
        return nn.Dense(self.num_outputs, kernel_init=nn.initializers.zeros, name="head")(x)
