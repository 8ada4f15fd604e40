"""SqueezeNet in torchvision's files."""

import re
from typing import Any

from ctl_jax.models.names import (
    Entry,
    Naming,
    Network,
    Shapes,
    describe,
    kernel,
    layer_entries,
    renamer,
    without,
)
from ctl_jax.models.names.mobile import convolved
from ctl_jax.models.preprocess import PREPROCESS
from ctl_jax.models.squeezenet import OPTIONS, PRESETS, SqueezeNet

_FIRE = re.compile(r"features\.(\d+)\.squeeze\.weight")
_BLOCK = re.compile(r"params/stage(\d+)_block(\d+)/squeeze/kernel")
# Of the first fire module: a convolution, a ReLU and a pooling come before it.
_FIRST = 3


def _recognise(shapes: Shapes, hint: str) -> Network | None:
    stem = kernel(shapes, "stem_conv", lambda _: "features.0")
    squeeze = kernel(shapes, "squeeze", lambda _: f"features.{_FIRST}.squeeze")
    if len(stem) != 4 or len(squeeze) != 4:
        return None
    stages = [0]
    fires = sorted(int(match[1]) for name in shapes if (match := _FIRE.fullmatch(name)))
    for before, fire in zip([_FIRST - 1, *fires], fires, strict=False):
        # A pooling has a number, too.
        stages += [0] * (fire - before - 1)
        stages[-1] += 1
    if len(stages) > 3 or 0 in stages:
        return None
    fields: dict[str, Any] = {
        "stages": tuple(stages),
        "stem_width": stem[-1],
        "stem_size": stem[0],
        "width": squeeze[-1],
        "relu_head": "classifier.1.weight" in shapes,
    }
    described = describe(SqueezeNet, PRESETS, OPTIONS, fields)
    return described and Network(*described, PREPROCESS["imagenet"], 224)


def _entries(shapes: Shapes) -> list[Entry]:
    blocks = [(int(m[1]), int(m[2])) for path in shapes if (m := _BLOCK.fullmatch(path))]

    def fire(match: re.Match[str]) -> str:
        stage, block = int(match[1]), int(match[2])
        fires = sum(each < (stage, block) for each in blocks)
        return f"features.{_FIRST + fires + stage - 1}.{match[3]}"

    name = renamer(
        ("stem_conv", "features.0"),
        (r"stage(\d+)_block(\d+)/(\w+)", fire),
        ("head", "classifier.1"),
    )
    head = [convolved("params/head/kernel", "classifier.1.weight")]
    return head + layer_entries(without(shapes, head), name)


NAMINGS = (Naming("torchvision", SqueezeNet, _recognise, _entries),)
