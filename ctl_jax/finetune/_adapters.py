"""Low-rank adapters (LoRA): a frozen layer's kernel gets a trained change of small rank.

Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, 2021 (arXiv:2106.09685). The kernel
W [..., C, F] of a convolution or a dense layer becomes W + A B, with A [..., C, rank] and
B [rank, F]: of a convolution, one of the same window to `rank` channels, and a 1x1 one to all.
While it is trained the layer computes W x + B (A x), so that there is no gradient of W to compute;
what is left of it is a network with the kernels W + A B.
"""

import contextlib
from collections.abc import Callable, Generator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from ctl_jax.errors import UserError
from ctl_jax.trees import Tree, leaf_paths


class Adapter(NamedTuple):
    """The change A B of a kernel [*inputs, *outputs].

    Attributes:
      down: A [*inputs, rank].
      up: B [rank, *outputs].
    """

    down: jax.Array
    up: jax.Array

    @property
    def change(self) -> jax.Array:
        """A B, of the kernel's shape."""
        return jnp.tensordot(self.down, self.up, axes=1)


# By the path of their layer, such as "stage1_block1/conv1".
Adapters = Mapping[str, Adapter]


def init(params: Tree, frozen: Tree, rank: int, key: jax.Array) -> dict[str, Adapter]:
    """Adapters of all frozen kernels but those of depthwise convolutions, which have no rank.

    A is normal with variance 1 / rank: as E[A A^T] = I, the first update is expected to change the
    kernel as it would change a trained one, and learning rates are comparable. B is zero, so that
    the network is at first what it was.

    Args:
      params: of the network.
      frozen: like `params`, without those that are trained themselves; see `phases.partition`.
      rank: of the changes.
      key: a PRNG key.

    Raises:
      UserError: no kernel is frozen.
    """
    shapes = {path: leaf.shape for path, leaf in leaf_paths(params)}
    kernels = {
        path.removesuffix("/kernel"): leaf
        for path, leaf in leaf_paths(frozen)
        if path.endswith("/kernel") and (leaf.ndim < 4 or leaf.shape[-2] > 1)
    }
    if not kernels:
        raise UserError(f"lora is {rank}; expected a phase that leaves a kernel frozen")
    made = {}
    for number, (layer, kernel) in enumerate(kernels.items()):
        # A bias has the axes of the outputs; a projection of attention has two: heads and width.
        outputs = len(shapes.get(f"{layer}/bias", (0,)))
        inputs = kernel.shape[: kernel.ndim - outputs]
        drawn = jax.random.normal(jax.random.fold_in(key, number), (*inputs, rank), jnp.float32)
        up = jnp.zeros((rank, *kernel.shape[kernel.ndim - outputs :]), jnp.float32)
        made[layer] = Adapter(drawn / rank**0.5, up)
    return made


def merged(params: Tree, adapters: Adapters | None) -> Tree:
    """The parameters with each adapter's change added to its kernel; as they are without any."""
    if not adapters:
        return params

    def changed(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        layer, _, name = jax.tree_util.keystr(path, simple=True, separator="/").rpartition("/")
        return leaf + adapters[layer].change if name == "kernel" and layer in adapters else leaf

    return jax.tree_util.tree_map_with_path(changed, params)


@contextlib.contextmanager
def added(adapters: Adapters | None) -> Generator[None, None, None]:
    """A context in which layers that are called add what their adapters make of their inputs.

    Raises:
      UserError: at its end, an adapter of a layer that is no `nn.Conv`, `nn.Dense` or
        `nn.DenseGeneral`, or that is not called by its path.
    """
    if not adapters:
        yield
        return
    left = set(adapters)

    def add(
        next_fun: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        layer, path = context.module, "/".join(context.module.path)
        field = _field(layer)
        if context.method_name != "__call__" or not field or path not in adapters:
            return next_fun(*args, **kwargs)
        left.discard(path)
        own = getattr(layer, field)
        # Linen freezes the fields of a bound layer.
        plain = own or getattr(jax.lax, field)
        object.__setattr__(layer, field, _adapted(plain, adapters[path], path))
        try:
            return next_fun(*args, **kwargs)
        finally:
            object.__setattr__(layer, field, own)

    with nn.intercept_methods(add):
        yield
    if left:
        raise UserError(
            f"lora: no change can be added to {min(left)}/kernel; expected the kernel of an "
            "nn.Conv, nn.Dense or nn.DenseGeneral that is no part of a loop"
        )


def _field(layer: nn.Module) -> str:
    """The field of a layer that says how it applies its kernel, which is also XLA's name of it."""
    if isinstance(layer, nn.Conv):
        return "conv_general_dilated"
    return "dot_general" if isinstance(layer, nn.Dense | nn.DenseGeneral) else ""


def _adapted(plain: Callable[..., jax.Array], adapter: Adapter, path: str) -> Callable[..., Any]:
    """A function like `plain`, of inputs and kernel, that adds what the adapter makes of inputs."""

    def apply(inputs: jax.Array, kernel: jax.Array, *args: Any, **kwargs: Any) -> jax.Array:
        down, up = (leaf.astype(kernel.dtype) for leaf in adapter)
        if (*down.shape[:-1], *up.shape[1:]) != kernel.shape:
            raise UserError(f"lora: {path}/kernel is part of a loop; expected a layer of its own")
        groups = kwargs.get("feature_group_count", 1)
        small = plain(inputs, jnp.tile(down, groups), *args, **kwargs)
        if groups == 1:
            change = jnp.tensordot(small, up, axes=1)
        else:
            small = small.reshape(*small.shape[:-1], groups, -1)
            change = jnp.einsum("...gr,rgf->...gf", small, up.reshape(len(up), groups, -1))
            change = change.reshape(*change.shape[:-2], -1)
        return plain(inputs, kernel, *args, **kwargs) + change

    return apply
