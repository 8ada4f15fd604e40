"""Depth follows from the parameters: a network runs with its first stages alone.

Where parameters of the later stages are missing, their layers give what enters them, and so do the
last norms and convolutions behind them; the head reads what is left. Such a network is the smaller
one that a pretrained network has in it: lower stages cost little, and what they compute is general
(Yosinski et al., How transferable are features in deep neural networks?, 2014, arXiv:1411.1792).
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn

from ctl_jax.errors import UserError
from ctl_jax.models import _custom
from ctl_jax.models.stages import is_end, stage_of, stages
from ctl_jax.trees import Variables


def numbers(params: Mapping[str, Any]) -> list[int]:
    """The numbers of the stages of a network that can be shortened, ascending.

    A U-Net cannot, whose later layers read its earlier ones, nor a VGG, whose dense layers read a
    whole map, nor a ViT whose blocks are one loop, nor networks that are not of this package.
    """
    if any(name.startswith(("up", "hidden")) for name in params):
        return []
    return sorted({number for name in params if (number := stage_of(name)) is not None})


def shorten(variables: Variables, count: int) -> dict[str, Any]:
    """Variables of the first stages, without those of the later ones and of what is behind them.

    The head is as it was, and reads what is no more there: it is to be replaced.

    Args:
      variables: {"params": ..., "batch_stats": ...} of a network of this package, pruned or not;
        abstract arrays do.
      count: how many stages stay, with the stem.

    Raises:
      UserError: the network does not have more stages than `count`, or that is not positive.
    """
    there = numbers(variables["params"])
    if not 1 <= count < len(there):
        expected = f"1 to {len(there) - 1}" if len(there) > 1 else "a network of several stages"
        raise UserError(f"{count} stages of a network that has {len(there)}; expected {expected}")
    groups = stages(variables)
    titles = ("stem", *(f"stage{number}" for number in there[:count]))
    kept = {_custom.HEAD, *(name for title in titles for name in groups.get(title, ()))}
    return {
        kind: {name: leaf for name, leaf in tree.items() if name in kept}
        for kind, tree in variables.items()
    }


def is_beyond(name: str, params: Mapping[str, Any]) -> bool:
    """Whether a top-level layer is of a stage behind the last one that has parameters."""
    number, there = stage_of(name), numbers(params)
    return number is not None and bool(there) and number > there[-1]


@contextlib.contextmanager
def following(params: Mapping[str, Any]) -> Iterator[None]:
    """A context in which layers of stages beyond those that have parameters give what enters them.

    Args:
      params: of the network that is called in it.
    """
    shortened = False

    def see(next_fun: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        nonlocal shortened
        path = context.module.path
        if context.method_name != "__call__" or len(path) != 1 or path[0] in params:
            return next_fun(*args, **kwargs)
        if is_beyond(path[0], params):
            shortened = True
        elif not (shortened and is_end(path[0]) and path[0] != _custom.HEAD):
            return next_fun(*args, **kwargs)
        return args[0] if args else next(iter(kwargs.values()))

    with nn.intercept_methods(see):
        yield
