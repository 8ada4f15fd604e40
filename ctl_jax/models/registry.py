"""Networks by name, with their options checked."""

import math
from typing import Any, NamedTuple

from ctl_jax.errors import UserError
from ctl_jax.models.resnet import ResNet


class _Preset(NamedTuple):
    bottleneck: bool
    stages: tuple[int, ...]


_PRESETS = {
    "resnet18": _Preset(False, (2, 2, 2, 2)),
    "resnet34": _Preset(False, (3, 4, 6, 3)),
    "resnet50": _Preset(True, (3, 4, 6, 3)),
    "resnet101": _Preset(True, (3, 4, 23, 3)),
    "resnet152": _Preset(True, (3, 8, 36, 3)),
}

NAMES = tuple(_PRESETS)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_stages(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) > 0 and all(map(_is_count, value))


def _is_epsilon(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value) and value > 0


# Of each option: what it may be, and the words for it.
_OPTIONS = {
    "stages": (_is_stages, "a non-empty list of positive block counts, such as (3, 4, 6)"),
    "version": (lambda value: value in ("v1", "v1.5"), "'v1' or 'v1.5'"),
    "stem": (lambda value: value in ("imagenet", "cifar"), "'imagenet' or 'cifar'"),
    "conv_bias": (lambda value: isinstance(value, bool), "True or False"),
    "width": (_is_count, "a positive int"),
    "epsilon": (_is_epsilon, "a positive float"),
}


def create(name: str, num_outputs: int, **options: Any) -> ResNet:
    """A network by name.

    Args:
      name: one of `NAMES`.
      num_outputs: outputs of the task head.
      **options: of `ResNet`: stages (default: those of the name), version "v1" or "v1.5" (default),
        stem "imagenet" (default) or "cifar", conv_bias (False), width (64), epsilon (1e-5).

    Returns:
      The Linen module; hashable, so it can be a static argument of a jitted function.

    Raises:
      UserError: an unknown name or option, or an option's impossible value.

    Example:
      >>> create("resnet50", num_outputs=16, stages=(3, 4, 6), version="v1").stages
      (3, 4, 6)
    """
    if name not in _PRESETS:
        raise UserError(f"unknown model {name!r}; expected one of {', '.join(NAMES)}")
    if not _is_count(num_outputs):
        raise UserError(f"num_outputs is {num_outputs!r}; expected a positive int")
    for key, value in options.items():
        if key not in _OPTIONS:
            known = ", ".join(_OPTIONS)
            raise UserError(f"unknown option {key!r} of model {name}; expected one of {known}")
        is_valid, expected = _OPTIONS[key]
        if not is_valid(value):
            raise UserError(f"option {key} of model {name} is {value!r}; expected {expected}")
    preset = _PRESETS[name]
    stages = tuple(options.pop("stages", preset.stages))
    return ResNet(num_outputs, stages, preset.bottleneck, **options)
