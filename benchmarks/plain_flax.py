"""ResNet-50 and its training step in Flax and optax as their users write them.

Stock `nn.Conv`, `nn.BatchNorm`, `nn.max_pool` and `optax.sgd`; names are those of
`ctl_jax.models`, so that its variables, pruned ones too, run here.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from ctl_jax.finetune import Augmentation, augment

WEIGHT_DECAY, MOMENTUM = 1e-4, 0.9


class Bottleneck(nn.Module):
    """1x1, 3x3 with the stride, 1x1 of the given widths; `project`: a 1x1 on the shortcut."""

    widths: tuple[int, int, int]
    stride: int
    project: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shortcut = x
        if self.project:
            shortcut = _conv_norm(x, self.widths[2], 1, self.stride, "shortcut_conv", "shortcut_bn")
        x = nn.relu(_conv_norm(x, self.widths[0], 1, 1, "conv1", "bn1"))
        x = nn.relu(_conv_norm(x, self.widths[1], 3, self.stride, "conv2", "bn2"))
        x = _conv_norm(x, self.widths[2], 1, 1, "conv3", "bn3")
        return nn.relu(x + shortcut)


class PlainResNet(nn.Module):
    """Its blocks' names and widths, in order, and the outputs of the head."""

    blocks: tuple[tuple[str, tuple[int, int, int], int, bool], ...]
    stem: int
    outputs: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(_conv_norm(x, self.stem, 7, 2, "stem_conv", "stem_bn"))
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for name, widths, stride, project in self.blocks:
            x = Bottleneck(widths, stride, project, name=name)(x)
        return nn.Dense(self.outputs, name="head")(x.mean(axis=(1, 2)))


def plain_trainer(
    variables: Mapping[str, Any],
    images: np.ndarray,
    labels: np.ndarray,
    learning_rate: float,
) -> Callable[[int], list[float]]:
    """A function that makes so many updates and returns their losses."""
    module = _module(variables["params"])
    optimizer = optax.chain(
        optax.add_decayed_weights(
            WEIGHT_DECAY, mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
        ),
        optax.sgd(learning_rate, MOMENTUM, nesterov=True),
    )
    on_device, classes = jax.device_put((images, labels))
    key = jax.random.key(0)
    # Boxes that happen to be whole images, as for the others.
    whole = Augmentation((1.0, 1.0), (1.0, 1.0), flip=False)

    def step(params: Any, statistics: Any, opt_state: Any, count: jax.Array) -> Any:
        batch = augment(jax.random.fold_in(key, count), on_device, whole) / 127.5 - 1.0

        def loss_fn(params: Any) -> tuple[jax.Array, Any]:
            logits, updated = module.apply(
                {"params": params, "batch_stats": statistics}, batch, mutable=["batch_stats"]
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, classes)
            return losses.mean(), updated["batch_stats"]

        (loss, new), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), new, opt_state, count + 1, loss

    compiled = jax.jit(step, donate_argnums=(0, 1, 2, 3))
    params, statistics = jax.tree.map(jnp.array, (variables["params"], variables["batch_stats"]))
    state = (params, statistics, optimizer.init(params), jnp.int32(0))

    def steps(count: int) -> list[float]:
        nonlocal state
        losses = []
        for _ in range(count):
            *state, loss = compiled(*state)
            losses.append(loss)
        return [float(loss) for loss in losses]

    return steps


def _module(params: Mapping[str, Any]) -> PlainResNet:
    """The module of these parameters' widths."""
    blocks = []
    for name in sorted(name for name in params if name.startswith("stage")):
        block = params[name]
        first, second, third = (block[f"conv{i}"]["kernel"].shape[-1] for i in (1, 2, 3))
        stage, number = (int(part.strip("stageblock")) for part in name.split("_"))
        stride = 2 if stage > 1 and number == 1 else 1
        blocks.append((name, (first, second, third), stride, "shortcut_conv" in block))
    stem = params["stem_conv"]["kernel"].shape[-1]
    return PlainResNet(tuple(blocks), stem, params["head"]["kernel"].shape[-1])


def _conv_norm(
    x: jax.Array, features: int, size: int, stride: int, conv: str, norm: str
) -> jax.Array:
    pad = size // 2
    x = nn.Conv(features, (size, size), stride, ((pad, pad),) * 2, use_bias=False, name=conv)(x)
    return nn.BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-5, name=norm)(x)
