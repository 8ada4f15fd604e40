"""Vision transformers in other libraries' files."""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from ctl_jax.models.names import (
    Arrays,
    Entry,
    Named,
    Naming,
    Network,
    Shape,
    Shapes,
    count,
    describe,
    layer_entries,
    parts,
    transposed,
    without,
)
from ctl_jax.models.preprocess import PREPROCESS, Preprocess
from ctl_jax.models.vit import OPTIONS, PRESETS, ViT

# What a library calls the parts of a ViT, by what we call them; "{}" is a block's number from 0.
# Of queries, keys and values up to "weight" and "bias".
Names = Mapping[str, str]

_TIMM = {
    "patch_conv": "patch_embed.proj",
    "class_token": "cls_token",
    "distillation_token": "dist_token",
    "registers": "reg_token",
    "position": "pos_embed",
    "block/norm1": "blocks.{}.norm1",
    "block/attention/qkv": "blocks.{}.attn.qkv.",
    "block/attention/out": "blocks.{}.attn.proj",
    "block/layer_scale1": "blocks.{}.ls1.gamma",
    "block/norm2": "blocks.{}.norm2",
    "block/mlp/fc1": "blocks.{}.mlp.fc1",
    "block/mlp/fc2": "blocks.{}.mlp.fc2",
    "block/layer_scale2": "blocks.{}.ls2.gamma",
    "norm": "norm",
    "fc_norm": "fc_norm",
    "head": "head",
    "class_head": "head",
    "distillation_head": "head_dist",
}
# Of github.com/facebookresearch/dinov2, with registers; without, its names are timm's.
_DINOV2 = {**_TIMM, "registers": "register_tokens"}

_TORCHVISION_BLOCK = "encoder.layers.encoder_layer_{}."
_TORCHVISION = {
    "patch_conv": "conv_proj",
    "class_token": "class_token",
    "position": "encoder.pos_embedding",
    "block/norm1": _TORCHVISION_BLOCK + "ln_1",
    "block/attention/qkv": _TORCHVISION_BLOCK + "self_attention.in_proj_",
    "block/attention/out": _TORCHVISION_BLOCK + "self_attention.out_proj",
    "block/norm2": _TORCHVISION_BLOCK + "ln_2",
    "block/mlp/fc1": _TORCHVISION_BLOCK + "mlp.0",
    "block/mlp/fc2": _TORCHVISION_BLOCK + "mlp.3",
    "norm": "encoder.ln",
    "head": "heads.head",
}

# Hugging Face's names start with that of the architecture, which `canonical` sees to.
_HF_BLOCK = "encoder.layer.{}."
_HUGGINGFACE = {
    "patch_conv": "embeddings.patch_embeddings.projection",
    "class_token": "embeddings.cls_token",
    "distillation_token": "embeddings.distillation_token",
    "registers": "embeddings.register_tokens",
    "position": "embeddings.position_embeddings",
    "block/norm1": _HF_BLOCK + "layernorm_before",
    "block/attention/query": _HF_BLOCK + "attention.attention.query.",
    "block/attention/key": _HF_BLOCK + "attention.attention.key.",
    "block/attention/value": _HF_BLOCK + "attention.attention.value.",
    "block/attention/out": _HF_BLOCK + "attention.output.dense",
    "block/norm2": _HF_BLOCK + "layernorm_after",
    "block/mlp/fc1": _HF_BLOCK + "intermediate.dense",
    "block/mlp/fc2": _HF_BLOCK + "output.dense",
    "norm": "layernorm",
    "head": "classifier",
    "class_head": "cls_classifier",
    "distillation_head": "distillation_classifier",
}
_HUGGINGFACE_DINOV2 = {
    **_HUGGINGFACE,
    "block/norm1": _HF_BLOCK + "norm1",
    "block/layer_scale1": _HF_BLOCK + "layer_scale1.lambda1",
    "block/norm2": _HF_BLOCK + "norm2",
    "block/mlp/fc1": _HF_BLOCK + "mlp.fc1",
    "block/mlp/fc2": _HF_BLOCK + "mlp.fc2",
    "block/layer_scale2": _HF_BLOCK + "layer_scale2.lambda1",
}

# Channels of a head in all that are called tiny, small, base and large; and the heads of the widths
# of larger ones. No shape tells.
_HEAD_WIDTH = 64
_HEADS = {1152: 16, 1280: 16, 1408: 16, 1664: 16}
_KNOWN_WIDTHS = {192, 384, 768, 1024, *_HEADS}


def _of_block(name: str) -> tuple[str, int | None]:
    """ "block2/norm1" as ("block/norm1", 1), "head" as ("head", None)."""
    match = re.fullmatch(r"block(\d+)/(.*)", name)
    return (f"block/{match[2]}", int(match[1]) - 1) if match else (name, None)


def _name(names: Names, ours: str) -> str:
    part, number = _of_block(ours)
    return names[part].format(number)


def _entries(names: Names, shapes: Shapes) -> list[Entry]:
    """A Naming's `entries`."""
    loop = {path: shape for path, shape in shapes.items() if path.startswith("params/blocks/")}
    entries = _of_parts(names, {path: shapes[path] for path in shapes if path not in loop})
    if loop:
        depth = next(iter(loop.values()))[0]
        blocks = [
            _of_parts(names, {p.replace("blocks", f"block{i}"): s[1:] for p, s in loop.items()})
            for i in range(1, depth + 1)
        ]
        entries += [parts.stacked(each) for each in zip(*blocks, strict=True)]
    return entries


def _of_parts(names: Names, shapes: Shapes) -> list[Entry]:
    """The entries of a network, or of one block, whose blocks are no loop."""
    entries, name = [], functools.partial(_name, names)
    tokens = shapes.get("params/tokens", (1, 0))[1]
    for path, shape in shapes.items():
        layer, _, array = path.removeprefix("params/").rpartition("/")
        if path == "params/tokens":
            theirs = [name(f"{token}_token") for token in ("class", "distillation")[:tokens]]
            entries.append(parts.split(path, theirs, axis=1))
        elif path == "params/position":
            entries.append(parts.position(path, name("position"), tokens))
        elif path == "params/registers" or array.startswith("layer_scale"):
            entries.append(transposed(path, name(path.removeprefix("params/"))))
        elif layer == "head" and len(shape) == (3 if array == "kernel" else 2):
            suffix = "weight" if array == "kernel" else array
            theirs = [f"{name(f'{token}_head')}.{suffix}" for token in ("class", "distillation")]
            entries.append(parts.each_token(path, theirs))
        elif layer.endswith("attention/out") and array == "kernel":
            entries.append(parts.out(path, name(layer) + ".weight"))
    for path in [path for path in shapes if "/attention/query/" in path]:
        entries += parts.attention(path, name)
    return entries + layer_entries(without(shapes, entries), name)


def _fields(names: Names, shapes: Shapes) -> dict[str, Any] | None:
    """Fields of the module that a file's shapes are of; None where they are of no ViT."""

    def shape(part: str, suffix: str = "", block: int | None = None) -> Shape:
        return shapes.get(names[part].format(block) + suffix, ()) if part in names else ()

    kernel, position = shape("patch_conv", ".weight"), shape("position")
    depth = count(lambda block: shape("block/norm1", ".weight", block), start=0)
    if len(kernel) != 4 or kernel[1] != 3 or len(position) != 3 or not depth:
        return None
    width, _, patch, _ = kernel
    tokens = bool(shape("class_token")) + bool(shape("distillation_token"))
    heads = _HEADS.get(width) or max(1, width // _HEAD_WIDTH)
    both = shape("head", ".weight")[1:] == (2 * width,)
    mean = "mean_norm" if shape("fc_norm", ".weight") else "" if tokens else "mean"
    return {
        "heads": heads,
        "head_width": width // heads,
        "depth": depth,
        "patch": patch,
        "class_token": tokens > 0,
        "distilled": tokens > 1,
        "token_position": tokens == 0 or math.isqrt(position[1]) ** 2 != position[1],
        "registers": (*shape("registers"), 0, 0)[1],
        "layer_scale": bool(shape("block/layer_scale1", "", 0)),
        "pool": mean or ("token+mean" if both else "token"),
    }


# Of a network's fields and the hint: what it expects of an image, and what of that is a guess.
Expected = Callable[[Mapping[str, Any], str], tuple[Preprocess, tuple[str, ...]]]

_INCEPTION = dataclasses.replace(PREPROCESS["inception"], interpolation="bicubic")
# Trained with ImageNet's mean and standard deviation, where no shape tells from Google's.
_IMAGENETS = re.compile(r"deit|dino|mae|moco|ibot|msn|ijepa")


def _recognise(
    names: Names, preprocess: Expected, **fixed: Any
) -> Callable[[Shapes, str], Network | None]:
    """A Naming's `recognise`; `fixed` are fields that no shape tells."""

    def recognise(shapes: Shapes, hint: str) -> Network | None:
        fields = _fields(names, shapes)
        if fields is None or (names is _DINOV2 and not fields["registers"]):
            return None
        hint = hint.lower()
        # Of equal networks the name that the hint is for.
        presets = sorted(PRESETS, key=lambda name: name.startswith("deit") != ("deit" in hint))
        described = describe(ViT, {n: PRESETS[n] for n in presets}, OPTIONS, {**fields, **fixed})
        positions = shapes[names["position"]][1]
        size = math.isqrt(positions) * fields["patch"]
        expected, guessed = preprocess(fields, hint)
        if (width := fields["heads"] * fields["head_width"]) not in _KNOWN_WIDTHS:
            guessed = (*guessed, f"{fields['heads']} heads for {width} channels")
        remarks = (
            [f"taken for granted, as nothing says it: {', '.join(guessed)}"] if guessed else []
        )
        return described and Network(*described, expected, size, tuple(remarks))

    return recognise


def _always(name: str) -> Expected:
    return lambda fields, hint: (PREPROCESS[name], ())


def _by_hint(google: Preprocess) -> Expected:
    """Google's preprocessing but for those that are known to be trained by others."""

    def preprocess(fields: Mapping[str, Any], hint: str) -> tuple[Preprocess, tuple[str, ...]]:
        if fields["distilled"] or fields["layer_scale"] or _IMAGENETS.search(hint):
            return PREPROCESS["imagenet_bicubic"], ()
        return google, () if "vit" in hint else ("mean and std 0.5",)

    return preprocess


def _recognise_huggingface(shapes: Shapes, hint: str) -> Network | None:
    dinov2 = any("layer_scale" in name for name in shapes)
    epsilon = 1e-6 if dinov2 else 1e-12
    shapes = {_BODY.sub("", name): shape for name, shape in shapes.items()}
    names = _HUGGINGFACE_DINOV2 if dinov2 else _HUGGINGFACE
    return _recognise(names, _by_hint(PREPROCESS["inception"]), epsilon=epsilon)(shapes, hint)


_BODY = re.compile(r"^(vit|deit|dinov2|dinov2_with_registers)\.")
# Names since version 5, and before.
_SINCE_5 = (
    (r"^layers\.", "encoder.layer."),
    (r"\.attention\.q_proj\.", ".attention.attention.query."),
    (r"\.attention\.k_proj\.", ".attention.attention.key."),
    (r"\.attention\.v_proj\.", ".attention.attention.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
)
_SINCE_5_VIT = ((r"\.mlp\.fc1\.", ".intermediate.dense."), (r"\.mlp\.fc2\.", ".output.dense."))


def _architecture(layer_scale: bool, registers: bool, distilled: bool) -> str:
    """What Hugging Face's names start with."""
    if layer_scale:
        return "dinov2_with_registers." if registers else "dinov2."
    return "deit." if distilled else "vit."


def _canonical(arrays: Arrays) -> dict[str, Named]:
    """Hugging Face's names before version 5, with the architecture's name before all but heads."""
    bodies = {name: _BODY.sub("", name) for name in arrays}
    dinov2 = any("layer_scale1" in name for name in arrays)
    prefix = _architecture(
        dinov2,
        "embeddings.register_tokens" in bodies.values(),
        "embeddings.distillation_token" in bodies.values(),
    )
    found = {}
    for name, body in bodies.items():
        for pattern, old in _SINCE_5 if dinov2 else _SINCE_5 + _SINCE_5_VIT:
            body = re.sub(pattern, old, body)
        of_body = re.match(r"embeddings\.|encoder\.|layernorm\.", body)
        found[prefix + body if of_body else body] = Named(name, arrays[name])
    return found


def _entries_huggingface(shapes: Shapes) -> list[Entry]:
    layer_scale = any("layer_scale1" in path for path in shapes)
    distilled = shapes.get("params/tokens", (1, 0))[1] > 1
    prefix = _architecture(layer_scale, "params/registers" in shapes, distilled)
    names = {
        part: name if part.endswith("head") else prefix + name
        for part, name in (_HUGGINGFACE_DINOV2 if layer_scale else _HUGGINGFACE).items()
    }
    return _entries(names, shapes)


def _configure_timm(network: Network, config: Mapping[str, Any]) -> Network:
    """A mean after the last norm has no names of its own."""
    if config.get("global_pool") != "avg" or network.options.get("pool", "token") != "token":
        return network
    return network._replace(options={**network.options, "pool": "mean"})


def _configure(network: Network, config: Mapping[str, Any]) -> Network:
    """Heads and epsilon, which no shape tells."""
    module = ViT(1, **{**PRESETS[network.name], **network.options})
    heads = config.get("num_attention_heads", module.heads)
    found = {
        "heads": heads,
        "head_width": module.heads * module.head_width // heads,
        "epsilon": float(config.get("layer_norm_eps", module.epsilon)),
    }
    changed = {key: value for key, value in found.items() if value != getattr(module, key)}
    return network._replace(options=network.options | changed)


def _naming(library: str, names: Names, preprocess: Expected, **others: Any) -> Naming:
    return Naming(
        library, ViT, _recognise(names, preprocess), functools.partial(_entries, names), **others
    )


_IGNORED = r"(.*\.)?mask_token|.*\.pooler\..*|pooler\..*"

NAMINGS = (
    _naming("timm", _TIMM, _by_hint(_INCEPTION), ignored=_IGNORED, configure=_configure_timm),
    _naming(
        "dinov2",
        _DINOV2,
        _always("imagenet_bicubic"),
        ignored=_IGNORED,
        requires={"layer_scale": True, "registers": 4},
    ),
    _naming(
        "torchvision",
        _TORCHVISION,
        _always("imagenet"),
        requires={"layer_scale": False, "registers": 0, "distilled": False, "pool": "token"},
    ),
    Naming(
        "huggingface",
        ViT,
        _recognise_huggingface,
        _entries_huggingface,
        ignored=_IGNORED,
        configure=_configure,
        canonical=_canonical,
    ),
)
