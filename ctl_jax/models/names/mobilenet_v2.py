"""MobileNetV2 in other libraries' files."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ctl_jax.models.mobilenet_v2 import LAST, OPTIONS, PRESETS, STAGES, STEM, MobileNetV2
from ctl_jax.models.names import Naming, Network, Shapes, describe, keras_arrays
from ctl_jax.models.names.keras import canonical as keras_canonical
from ctl_jax.models.names.mobile import (
    TIMM_V3,
    Blocks,
    Form,
    Found,
    Place,
    configured,
    entries,
    find,
    is_tensorflows,
    of_block,
    prefixed,
    scaled,
    splitter,
    timm_block,
    timm_ends,
    timm_remarks,
    width_multiplier,
)
from ctl_jax.models.preprocess import PREPROCESS, Preprocess

_TENSORFLOW = {"padding": "same", "epsilon": 1e-3}


def _fits(stage: int, block: Found) -> bool:
    """Whether a block may be in a stage, numbered from 0."""
    return (
        stage < len(STAGES)
        and block.size == 3
        and not block.squeezed
        and block.expanded == (stage > 0)
    )


_split = splitter((preset["stages"] for preset in PRESETS.values()), _fits)


def _recognise(
    form: Form, rest: Callable[[str], Mapping[str, Any]], preprocess: Preprocess
) -> Callable[[Shapes, str], Network | None]:
    """A Naming's `recognise`; `rest` gives fields that no shape tells, of the hint."""

    def recognise(shapes: Shapes, hint: str) -> Network | None:
        found = find(form, shapes, _split)
        fields = None if found is None else _fields(found)
        described = fields and describe(MobileNetV2, PRESETS, OPTIONS, {**fields, **rest(hint)})
        remarks = timm_remarks(hint) if rest is _timm_rest else ()
        return Network(*described, preprocess, 224, remarks) if described else None

    return recognise


def _fields(found: Blocks) -> dict[str, Any] | None:
    blocks = [(i, block) for i, stage in enumerate(found.stages) for block in stage]
    if not all(_fits(*each) for each in blocks):
        return None
    outputs = [stage[0].outputs for stage in found.stages]
    bases = [stage.features for stage, _ in zip(STAGES, outputs, strict=False)]
    multiplier = width_multiplier([found.stem, *outputs], lambda by: scaled([STEM, *bases], by))
    if multiplier is None:
        return None
    return {
        "stages": found.counts,
        "width_multiplier": multiplier,
        "fixed_ends": multiplier > 1 and found.layers.get("last_conv", LAST) == LAST,
        "last": "last_conv" in found.layers,
    }


def _timm_rest(hint: str) -> Mapping[str, Any]:
    return _TENSORFLOW if is_tensorflows(hint) else {}


def _torchvision_block(place: Place, expanded: bool, squeezed: bool) -> dict[str, str]:
    own = f"features.{place.number + 1}.conv"
    names: dict[str, str] = {}
    for i, kind in enumerate(("expand", "depthwise") if expanded else ("depthwise",)):
        names |= {f"{kind}_conv": f"{own}.{i}.0", f"{kind}_bn": f"{own}.{i}.1"}
    last = 1 + expanded
    return names | {"project_conv": f"{own}.{last}", "project_bn": f"{own}.{last + 1}"}


def _torchvision_ends(stages: Sequence[int]) -> dict[str, str]:
    last = sum(stages) + 1
    return {
        "stem_conv": "features.0.0",
        "stem_bn": "features.0.1",
        "last_conv": f"features.{last}.0",
        "last_bn": f"features.{last}.1",
        "head": "classifier.1",
    }


def _huggingface_block(place: Place, expanded: bool, squeezed: bool) -> dict[str, str]:
    # The first block is part of the stem.
    own = "conv_stem" if place.number == 0 else f"layer.{place.number - 1}"
    kinds = {"expand": "expand_1x1", "depthwise": "conv_3x3", "project": "reduce_1x1"}
    names: dict[str, str] = {}
    for kind, name in kinds.items():
        names[f"{kind}_conv"] = f"mobilenet_v2.{own}.{name}.convolution"
        names[f"{kind}_bn"] = f"mobilenet_v2.{own}.{name}.normalization"
    return of_block(names, expanded, squeezed)


def _huggingface_ends(stages: Sequence[int]) -> dict[str, str]:
    stem, last = "mobilenet_v2.conv_stem.first_conv", "mobilenet_v2.conv_1x1"
    return {
        "stem_conv": f"{stem}.convolution",
        "stem_bn": f"{stem}.normalization",
        "last_conv": f"{last}.convolution",
        "last_bn": f"{last}.normalization",
        "head": "classifier",
    }


def _configure(network: Network, config: Mapping[str, Any]) -> Network:
    return network._replace(options=network.options | configured(config))


def _keras_block(place: Place, expanded: bool, squeezed: bool) -> dict[str, str]:
    own = f"block_{place.number}_" if place.number else "expanded_conv_"
    names: dict[str, str] = {}
    for kind in ("expand", "depthwise", "project"):
        names |= {f"{kind}_conv": f"{own}{kind}", f"{kind}_bn": f"{own}{kind}_BN"}
    return of_block(names, expanded, squeezed)


def _keras_ends(stages: Sequence[int]) -> dict[str, str]:
    return {
        "stem_conv": "Conv1",
        "stem_bn": "bn_Conv1",
        "last_conv": "Conv_1",
        "last_bn": "Conv_1_bn",
        "head": "predictions",
    }


def _naming(
    library: str,
    form: Form,
    rest: Callable[[str], Mapping[str, Any]] = lambda hint: {},
    preprocess: Preprocess = PREPROCESS["imagenet"],
    **others: Any,
) -> Naming:
    read = functools.partial(entries, form)
    return Naming(library, MobileNetV2, _recognise(form, rest, preprocess), read, **others)


NAMINGS = (
    _naming("torchvision", Form(_torchvision_ends, _torchvision_block, staged=False)),
    _naming(
        "timm",
        Form(timm_ends, timm_block, excluded=TIMM_V3),
        _timm_rest,
        PREPROCESS["imagenet_bicubic"],
    ),
    _naming(
        "huggingface",
        Form(_huggingface_ends, _huggingface_block, staged=False),
        lambda hint: _TENSORFLOW,
        PREPROCESS["inception"],
        canonical=prefixed("mobilenet_v2", r"conv_stem\.|layer\.|conv_1x1\."),
        configure=_configure,
    ),
    _naming(
        "keras",
        Form(_keras_ends, _keras_block, staged=False, convention=keras_arrays),
        lambda hint: _TENSORFLOW,
        PREPROCESS["inception"],
        canonical=keras_canonical,
    ),
)
