"""EfficientNets in other libraries' files."""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ctl_jax.models.efficientnet import OPTIONS, PRESETS, STAGES, STEM, EfficientNet
from ctl_jax.models.names import (
    Naming,
    Network,
    Shapes,
    describe,
    keras_arrays,
)
from ctl_jax.models.names.keras import canonical as keras_canonical
from ctl_jax.models.names.mobile import (
    TIMM_V3,
    Blocks,
    Form,
    Found,
    Place,
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
    torchvision_block,
    width_multiplier,
)
from ctl_jax.models.preprocess import PREPROCESS, Preprocess

_BICUBIC = "imagenet_bicubic"

# Sides of the images that each was trained or is tested on.
_SIZES = {
    "efficientnet_b1": 240,
    "efficientnet_b2": 260,
    "efficientnet_b3": 300,
    "efficientnet_b4": 380,
    "efficientnet_lite1": 240,
    "efficientnet_lite2": 260,
    "efficientnet_lite3": 280,
    "efficientnet_lite4": 300,
}
_TIMM_SIZES = _SIZES | {"efficientnet_lite3": 300, "efficientnet_lite4": 380}
_TIMM_OWN_SIZES = _TIMM_SIZES | {
    "efficientnet_b2": 256,
    "efficientnet_b3": 288,
    "efficientnet_b4": 320,
}
_TORCHVISION_SIZES = _SIZES | {"efficientnet_b2": 288}

# Fields that no shape tells, what is expected of images, and their sizes: of (hint, Lite or not).
_Rest = tuple[dict[str, Any], Preprocess, Mapping[str, int]]
_TENSORFLOW = {"padding": "same", "epsilon": 1e-3}


def _of_timm(hint: str, lite: bool) -> _Rest:
    if not is_tensorflows(hint):
        name = "inception" if "ra4_" in hint else _BICUBIC
        return {}, _bicubic(name), _TIMM_OWN_SIZES
    name = "inception" if lite or re.search(r"[._]ap(?![a-z])", hint) else _BICUBIC
    return _TENSORFLOW, _bicubic(name), _TIMM_SIZES


def _of_torchvision(hint: str, lite: bool) -> _Rest:
    return {}, PREPROCESS[_BICUBIC], _TORCHVISION_SIZES


def _of_efficientnet_pytorch(hint: str, lite: bool) -> _Rest:
    name = "inception" if "adv" in hint.lower() else _BICUBIC
    return _TENSORFLOW, PREPROCESS["lite" if lite else name], _SIZES


def _of_others(hint: str, lite: bool) -> _Rest:
    return _TENSORFLOW, PREPROCESS[_BICUBIC], _SIZES


def _bicubic(name: str) -> Preprocess:
    return dataclasses.replace(PREPROCESS[name], interpolation="bicubic")


def _fits(stage: int, block: Found) -> bool:
    """Whether a block may be in a stage, numbered from 0."""
    return (
        stage < len(STAGES)
        and block.size == STAGES[stage].size
        and block.expanded == (STAGES[stage].expansions != (1,))
    )


_split = splitter((preset["stages"] for preset in PRESETS.values()), _fits)


def _recognise(
    form: Form, rest: Callable[[str, bool], _Rest]
) -> Callable[[Shapes, str], Network | None]:
    def recognise(shapes: Shapes, hint: str) -> Network | None:
        found = find(form, shapes, _split)
        fields = None if found is None else _fields(found)
        if found is None or fields is None:
            return None
        others, preprocess, sizes = rest(hint, not fields["squeeze"])
        described = describe(EfficientNet, PRESETS, OPTIONS, fields | others)
        if described is None:
            return None
        size = sizes.get(described[0], 224)
        return Network(*described, preprocess, size, timm_remarks(hint) if rest is _of_timm else ())

    return recognise


def _fields(found: Blocks) -> dict[str, Any] | None:
    """Fields of the module that shapes tell; None where it is another network."""
    blocks = [(i, block) for i, stage in enumerate(found.stages) for block in stage]
    squeezed = {block.squeezed for _, block in blocks}
    # Of fewer stages a Lite is no other than a MobileNetV2.
    if not all(_fits(*each) for each in blocks) or len(squeezed) > 1:
        return None
    squeeze = squeezed == {True}
    if not squeeze and len(found.stages) < 3:
        return None
    outputs = [stage[0].outputs for stage in found.stages]
    bases = [stage.features for stage, _ in zip(STAGES, outputs, strict=False)]
    # The stem of a Lite is not scaled.
    multiplier = width_multiplier(
        [found.stem, *outputs],
        lambda by: [*(scaled([STEM], by) if squeeze else [STEM]), *scaled(bases, by)],
    )
    if multiplier is None:
        return None
    return {
        "stages": found.counts,
        "width_multiplier": multiplier,
        "activation": "silu" if squeeze else "relu6",
        "squeeze": squeeze,
        "fixed_ends": not squeeze,
        "last": "last_conv" in found.layers,
    }


def _torchvision_block(place: Place, expanded: bool, squeezed: bool) -> dict[str, str]:
    own = f"features.{place.stage}.{place.block - 1}.block"
    return torchvision_block(own, expanded, squeezed)


def _torchvision_ends(stages: Sequence[int]) -> dict[str, str]:
    last = len(stages) + 1
    return {
        "stem_conv": "features.0.0",
        "stem_bn": "features.0.1",
        "last_conv": f"features.{last}.0",
        "last_bn": f"features.{last}.1",
        "head": "classifier.1",
    }


def _pytorch_block(place: Place, expanded: bool, squeezed: bool) -> dict[str, str]:
    own = f"_blocks.{place.number}"
    names = {
        "expand_conv": f"{own}._expand_conv",
        "expand_bn": f"{own}._bn0",
        "depthwise_conv": f"{own}._depthwise_conv",
        "depthwise_bn": f"{own}._bn1",
        "squeeze": f"{own}._se_reduce",
        "excite": f"{own}._se_expand",
        "project_conv": f"{own}._project_conv",
        "project_bn": f"{own}._bn2",
    }
    return of_block(names, expanded, squeezed)


def _pytorch_ends(stages: Sequence[int]) -> dict[str, str]:
    return {
        "stem_conv": "_conv_stem",
        "stem_bn": "_bn0",
        "last_conv": "_conv_head",
        "last_bn": "_bn1",
        "head": "_fc",
    }


def _huggingface_block(place: Place, expanded: bool, squeezed: bool) -> dict[str, str]:
    own = f"efficientnet.encoder.blocks.{place.number}"
    names = {
        "expand_conv": f"{own}.expansion.expand_conv",
        "expand_bn": f"{own}.expansion.expand_bn",
        "depthwise_conv": f"{own}.depthwise_conv.depthwise_conv",
        "depthwise_bn": f"{own}.depthwise_conv.depthwise_norm",
        "squeeze": f"{own}.squeeze_excite.reduce",
        "excite": f"{own}.squeeze_excite.expand",
        "project_conv": f"{own}.projection.project_conv",
        "project_bn": f"{own}.projection.project_bn",
    }
    return of_block(names, expanded, squeezed)


def _huggingface_ends(stages: Sequence[int]) -> dict[str, str]:
    return {
        "stem_conv": "efficientnet.embeddings.convolution",
        "stem_bn": "efficientnet.embeddings.batchnorm",
        "last_conv": "efficientnet.encoder.top_conv",
        "last_bn": "efficientnet.encoder.top_bn",
        "head": "classifier",
    }


def _keras_block(place: Place, expanded: bool, squeezed: bool) -> dict[str, str]:
    own = f"block{place.stage}{chr(ord('a') + place.block - 1)}_"
    names = {
        "expand_conv": f"{own}expand_conv",
        "expand_bn": f"{own}expand_bn",
        "depthwise_conv": f"{own}dwconv",
        "depthwise_bn": f"{own}bn",
        "squeeze": f"{own}se_reduce",
        "excite": f"{own}se_expand",
        "project_conv": f"{own}project_conv",
        "project_bn": f"{own}project_bn",
    }
    return of_block(names, expanded, squeezed)


def _keras_ends(stages: Sequence[int]) -> dict[str, str]:
    return {
        "stem_conv": "stem_conv",
        "stem_bn": "stem_bn",
        "last_conv": "top_conv",
        "last_bn": "top_bn",
        "head": "predictions",
    }


def _configure(network: Network, config: Mapping[str, Any]) -> Network:
    """By Hugging Face's config.json: which blocks of stride 2 are padded on both sides."""
    options = network.options | {"epsilon": float(config.get("batch_norm_eps", 1e-3))}
    if config.get("depthwise_padding") == []:
        options["padding"] = "end"
    return network._replace(options=options)


def _naming(library: str, form: Form, rest: Callable[[str, bool], _Rest], **others: Any) -> Naming:
    recognise = _recognise(form, rest)
    return Naming(library, EfficientNet, recognise, functools.partial(entries, form), **others)


NAMINGS = (
    _naming("timm", Form(timm_ends, timm_block, excluded=TIMM_V3), _of_timm),
    _naming(
        "torchvision",
        Form(_torchvision_ends, _torchvision_block),
        _of_torchvision,
        requires={"squeeze": True},
    ),
    _naming(
        "efficientnet_pytorch",
        Form(_pytorch_ends, _pytorch_block, staged=False),
        _of_efficientnet_pytorch,
    ),
    _naming(
        "huggingface",
        Form(_huggingface_ends, _huggingface_block, staged=False),
        _of_others,
        canonical=prefixed("efficientnet", "embeddings|encoder"),
        configure=_configure,
        requires={"squeeze": True},
    ),
    _naming(
        "keras",
        Form(_keras_ends, _keras_block, convention=keras_arrays),
        _of_others,
        canonical=keras_canonical,
        # Its normalisation is part of the network; see `_of_others` for ours.
        ignored=r"(.*/)?(normalization|rescaling)(_\d+)?[./].*",
        requires={"squeeze": True},
    ),
)
