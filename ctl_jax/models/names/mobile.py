"""Names that networks of depthwise blocks have in common (MobileNets, EfficientNets)."""

import functools
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ctl_jax.models.layers import make_divisible
from ctl_jax.models.names import (
    Arrays,
    Convention,
    Entry,
    Named,
    Shape,
    Shapes,
    kernel,
    layer_entries,
    torch_arrays,
    without,
)

_BLOCK = re.compile(r"params/(stage(\d+)_block(\d+))/.*")


class Place(NamedTuple):
    """Where a block is: its stage and its number there, from 1, and in the network, from 0."""

    stage: int
    block: int
    number: int


class Form(NamedTuple):
    """A library's names of the layers of a network.

    Attributes:
      ends: blocks of each stage -> their names of our layers outside of blocks.
      block: (place, whether it has a first 1x1 convolution, whether it has squeeze and excitation)
        -> their names of our layers in it.
      staged: their names tell the stage of a block, not only its number.
      convention: see `layer_entries`.
      convolved: our Dense layers that are 1x1 convolutions there.
      excluded: a pattern of names that another network has whose other names are of this form.
    """

    ends: Callable[[Sequence[int]], Mapping[str, str]]
    block: Callable[[Place, bool, bool], Mapping[str, str]]
    staged: bool = True
    convention: Convention = torch_arrays
    convolved: tuple[str, ...] = ()
    excluded: str = r"(?!)"


class Found(NamedTuple):
    """A block of a file: the side of its depthwise kernels, its channels, and what it has."""

    size: int
    inputs: int
    outputs: int
    expanded: bool
    squeezed: bool


class Blocks(NamedTuple):
    """A network of a file.

    Attributes:
      stem: outputs of its first convolution.
      stages: the blocks of each stage.
      layers: outputs of our layers outside of blocks that it has.
    """

    stem: int
    stages: tuple[tuple[Found, ...], ...]
    layers: Mapping[str, int]

    @property
    def counts(self) -> tuple[int, ...]:
        """How many blocks each stage has."""
        return tuple(map(len, self.stages))


def entries(form: Form, shapes: Shapes) -> list[Entry]:
    """A Naming's `entries`."""
    matches = [match for path in shapes if (match := _BLOCK.fullmatch(path))]
    places = sorted({(int(match[2]), int(match[3])): match[1] for match in matches}.items())
    names: dict[str, str] = {}
    for number, ((stage, block), ours) in enumerate(places):
        expanded, squeezed = (
            f"params/{ours}/{layer}/kernel" in shapes for layer in ("expand_conv", "squeeze")
        )
        theirs = form.block(Place(stage, block, number), expanded, squeezed)
        names |= {f"{ours}/{layer}": name for layer, name in theirs.items()}
    names |= form.ends(
        [len(list(each)) for _, each in itertools.groupby(places, lambda p: p[0][0])]
    )
    special = [
        convolved(
            f"params/{layer}/kernel", names[layer] + form.convention("kernel", 4, False, False)[0]
        )
        for layer in form.convolved
        if f"params/{layer}/kernel" in shapes
    ]
    rest = without(shapes, special)
    return special + layer_entries(rest, names.__getitem__, form.convention)


def convolved(ours: str, theirs: str) -> Entry:
    """A dense kernel of ours that is a 1x1 convolution's [outputs, inputs, 1, 1] there."""
    return Entry(
        (ours,),
        (theirs,),
        lambda arrays, _: [arrays[0][:, :, 0, 0].T],
        lambda arrays: [arrays[0].T[:, :, None, None]],
    )


def find(
    form: Form, shapes: Shapes, split: Callable[[Sequence[Found]], Sequence[int]] | None = None
) -> Blocks | None:
    """The network of a file; None where its names are not of this form.

    Args:
      form: the library's names.
      shapes: of the file's arrays.
      split: blocks one after another -> how many of them are of each stage; for a form whose names
        do not tell.
    """
    shape = functools.partial(_kernel, shapes, form.convention)
    stem = shape(form.ends(())["stem_conv"])
    if len(stem) != 4 or any(re.fullmatch(form.excluded, name) for name in shapes):
        return None
    stages: list[tuple[Found, ...]] = []
    for stage in itertools.count(1):
        before = sum(map(len, stages))
        places = (Place(stage, j + 1, before + j) for j in itertools.count())
        found = tuple(itertools.takewhile(bool, (_find(form, shapes, p) for p in places)))
        if not found:
            break
        stages.append(found)  # type: ignore[arg-type]
    if not stages:
        return None
    if not form.staged and split is not None:
        blocks = iter(stages[0])
        stages = [tuple(itertools.islice(blocks, count)) for count in split(stages[0])]
    ends = form.ends(tuple(map(len, stages)))
    there = {layer: kernel[-1] for layer, name in ends.items() if (kernel := shape(name))}
    return Blocks(stem[-1], tuple(stages), there)


def _find(form: Form, shapes: Shapes, place: Place) -> Found | None:
    if not form.staged and place.stage > 1:
        return None
    shape = functools.partial(_kernel, shapes, form.convention)
    for expanded, squeezed in itertools.product((True, False), repeat=2):
        names = form.block(place, expanded, squeezed)
        if ("expand_conv" in names, "squeeze" in names) != (expanded, squeezed):
            continue
        kernels = {layer: shape(name, layer) for layer, name in names.items() if _convolves(layer)}
        if all(kernels.values()):
            depthwise, first, last = kernels["depthwise_conv"], *_ends(kernels)
            return Found(depthwise[0], first, last, expanded, squeezed)
    return None


def _ends(kernels: Mapping[str, Shape]) -> tuple[int, int]:
    """Inputs and outputs of a block."""
    inputs = (
        kernels["expand_conv"][-2] if "expand_conv" in kernels else kernels["depthwise_conv"][-1]
    )
    last = "project_conv" if "project_conv" in kernels else "pointwise_conv"
    return inputs, kernels[last][-1]


def _convolves(layer: str) -> bool:
    return layer.endswith("_conv") or layer in ("squeeze", "excite")


def _kernel(shapes: Shapes, convention: Convention, name: str, layer: str = "") -> Shape:
    return kernel(shapes, layer, lambda _: name, convention)


def splitter(
    presets: Iterable[Sequence[int]], fits: Callable[[int, Found], bool]
) -> Callable[[Sequence[Found]], tuple[int, ...]]:
    """A `split` of `find`: by a known network, or by where widths change.

    Args:
      presets: blocks of each stage of known networks.
      fits: whether a block may be in a stage, numbered from 0.
    """
    known = sorted(
        {tuple(stages[:n]) for stages in presets for n in range(len(stages), 0, -1)}, key=len
    )

    def split(blocks: Sequence[Found]) -> tuple[int, ...]:
        for counts in reversed(known):
            if sum(counts) == len(blocks) and _agree(blocks, counts, fits):
                return counts
        counts_by_width: list[int] = []
        for block in blocks:
            stage = len(counts_by_width) - 1
            if stage < 0 or block.inputs != block.outputs or not fits(stage, block):
                counts_by_width.append(0)
            counts_by_width[-1] += 1
        return tuple(counts_by_width)

    return split


def _agree(
    blocks: Sequence[Found], counts: Sequence[int], fits: Callable[[int, Found], bool]
) -> bool:
    """Whether blocks may be these many of each stage: all but the first of one are residual."""
    rest = iter(blocks)
    for stage, count in enumerate(counts):
        mine = list(itertools.islice(rest, count))
        if not all(fits(stage, block) for block in mine):
            return False
        if any(block.inputs != block.outputs for block in mine[1:]):
            return False
    return True


# Multipliers that networks are published with come first.
_MULTIPLIERS = (
    1.0, 0.25, 0.35, 0.5, 0.75, 1.1, 1.2, 1.25, 1.3, 1.4, 1.5, 2.0,
    *(n / 20 for n in range(1, 81)),
)  # fmt: skip


def width_multiplier(found: Sequence[int], at: Callable[[float], Sequence[int]]) -> float | None:
    """The multiplier of a network's widths.

    Args:
      found: the width of its stem and of each stage.
      at: those of a multiplier.

    Returns:
      The first known one that gives just those, or all but the stem's, which some networks scale
      otherwise; else, of a pruned network, the least that gives no narrower ones, 1 before others;
      None where there is none.
    """
    widths = {multiplier: list(at(multiplier)) for multiplier in _MULTIPLIERS}
    for start in (0, 1):
        for multiplier, full in widths.items():
            if full[start:] == list(found[start:]):
                return multiplier
    wide = [
        multiplier
        for multiplier, full in widths.items()
        if all(w >= f for w, f in zip(full, found, strict=True))
    ]
    return 1.0 if 1.0 in wide else min(wide, default=None)


def scaled(widths: Sequence[int], multiplier: float) -> list[int]:
    """Widths times a multiplier, as the networks round them."""
    return [make_divisible(width * multiplier) for width in widths]


def of_block(names: Mapping[str, str], expanded: bool, squeezed: bool) -> dict[str, str]:
    """The names of those layers that a block has."""
    missing = [*(() if expanded else ("expand_conv", "expand_bn"))]
    missing += () if squeezed else ("squeeze", "excite")
    return {layer: name for layer, name in names.items() if layer not in missing}


def prefixed(prefix: str, start: str) -> Callable[[Arrays], dict[str, Named]]:
    """A Naming's `canonical`: a network alone, without a classifier, lacks the prefix.

    Args:
      prefix: of the names of a network with a classifier, "mobilenet_v1".
      start: a pattern of how names of the network alone begin.
    """

    def canonical(arrays: Arrays) -> dict[str, Named]:
        return {
            f"{prefix}.{name}" if re.match(start, name) else name: Named(name, array)
            for name, array in arrays.items()
        }

    return canonical


def timm_block(place: Place, expanded: bool, squeezed: bool) -> dict[str, str]:
    """timm's names of a block, the same in all of these networks."""
    own = f"blocks.{place.stage - 1}.{place.block - 1}"
    kinds = ("expand", "depthwise", "project") if expanded else ("depthwise", "project")
    convs = ("conv_pw", "conv_dw", "conv_pwl") if expanded else ("conv_dw", "conv_pw")
    names = {f"{kind}_conv": f"{own}.{conv}" for kind, conv in zip(kinds, convs, strict=True)}
    names |= {f"{kind}_bn": f"{own}.bn{i}" for i, kind in enumerate(kinds, start=1)}
    if squeezed:
        names |= {"squeeze": f"{own}.se.conv_reduce", "excite": f"{own}.se.conv_expand"}
    return names


def timm_ends(stages: Sequence[int]) -> dict[str, str]:
    """timm's names of the layers outside of blocks."""
    return {
        "stem_conv": "conv_stem",
        "stem_bn": "bn1",
        "last_conv": "conv_head",
        "last_bn": "bn2",
        "head": "classifier",
    }


def torchvision_block(own: str, expanded: bool, squeezed: bool) -> dict[str, str]:
    """torchvision's names of a block whose layers are one list, as in its later networks."""
    kinds = ["expand"] * expanded + ["depthwise"] + ["squeeze"] * squeezed + ["project"]
    names: dict[str, str] = {}
    for i, kind in enumerate(kinds):
        if kind == "squeeze":
            names |= {"squeeze": f"{own}.{i}.fc1", "excite": f"{own}.{i}.fc2"}
        else:
            names |= {f"{kind}_conv": f"{own}.{i}.0", f"{kind}_bn": f"{own}.{i}.1"}
    return names


# Of a MobileNetV3's last convolution.
TIMM_V3 = r"blocks\.\d+\.\d+\.conv\.weight"


def timm_remarks(hint: str) -> tuple[str, ...]:
    """What is a guess of networks by timm's names, which those of TensorFlow's weights are, too."""
    if re.search("(efficient|mobile)net", hint.lower()):
        return ()
    return (
        "padding and epsilon are taken to be timm's own, since no name says whose weights these "
        "are; TensorFlow's (tf_...) have the options padding='same' and epsilon=1e-3",
    )


def is_tensorflows(hint: str) -> bool:
    """Whether timm's name says that the weights, and so padding and epsilon, are TensorFlow's."""
    return re.search(r"(?<![a-z])tf_", hint.lower()) is not None


def configured(config: Mapping[str, Any]) -> dict[str, Any]:
    """Padding and epsilon of a MobileNetV1 or V2 by Hugging Face's config.json."""
    return {
        "padding": "same" if config.get("tf_padding", True) else "symmetric",
        "epsilon": float(config.get("layer_norm_eps", 1e-3)),
    }
