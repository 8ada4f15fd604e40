"""Widths follow from the parameters: a Linen module runs with pruned parameters as they are.

A Linen layer is built with its full width and refuses a kernel of another. Before such a layer
runs, the width that it was built with is replaced by that of the kernel it is given; nothing else
of the layer changes, so there is one model definition, not a dense one and a pruned one.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax


def apply(module: nn.Module, variables: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
    """`module.apply(variables, *args, **kwargs)` at the widths of `variables`.

    Covers `nn.Conv` (grouped too) and `nn.Dense`; `nn.BatchNorm` reads its width from its input.

    Args:
      module: a Linen module.
      variables: its variables, perhaps pruned.
      *args, **kwargs: as for `module.apply`.

    Returns:
      What `module.apply` returns.
    """
    with nn.intercept_methods(_follow_kernel):
        return module.apply(variables, *args, **kwargs)


def _follow_kernel(
    next_fun: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    context: nn.module.InterceptorContext,
) -> Any:
    layer = context.module
    if (
        isinstance(layer, nn.Conv | nn.Dense)
        and context.method_name == "__call__"
        and layer.has_variable("params", "kernel")
    ):
        kernel: jax.Array = layer.get_variable("params", "kernel")
        # Linen freezes a layer's fields once it is bound; this copy of it lives for one call.
        object.__setattr__(layer, "features", kernel.shape[-1])
        if isinstance(layer, nn.Conv) and layer.feature_group_count > 1:
            inputs = args[0] if args else kwargs["inputs"]
            object.__setattr__(layer, "feature_group_count", inputs.shape[-1] // kernel.shape[-2])
    return next_fun(*args, **kwargs)
