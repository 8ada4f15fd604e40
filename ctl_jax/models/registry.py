"""Networks by name, with their options checked."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn

from ctl_jax.errors import UserError
from ctl_jax.models import (
    _custom,
    convnext,
    densenet,
    efficientnet,
    mixer,
    mobilenet_v1,
    mobilenet_v2,
    mobilenet_v3,
    resnet,
    shufflenet_v1,
    shufflenet_v2,
    squeezenet,
    unet,
    vgg,
    vit,
)
from ctl_jax.models.options import COUNT, Options


class _Family(NamedTuple):
    """One module class: fields that differ by name, and fields that a user may set."""

    module: type[nn.Module]
    presets: dict[str, dict[str, Any]]
    options: Options


_FAMILIES = (
    _Family(resnet.ResNet, resnet.PRESETS, resnet.OPTIONS),
    _Family(vgg.VGG, vgg.PRESETS, vgg.OPTIONS),
    _Family(densenet.DenseNet, densenet.PRESETS, densenet.OPTIONS),
    _Family(mobilenet_v1.MobileNetV1, mobilenet_v1.PRESETS, mobilenet_v1.OPTIONS),
    _Family(mobilenet_v2.MobileNetV2, mobilenet_v2.PRESETS, mobilenet_v2.OPTIONS),
    _Family(mobilenet_v3.MobileNetV3, mobilenet_v3.PRESETS, mobilenet_v3.OPTIONS),
    _Family(efficientnet.EfficientNet, efficientnet.PRESETS, efficientnet.OPTIONS),
    _Family(shufflenet_v1.ShuffleNetV1, shufflenet_v1.PRESETS, shufflenet_v1.OPTIONS),
    _Family(shufflenet_v2.ShuffleNetV2, shufflenet_v2.PRESETS, shufflenet_v2.OPTIONS),
    _Family(squeezenet.SqueezeNet, squeezenet.PRESETS, squeezenet.OPTIONS),
    _Family(unet.UNet, unet.PRESETS, unet.OPTIONS),
    _Family(convnext.ConvNeXt, convnext.PRESETS, convnext.OPTIONS),
    _Family(vit.ViT, vit.PRESETS, vit.OPTIONS),
    _Family(mixer.Mixer, mixer.PRESETS, mixer.OPTIONS),
)

_BY_NAME = {name: family for family in _FAMILIES for name in family.presets}

NAMES = tuple(_BY_NAME)

# Those that say what is in an image; the others say it of each pixel.
CLASSIFIERS = tuple(name for name, family in _BY_NAME.items() if family.module is not unet.UNet)


# Options that only an original classifier has.
_OF_CLASSIFIER = ("relu_head",)


def without_classifier(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a network for another head than the original classifier.

    Args:
      options: as `create` takes them.

    Example:
      >>> pretrained = load_pretrained("squeezenet1_1.pth")
      >>> module = create(pretrained.architecture, 10, **without_classifier(pretrained.options))
      >>> variables = with_head(pretrained.variables, 10)
    """
    return {key: value for key, value in options.items() if key not in _OF_CLASSIFIER}


def options_of(name: str) -> tuple[str, ...]:
    """The options that `create` takes for a network.

    Args:
      name: one of `NAMES`, or of a user's own module, see `own.create`.

    Raises:
      UserError: an unknown name.
    """
    return _custom.options_of(name) if _custom.is_own(name) else tuple(_family(name).options)


def create(name: str, num_outputs: int, **options: Any) -> nn.Module:
    """A network by name.

    Args:
      name: one of `NAMES`, or "my_package.nets:Net" for a user's own Linen module.
      num_outputs: outputs of the task head.
      **options: fields of the network's module other than those of its name, see `options_of` and
        the module's docstring: of a ResNet, for instance, `stages` or `width`.

    Returns:
      The Linen module; hashable, so it can be a static argument of a jitted function.

    Raises:
      UserError: an unknown name or option, or an option's impossible value.

    Example:
      >>> create("resnet50", num_outputs=16, stages=(3, 4, 6), version="v1").stages
      (3, 4, 6)
    """
    if _custom.is_own(name):
        return _custom.create(name, num_outputs, **options)
    family = _family(name)
    for key in options:
        if key not in family.options:
            known = ", ".join(family.options)
            raise UserError(f"unknown option {key!r} of model {name}; expected one of {known}")
    _check("num_outputs", num_outputs, COUNT)
    for key, value in options.items():
        _check(f"option {key} of model {name}", value, family.options[key])
    fields = {**family.presets[name], **options}
    # A config's lists, as a module's hash can not hold them.
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return family.module(num_outputs=num_outputs, **fields)


def _family(name: str) -> _Family:
    if name not in _BY_NAME:
        raise UserError(
            f"unknown model {name!r}; expected one of {', '.join(NAMES)}, or "
            "PACKAGE.MODULE:CLASS of a Linen module"
        )
    return _BY_NAME[name]


def _check(label: str, value: Any, option: tuple[Callable[[Any], bool], str]) -> None:
    is_valid, expected = option
    if not is_valid(value):
        raise UserError(f"{label} is {value!r}; expected {expected}")
