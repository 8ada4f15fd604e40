"""A network's parameters by stage, first to last."""

import re
from collections.abc import Mapping
from typing import Any

from ctl_jax.errors import UserError
from ctl_jax.models import heads

_STEM = re.compile(r"stem_.*|patch_conv|tokens|registers|position")
_STAGE = re.compile(r"(?:stage|transition|block|down)(\d+)(?:_.*)?")
_UP = re.compile(r"up(\d+)(?:_conv)?")
# Of what comes after the stages, and of an ensemble's second network.
_LAST, _BESIDE = 1e9, float("inf")
_END = re.compile(r"head|norm|fc_norm|final_bn|last_.*|hidden\d+")


def stages(variables: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The ordered groups of a network's parameters, as timm's `feature_info` has them.

    "stem" is what comes before the first stage (a VGG has nothing there), and "head" all that
    comes after the last: last norms, convolutions and dense layers, and the task head. A stage is
    what its paper calls one: blocks at one size of the image, in a DenseNet with the transition
    that follows them. Of a ViT or a Mixer each block is a stage, but of a ViT whose blocks are one
    loop (`scan`), they are one stage. A U-Net's first double convolution is its stem, and each
    halving and each doubling of the image a stage.

    Args:
      variables: {"params": ...} of a network of this package, pruned or not; abstract arrays do.

    Returns:
      "stem", "stage1", "stage2", ..., "head", in the order of the forward pass, and "ensemble"
      where there is a second network, each with the names of its entries in `variables["params"]`;
      each of these is in one group.

    Raises:
      UserError: a parameter of another network.

    Example:
      >>> groups = stages(variables)
      >>> groups["stage1"]
      ('stage1_block1', 'stage1_block2', 'stage1_block3')
    """
    names = list(variables["params"])
    depth = max((stage_of(name) or 0 for name in names), default=0)
    groups: dict[float, list[str]] = {}
    for name in names:
        groups.setdefault(_place(name, depth), []).append(name)
    titles = {0.0: "stem", _LAST: "head", _BESIDE: "ensemble"}
    return {
        titles.get(place, f"stage{place:.0f}"): tuple(groups[place]) for place in sorted(groups)
    }


def stage_of(name: str) -> int | None:
    """The number of the stage of a top-level layer; None of what is before and behind them."""
    match = _STAGE.fullmatch(name)
    return int(match[1]) if match else None


def is_end(name: str) -> bool:
    """Whether a top-level layer comes after the stages."""
    return _END.fullmatch(name) is not None


def _place(name: str, depth: int) -> float:
    """0 of the stem, 1, 2, ... of the stages, more after them."""
    if (number := stage_of(name)) is not None:
        return number
    if match := _UP.fullmatch(name):
        return 2 * depth - int(match[1])
    if name == "blocks":
        return 1
    if _STEM.fullmatch(name):
        return 0
    if is_end(name):
        return _LAST
    if name == heads.ENSEMBLE:
        return _BESIDE
    raise UserError(f"parameter {name!r} belongs to no stage; expected one of a network by name")
