"""Residual networks in other libraries' files."""

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

from ctl_jax.models.names import (
    Arrays,
    Convention,
    Named,
    Naming,
    Network,
    Shapes,
    as_they_are,
    count,
    describe,
    keras_arrays,
    kernel,
    layer_entries,
    renamer,
    torch_arrays,
)
from ctl_jax.models.names.keras import canonical as keras_canonical
from ctl_jax.models.preprocess import PREPROCESS
from ctl_jax.models.resnet import OPTIONS, PRESETS, ResNet

# What a file is called whose bottlenecks stride in their first convolution, as Caffe's did.
_V1 = re.compile(r"caffe|msra|(?<![a-z])v1(?![.\w])")
# timm's own trainings by their files' names, such as resnet50.a1_in1k, but torchvision's there.
_TIMM = re.compile(r"\.(?!tv)\w+_in\d+k")

_BLOCK = r"stage(\d+)_block(\d+)/"
_KERAS_EPSILON = 1.001e-5


def _torch_names(shortcut: str, head: str) -> Callable[[str], str]:
    def block(match: re.Match[str]) -> str:
        return f"layer{match[1]}.{int(match[2]) - 1}"

    return renamer(
        (r"stem_(conv|bn)", r"\g<1>1"),
        (_BLOCK + r"shortcut_conv", lambda m: f"{block(m)}.{shortcut}.0"),
        (_BLOCK + r"shortcut_bn", lambda m: f"{block(m)}.{shortcut}.1"),
        (_BLOCK + r"(\w+)", lambda m: f"{block(m)}.{m[3]}"),
        (r"head", head),
    )


_TORCHVISION = _torch_names("downsample", "fc")
# Of the CIFAR networks of github.com/akamaster/pytorch_resnet_cifar10 and
# github.com/kuangliu/pytorch-cifar, from where they were copied everywhere.
_CIFAR = _torch_names("shortcut", "linear")

_KINDS = {"conv": "convolution", "bn": "normalization"}


def _of_block(match: re.Match[str]) -> str:
    stage, block = int(match[1]) - 1, int(match[2]) - 1
    return f"resnet.encoder.stages.{stage}.layers.{block}"


_HUGGINGFACE = renamer(
    (r"stem_(conv|bn)", lambda m: f"resnet.embedder.embedder.{_KINDS[m[1]]}"),
    (_BLOCK + r"shortcut_(\w+)", lambda m: f"{_of_block(m)}.shortcut.{_KINDS[m[3]]}"),
    (
        _BLOCK + r"([a-z]+)(\d+)",
        lambda m: f"{_of_block(m)}.layer.{int(m[4]) - 1}.{_KINDS[m[3]]}",
    ),
    (r"head", "classifier.1"),
)

# Keras counts the stem as the first stage and the projection as a block's layer 0.
_KERAS = renamer(
    (r"stem_(conv|bn)", r"conv1_\1"),
    (_BLOCK + r"shortcut_(\w+)", lambda m: f"conv{int(m[1]) + 1}_block{m[2]}_0_{m[3]}"),
    (_BLOCK + r"([a-z]+)(\d+)", lambda m: f"conv{int(m[1]) + 1}_block{m[2]}_{m[4]}_{m[3]}"),
    (r"head", "predictions"),
)


def _recognise(
    name: Callable[[str], str], convention: Convention, fixed: Mapping[str, Any], preprocess: str
) -> Callable[[Shapes, str], Network | None]:
    """A Naming's `recognise`; `fixed` are fields that no shape tells."""

    def recognise(shapes: Shapes, hint: str) -> Network | None:
        def find(layer: str) -> tuple[int, ...]:
            return kernel(shapes, layer, name, convention)

        def blocks(stage: int) -> int:
            return count(lambda block: find(f"stage{stage}_block{block}/conv1"))

        stem, stages = find("stem_conv"), tuple(map(blocks, range(1, count(blocks) + 1)))
        if len(stem) != 4 or not stages:
            return None
        conv_bias, mean = (
            name(layer) + convention(array, 1, False, False)[0]
            for layer, array in (("stem_conv", "bias"), ("stem_bn", "mean"))
        )
        fields: dict[str, Any] = {
            "stages": stages,
            "bottleneck": bool(find("stage1_block1/conv3")),
            "stem": "cifar" if stem[0] == 3 else "imagenet",
            "width": stem[-1],
            # Where BatchNorms are folded into convolutions, the biases are theirs.
            "conv_bias": conv_bias in shapes and mean in shapes,
        }
        if fields["bottleneck"]:
            _, _, inputs, inner = find("stage1_block1/conv2")
            fields["groups"] = inner // inputs
            fields["width_per_group"] = inputs * 64 // stem[-1]
            fields["version"] = "v1" if _V1.search(hint.lower()) else "v1.5"
        if len(stages) > 1:
            projected = find("stage2_block1/shortcut_conv")
            fields["shortcut"] = "project" if projected else "pad"
        described = describe(ResNet, PRESETS, OPTIONS, {**fields, **fixed})
        size = 32 if fields["stem"] == "cifar" else 224
        how = "imagenet_bicubic" if _TIMM.search(hint) else preprocess
        return described and Network(*described, PREPROCESS[how], size)

    return recognise


def _with_prefix(arrays: Arrays) -> dict[str, Named]:
    """The network alone, without a classifier, has its names without "resnet."."""
    return {
        f"resnet.{name}" if re.match(r"embedder|encoder", name) else name: Named(name, array)
        for name, array in arrays.items()
    }


def _configure(network: Network, config: Mapping[str, Any]) -> Network:
    if not config.get("downsample_in_bottleneck"):
        return network
    return network._replace(options=network.options | {"version": "v1"})


def _naming(
    library: str,
    name: Callable[[str], str],
    convention: Convention = torch_arrays,
    fixed: Mapping[str, Any] = {},
    preprocess: str = "imagenet",
    canonical: Callable[[Arrays], dict[str, Named]] = as_they_are,
    **others: Any,
) -> Naming:
    entries = functools.partial(layer_entries, name=name, convention=convention)
    recognise = _recognise(name, convention, fixed, preprocess)
    return Naming(library, ResNet, recognise, entries, canonical=canonical, **others)


NAMINGS = (
    # timm's names are the same.
    _naming("torchvision", _TORCHVISION),
    _naming("pytorch-cifar", _CIFAR),
    _naming("huggingface", _HUGGINGFACE, canonical=_with_prefix, configure=_configure),
    _naming(
        "keras",
        _KERAS,
        keras_arrays,
        {"version": "v1", "epsilon": _KERAS_EPSILON},
        "caffe",
        keras_canonical,
        requires={"version": "v1"},
    ),
)
