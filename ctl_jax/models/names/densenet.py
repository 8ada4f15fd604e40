"""Densely connected networks in other libraries' files."""

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

from ctl_jax.models.densenet import OPTIONS, PRESETS, DenseNet
from ctl_jax.models.names import (
    Arrays,
    Convention,
    Named,
    Naming,
    Network,
    Shapes,
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

_LAYER = r"stage(\d+)_layer(\d+)/"

_TORCHVISION = renamer(
    ("stem_conv", "features.conv0"),
    ("stem_bn", "features.norm0"),
    (_LAYER + r"conv(\d)", r"features.denseblock\1.denselayer\2.conv\3"),
    (_LAYER + r"bn(\d)", r"features.denseblock\1.denselayer\2.norm\3"),
    (r"transition(\d+)/conv", r"features.transition\1.conv"),
    (r"transition(\d+)/bn", r"features.transition\1.norm"),
    ("final_bn", "features.norm5"),
    ("head", "classifier"),
)

# Keras counts the stem as the first block, and a layer's first BatchNorm as of what is before it.
_KERAS = renamer(
    (r"stem_(\w+)", r"conv1_\1"),
    (_LAYER + r"conv(\d)", lambda m: f"conv{int(m[1]) + 1}_block{m[2]}_{m[3]}_conv"),
    (_LAYER + r"bn(\d)", lambda m: f"conv{int(m[1]) + 1}_block{m[2]}_{int(m[3]) - 1}_bn"),
    (r"transition(\d+)/(\w+)", lambda m: f"pool{int(m[1]) + 1}_{m[2]}"),
    ("final_bn", "bn"),
    ("head", "predictions"),
)


def _renamed(arrays: Arrays, pattern: str, replacement: str) -> dict[str, Named]:
    return {
        re.sub(pattern, replacement, name): Named(name, array) for name, array in arrays.items()
    }


def _of_torch(arrays: Arrays) -> dict[str, Named]:
    """ "denselayer1.norm.1", as torchvision's first files have it, as "denselayer1.norm1"."""
    return _renamed(arrays, r"(denselayer\d+\.(?:norm|conv))\.(\d)", r"\1\2")


def _of_keras(arrays: Arrays) -> dict[str, Named]:
    """ "conv1/bn", as Keras's first files have the stem, as "conv1_bn"."""
    renamed = _renamed(arrays, r"(^|/)conv1/(?=conv/|bn/)", r"\1conv1_")
    found = keras_canonical({name: named.array for name, named in renamed.items()})
    return {name: Named(renamed[named.name].name, named.array) for name, named in found.items()}


def _recognise(
    name: Callable[[str], str], convention: Convention, fixed: Mapping[str, Any]
) -> Callable[[Shapes, str], Network | None]:
    """A Naming's `recognise`; `fixed` are fields that no shape tells."""

    def recognise(shapes: Shapes, hint: str) -> Network | None:
        def find(layer: str) -> tuple[int, ...]:
            return kernel(shapes, layer, name, convention)

        def layers(stage: int) -> int:
            return count(lambda layer: find(f"stage{stage}_layer{layer}/conv2"))

        stem, stages = find("stem_conv"), count(layers)
        # Keras calls the layers of its ResNets alike, but they have a third convolution.
        if stem[:3] != (7, 7, 3) or not stages or find("stage1_layer1/conv3"):
            return None
        fields = {
            "stages": tuple(layers(stage + 1) for stage in range(stages)),
            "growth": find("stage1_layer1/conv2")[-1],
            "width": stem[-1],
            "last_norm": name("final_bn") + convention("mean", 1, True, False)[0] in shapes,
        }
        described = describe(DenseNet, PRESETS, OPTIONS, {**fields, **fixed})
        return described and Network(*described, PREPROCESS["imagenet"], 224)

    return recognise


def _naming(
    library: str,
    name: Callable[[str], str],
    convention: Convention,
    canonical: Callable[[Arrays], dict[str, Named]],
    **fixed: Any,
) -> Naming:
    entries = functools.partial(layer_entries, name=name, convention=convention)
    recognise = _recognise(name, convention, fixed)
    return Naming(library, DenseNet, recognise, entries, canonical=canonical)


NAMINGS = (
    # timm's names are the same.
    _naming("torchvision", _TORCHVISION, torch_arrays, _of_torch),
    _naming("keras", _KERAS, keras_arrays, _of_keras, epsilon=1.001e-5),
)
