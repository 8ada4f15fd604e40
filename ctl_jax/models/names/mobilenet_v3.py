"""MobileNetV3 in other libraries' files."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ctl_jax.models.mobilenet_v3 import OPTIONS, PRESETS, STAGES, MobileNetV3, Variant, stem_width
from ctl_jax.models.names import Naming, Network, Shapes, describe
from ctl_jax.models.names.mobile import (
    Form,
    Found,
    Place,
    entries,
    find,
    is_tensorflows,
    scaled,
    splitter,
    timm_block,
    timm_ends,
    timm_remarks,
    torchvision_block,
    width_multiplier,
)
from ctl_jax.models.preprocess import PREPROCESS, Preprocess


def _fits(variant: Variant, minimal: bool, stage: int, block: Found) -> bool:
    """Whether a block may be in a stage, numbered from 0."""
    table = STAGES[variant]
    if stage >= len(table) or block.expanded != (stage > 0):
        return False
    if minimal:
        return block.size == 3 and not block.squeezed
    return block.size == table[stage].size and block.squeezed == table[stage].squeeze


def _recognise(
    form: Form, rest: Callable[[str], tuple[dict[str, Any], Preprocess]]
) -> Callable[[Shapes, str], Network | None]:
    """A Naming's `recognise`; `rest` gives what no shape tells, of the hint."""

    def recognise(shapes: Shapes, hint: str) -> Network | None:
        variants = [
            fields
            for minimal in (False, True)
            for preset in PRESETS.values()
            if (fields := _fields(form, shapes, preset, minimal))
        ]
        if not variants:
            return None
        # Without their squeeze and excitation both are alike but for the number of blocks.
        whole = [fields for fields in variants if fields["stages"] == _stages(fields["variant"])]
        others, preprocess = rest(hint)
        described = describe(MobileNetV3, PRESETS, OPTIONS, (whole or variants)[0] | others)
        remarks = timm_remarks(hint) if rest is _of_timm else ()
        return described and Network(*described, preprocess, 224, remarks)

    return recognise


def _stages(variant: Variant) -> tuple[int, ...]:
    stages: tuple[int, ...] = PRESETS[f"mobilenet_v3_{variant}"]["stages"]
    return stages


def _fields(
    form: Form, shapes: Shapes, preset: Mapping[str, Any], minimal: bool
) -> dict[str, Any] | None:
    """Fields of the module that shapes tell, were it a form of one variant; None if it is not."""
    variant: Variant = preset["variant"]
    fits = functools.partial(_fits, variant, minimal)
    found = find(form, shapes, splitter([preset["stages"]], fits))
    if found is None:
        return None
    blocks = [(i, block) for i, stage in enumerate(found.stages) for block in stage]
    # Without a last convolution, of these families only this has both kinds of blocks.
    own = "last_conv" in found.layers or len({block.squeezed for _, block in blocks}) == 2
    if not own or not all(fits(*each) for each in blocks):
        return None
    outputs = [stage[0].outputs for stage in found.stages]
    bases = [stage.features for stage, _ in zip(STAGES[variant], outputs, strict=False)]
    multiplier = width_multiplier(
        [found.stem, *outputs], lambda by: [stem_width(by), *scaled(bases, by)]
    )
    if multiplier is None:
        return None
    return {
        "variant": variant,
        "stages": found.counts,
        "width_multiplier": multiplier,
        "minimal": minimal,
        "last": "last_conv" in found.layers,
    }


def _timm_ends(stages: Sequence[int]) -> dict[str, str]:
    last = f"blocks.{len(stages)}.0"
    return timm_ends(stages) | {
        "last_conv": f"{last}.conv",
        "last_bn": f"{last}.bn1",
        "last_dense": "conv_head",
    }


def _of_timm(hint: str) -> tuple[dict[str, Any], Preprocess]:
    if is_tensorflows(hint):
        return {"padding": "same", "epsilon": 1e-3}, PREPROCESS["inception"]
    return {"epsilon": 1e-5}, PREPROCESS["inception" if "ra4_" in hint else "imagenet"]


def _torchvision_block(place: Place, expanded: bool, squeezed: bool) -> dict[str, str]:
    return torchvision_block(f"features.{place.number + 1}.block", expanded, squeezed)


def _torchvision_ends(stages: Sequence[int]) -> dict[str, str]:
    last = sum(stages) + 1
    return {
        "stem_conv": "features.0.0",
        "stem_bn": "features.0.1",
        "last_conv": f"features.{last}.0",
        "last_bn": f"features.{last}.1",
        "last_dense": "classifier.0",
        "head": "classifier.3",
    }


def _of_torchvision(hint: str) -> tuple[dict[str, Any], Preprocess]:
    return {}, PREPROCESS["imagenet"]


_TIMM = Form(_timm_ends, timm_block, convolved=("last_dense",))
_TORCHVISION = Form(_torchvision_ends, _torchvision_block, staged=False)

NAMINGS = (
    Naming("timm", MobileNetV3, _recognise(_TIMM, _of_timm), functools.partial(entries, _TIMM)),
    Naming(
        "torchvision",
        MobileNetV3,
        _recognise(_TORCHVISION, _of_torchvision),
        functools.partial(entries, _TORCHVISION),
    ),
)
