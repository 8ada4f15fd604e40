"""MobileNetV1 in other libraries' files."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ctl_jax.models.mobilenet_v1 import OPTIONS, PRESETS, STAGES, STEM, MobileNetV1
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
    prefixed,
    scaled,
    splitter,
    timm_block,
    timm_ends,
    timm_remarks,
    width_multiplier,
)
from ctl_jax.models.preprocess import PREPROCESS


def _fits(stage: int, block: Found) -> bool:
    """Whether a block may be in a stage, numbered from 0."""
    return stage < len(STAGES) and block.size == 3 and not (block.expanded or block.squeezed)


_split = splitter((preset["stages"] for preset in PRESETS.values()), _fits)


def _recognise(
    form: Form, rest: Callable[[str], Mapping[str, Any]]
) -> Callable[[Shapes, str], Network | None]:
    """A Naming's `recognise`; `rest` gives fields that no shape tells, of the hint."""

    def recognise(shapes: Shapes, hint: str) -> Network | None:
        found = find(form, shapes, _split)
        fields = None if found is None else _fields(found)
        described = fields and describe(MobileNetV1, PRESETS, OPTIONS, {**fields, **rest(hint)})
        remarks = timm_remarks(hint) if rest is _timm_rest else ()
        return Network(*described, PREPROCESS["inception"], 224, remarks) if described else None

    return recognise


def _fields(found: Blocks) -> dict[str, Any] | None:
    blocks = [(i, block) for i, stage in enumerate(found.stages) for block in stage]
    # A single block is as much a MobileNetV2's.
    if len(blocks) < 2 or not all(_fits(*each) for each in blocks):
        return None
    bases = [STEM, *(stage.features for stage, _ in zip(STAGES, found.stages, strict=False))]
    outputs = [found.stem, *(stage[0].outputs for stage in found.stages)]
    multiplier = width_multiplier(outputs, lambda by: scaled(bases, by))
    if multiplier is None:
        return None
    last = "last_conv" in found.layers
    return {"stages": found.counts, "width_multiplier": multiplier, "last": last}


def _timm_block(place: Place, expanded: bool, squeezed: bool) -> dict[str, str]:
    names = timm_block(place, expanded, squeezed)
    return {layer.replace("project", "pointwise"): name for layer, name in names.items()}


def _timm_rest(hint: str) -> dict[str, Any]:
    return {"padding": "same", "epsilon": 1e-3} if is_tensorflows(hint) else {}


def _huggingface_block(place: Place, expanded: bool, squeezed: bool) -> dict[str, str]:
    names: dict[str, str] = {}
    for i, kind in enumerate(("depthwise", "pointwise")):
        own = f"mobilenet_v1.layer.{2 * place.number + i}"
        names |= {f"{kind}_conv": f"{own}.convolution", f"{kind}_bn": f"{own}.normalization"}
    return names


def _huggingface_ends(stages: Sequence[int]) -> dict[str, str]:
    stem = "mobilenet_v1.conv_stem"
    return {
        "stem_conv": f"{stem}.convolution",
        "stem_bn": f"{stem}.normalization",
        "head": "classifier",
    }


def _configure(network: Network, config: Mapping[str, Any]) -> Network:
    options = configured(config) | {"activation": config.get("hidden_act", "relu6")}
    return network._replace(options=network.options | options)


def _keras_block(place: Place, expanded: bool, squeezed: bool) -> dict[str, str]:
    number = place.number + 1
    return {
        "depthwise_conv": f"conv_dw_{number}",
        "depthwise_bn": f"conv_dw_{number}_bn",
        "pointwise_conv": f"conv_pw_{number}",
        "pointwise_bn": f"conv_pw_{number}_bn",
    }


def _keras_ends(stages: Sequence[int]) -> dict[str, str]:
    return {"stem_conv": "conv1", "stem_bn": "conv1_bn", "head": "conv_preds"}


def _naming(
    library: str, form: Form, rest: Callable[[str], Mapping[str, Any]], **others: Any
) -> Naming:
    read = functools.partial(entries, form)
    return Naming(library, MobileNetV1, _recognise(form, rest), read, **others)


NAMINGS = (
    _naming("timm", Form(timm_ends, _timm_block, excluded=TIMM_V3), _timm_rest),
    _naming(
        "huggingface",
        Form(_huggingface_ends, _huggingface_block, staged=False),
        lambda hint: {"padding": "same", "epsilon": 1e-3},
        canonical=prefixed("mobilenet_v1", r"conv_stem\.|layer\."),
        configure=_configure,
        requires={"last": False},
    ),
    _naming(
        "keras",
        Form(_keras_ends, _keras_block, staged=False, convention=keras_arrays, convolved=("head",)),
        lambda hint: {"padding": "end", "epsilon": 1e-3},
        canonical=keras_canonical,
        requires={"last": False},
    ),
)
