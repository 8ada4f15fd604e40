"""VGGs in other libraries' files."""

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ctl_jax.models.names import (
    Entry,
    Naming,
    Network,
    Shape,
    Shapes,
    count,
    describe,
    keras_arrays,
    layer_entries,
    renamer,
    without,
)
from ctl_jax.models.names.keras import canonical as keras_canonical
from ctl_jax.models.preprocess import PREPROCESS
from ctl_jax.models.vgg import OPTIONS, PRESETS, VGG


def _stages_of(shapes: Shapes) -> tuple[int, ...]:
    """Convolutions of each stage of our network."""

    def convolutions(stage: int) -> int:
        return count(lambda i: f"params/stage{stage}_conv{i}/kernel" in shapes)

    return tuple(convolutions(stage + 1) for stage in range(count(convolutions)))


def _places(stages: tuple[int, ...], norm: bool) -> dict[str, int]:
    """Places of our layers in torchvision's "features", which holds ReLUs and pools too."""
    found, place = {}, 0
    for stage, convolutions in enumerate(stages, start=1):
        for i in range(1, convolutions + 1):
            found[f"stage{stage}_conv{i}"] = place
            if norm:
                found[f"stage{stage}_bn{i}"] = place + 1
            place += 3 if norm else 2
        place += 1
    return found


def _from_places(convolutions: list[int], norm: bool) -> tuple[tuple[int, ...], bool] | None:
    """Stages and whether there are BatchNorms, by the places of convolutions in "features".

    Args:
      convolutions: their places.
      norm: whether BatchNorms are in the file; folded into convolutions, they left their places.

    Returns:
      None where the places are of no VGG.
    """
    steps = [after - before for before, after in itertools.pairwise(convolutions)]
    norm = norm or (min(steps, default=0) == 3 and 4 in steps)
    step = 3 if norm else 2
    if convolutions[:1] != [0] or not set(steps) <= {step, step + 1}:
        return None
    # A pool takes a place more.
    ends = [i for i, each in enumerate(steps, start=1) if each > step]
    return tuple(b - a for a, b in itertools.pairwise([0, *ends, len(convolutions)])), norm


# The dense layers, first to last.
_ENDS = {
    "torchvision": {"hidden1": "classifier.0", "hidden2": "classifier.3", "head": "classifier.6"},
    "timm": {"hidden1": "pre_logits.fc1", "hidden2": "pre_logits.fc2", "head": "head.fc"},
    # Of github.com/kuangliu/pytorch-cifar: one dense layer.
    "pytorch-cifar": {"head": "classifier"},
}

_KERAS = renamer(
    (r"stage(\d+)_conv(\d+)", r"block\1_conv\2"), (r"hidden(\d)", r"fc\1"), ("head", "predictions")
)


def _entries(library: str, shapes: Shapes) -> list[Entry]:
    """A Naming's `entries`, of PyTorch's libraries."""
    stages = _stages_of(shapes)
    places = _places(stages, "params/stage1_bn1/scale" in shapes)
    names = {layer: f"features.{place}" for layer, place in places.items()} | _ENDS[library]
    channels = shapes[f"params/stage{len(stages)}_conv{stages[-1]}/kernel"][-1]
    first = "hidden1" if "params/hidden1/kernel" in shapes else "head"
    entries = []
    for layer in ("hidden1", "hidden2", "head"):
        path = f"params/{layer}/kernel"
        if path in shapes and (layer == first or library == "timm"):
            side = math.isqrt(shapes[path][0] // channels) if layer == first else 1
            as_convolution = library == "timm" and layer != "head"
            entries.append(_of_map(path, f"{names[layer]}.weight", side, as_convolution))
    return entries + layer_entries(without(shapes, entries), names.__getitem__)


def _of_map(ours: str, theirs: str, side: int, as_convolution: bool) -> Entry:
    """A dense kernel on a map of `side` x `side`, ours [rows * columns * channels, outputs].

    Theirs is [outputs, channels * rows * columns], or a convolution's in that order.
    """

    def read(arrays: Sequence[np.ndarray], _: Sequence[Shape]) -> list[np.ndarray]:
        outputs = len(arrays[0])
        kernel = arrays[0].reshape(outputs, -1, side, side).transpose(2, 3, 1, 0)
        return [kernel.reshape(-1, outputs)]

    def write(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        outputs = arrays[0].shape[-1]
        kernel = arrays[0].reshape(side, side, -1, outputs).transpose(3, 2, 0, 1)
        return [kernel if as_convolution else kernel.reshape(outputs, -1)]

    return Entry((ours,), (theirs,), read, write)


def _network(
    fields: Mapping[str, Any], channels: int, end: Shape, hidden: bool, preprocess: str, size: int
) -> Network | None:
    """The network of fields; `end` is the first dense layer's kernel [inputs, outputs], or ()."""
    inputs, outputs = end or (channels, 0)
    ends = {"pool": math.isqrt(inputs // channels), "hidden": outputs if hidden else 0}
    described = describe(VGG, PRESETS, OPTIONS, {**fields, **ends})
    return described and Network(*described, PREPROCESS[preprocess], size)


def _recognise(library: str, shapes: Shapes, hint: str) -> Network | None:
    """A Naming's `recognise`, of PyTorch's libraries."""
    found = [each for each in ("timm", "pytorch-cifar") if f"{_first(each)}.weight" in shapes]
    if (found or ["torchvision"]) != [library]:
        return None
    parts = [name.split(".")[1:] for name in shapes if name.startswith("features.")]
    if not all(len(part) == 2 and part[0].isdigit() for part in parts):
        return None
    kernels = {int(place): shapes.get(f"features.{place}.weight", ()) for place, _ in parts}
    places = sorted(place for place, kernel in kernels.items() if len(kernel) == 4)
    structure = _from_places(places, "features.1.running_mean" in shapes)
    if structure is None or kernels[0][1:] != (3, 3, 3):
        return None
    outputs, *inputs = shapes.get(f"{_first(library)}.weight", (0,))
    return _network(
        {"stages": structure[0], "norm": structure[1], "width": kernels[0][0]},
        kernels[places[-1]][0],
        (math.prod(inputs), outputs) if inputs else (),
        hidden=library != "pytorch-cifar",
        preprocess="imagenet",
        size=32 if library == "pytorch-cifar" else 224,
    )


def _first(library: str) -> str:
    return next(iter(_ENDS[library].values()))


def _recognise_keras(shapes: Shapes, hint: str) -> Network | None:
    def kernel(layer: str) -> Shape:
        return shapes.get(f"{_KERAS(layer)}/kernel", ())

    def convolutions(stage: int) -> int:
        return count(lambda i: kernel(f"stage{stage}_conv{i}"))

    stages = tuple(convolutions(stage + 1) for stage in range(count(convolutions)))
    stem = kernel("stage1_conv1")
    if stem[:3] != (3, 3, 3):
        return None
    return _network(
        {"stages": stages, "width": stem[-1]},
        kernel(f"stage{len(stages)}_conv{stages[-1]}")[-1],
        kernel("hidden1"),
        hidden=True,
        preprocess="caffe",
        size=224,
    )


def _naming(library: str) -> Naming:
    recognise = functools.partial(_recognise, library)
    requires = {"hidden": 0} if library == "pytorch-cifar" else {}
    return Naming(library, VGG, recognise, functools.partial(_entries, library), requires=requires)


NAMINGS = (
    _naming("torchvision"),
    _naming("timm"),
    _naming("pytorch-cifar"),
    Naming(
        "keras",
        VGG,
        _recognise_keras,
        functools.partial(layer_entries, name=_KERAS, convention=keras_arrays),
        requires={"norm": False},
        canonical=keras_canonical,
    ),
)
