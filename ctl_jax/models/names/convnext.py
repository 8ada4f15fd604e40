"""ConvNeXts in other libraries' files."""

import functools
import re
from collections.abc import Callable

from ctl_jax.models.convnext import OPTIONS, PRESETS, ConvNeXt
from ctl_jax.models.names import (
    Arrays,
    Entry,
    Named,
    Naming,
    Network,
    Shapes,
    as_they_are,
    count,
    describe,
    kernel,
    layer_entries,
    renamer,
    reshaped,
    transposed,
    without,
)
from ctl_jax.models.preprocess import PREPROCESS


def _names(
    stem: tuple[str, str],
    halving: tuple[str, str],
    block: tuple[str, str, str, str, str, str],
    end: tuple[str, str],
) -> Callable[[str], str]:
    """A function of our layers' names to a library's.

    Args:
      stem: the convolution and the norm.
      halving: the norm and the convolution before a stage; numbers as in `block`.
      block: what stands before the names of its parts, and the depthwise convolution, the norm,
        both dense layers and the layer scale. "{0}" and "{1}" are the numbers of stage and block
        from 0, "{2}" and "{3}" those of the stage where what halves before it counts, too.
      end: the last norm and the classifier.
    """

    def numbered(template: str) -> Callable[[re.Match[str]], str]:
        def name(match: re.Match[str]) -> str:
            stage, inside = (int(number) - 1 for number in match.group(1, match.lastindex or 1))
            return template.format(stage, inside, 2 * stage, 2 * stage + 1)

        return name

    parts = ("depthwise", "norm", "mlp/fc1", "mlp/fc2", "layer_scale")
    return renamer(
        *zip(("stem_conv", "stem_norm", "norm", "head"), (*stem, *end), strict=True),
        (r"stage(\d+)_norm", numbered(halving[0])),
        (r"stage(\d+)_conv", numbered(halving[1])),
        *(
            (rf"stage(\d+)_block(\d+)/{ours}", numbered(block[0] + theirs))
            for ours, theirs in zip(parts, block[1:], strict=True)
        ),
    )


_TIMM = _names(
    ("stem.0", "stem.1"),
    ("stages.{0}.downsample.0", "stages.{0}.downsample.1"),
    ("stages.{0}.blocks.{1}.", "conv_dw", "norm", "mlp.fc1", "mlp.fc2", "gamma"),
    ("head.norm", "head.fc"),
)
# Of github.com/facebookresearch/ConvNeXt.
_FACEBOOK = _names(
    ("downsample_layers.0.0", "downsample_layers.0.1"),
    ("downsample_layers.{0}.0", "downsample_layers.{0}.1"),
    ("stages.{0}.{1}.", "dwconv", "norm", "pwconv1", "pwconv2", "gamma"),
    ("norm", "head"),
)
_TORCHVISION = _names(
    ("features.0.0", "features.0.1"),
    ("features.{2}.0", "features.{2}.1"),
    ("features.{3}.{1}.", "block.0", "block.2", "block.3", "block.5", "layer_scale"),
    ("classifier.0", "classifier.2"),
)
_HUGGINGFACE = _names(
    ("convnext.embeddings.patch_embeddings", "convnext.embeddings.layernorm"),
    (
        "convnext.encoder.stages.{0}.downsampling_layer.0",
        "convnext.encoder.stages.{0}.downsampling_layer.1",
    ),
    (
        "convnext.encoder.stages.{0}.layers.{1}.",
        *("dwconv", "layernorm", "pwconv1", "pwconv2", "layer_scale_parameter"),
    ),
    ("convnext.layernorm", "classifier"),
)


def _entries(library: str, name: Callable[[str], str], shapes: Shapes) -> list[Entry]:
    """A Naming's `entries`."""
    entries = []
    of_convolutions = library == "timm" and _mlps_are_convolutions(
        lambda block: f"params/stage1_block{block}/norm/scale" in shapes
    )
    for path in shapes:
        layer, _, array = path.removeprefix("params/").rpartition("/")
        if array == "layer_scale":
            theirs = name(f"{layer}/{array}")
            if library == "torchvision":
                entries.append(reshaped(path, theirs, lambda shape: (*shape, 1, 1)))
            else:
                entries.append(transposed(path, theirs))
        elif of_convolutions and "/mlp/" in path and array == "kernel":
            entries.append(_dense_as_conv(path, name(layer) + ".weight"))
    return entries + layer_entries(without(shapes, entries), name)


def _mlps_are_convolutions(has_block: Callable[[int], bool]) -> bool:
    """Whether timm has kernels [outputs, inputs, 1, 1]: in those of two blocks in the first stage.

    These are atto to nano.
    """
    return has_block(2) and not has_block(3)


def _dense_as_conv(ours: str, theirs: str) -> Entry:
    return Entry(
        (ours,),
        (theirs,),
        lambda arrays, _: [arrays[0][:, :, 0, 0].T],
        lambda arrays: [arrays[0].T[:, :, None, None]],
    )


def _of_timm(arrays: Arrays) -> dict[str, Named]:
    """Dense layers as the convolutions, or the dense layers, that timm has in such a network."""
    of_convolutions = _mlps_are_convolutions(
        lambda block: f"stages.0.blocks.{block - 1}.norm.weight" in arrays
    )
    found = {}
    for name, array in arrays.items():
        if re.fullmatch(r"stages\.\d+\.blocks\.\d+\.mlp\.fc[12]\.weight", name):
            array = array.reshape(*array.shape[:2], *((1, 1) if of_convolutions else ()))
        found[name] = Named(name, array)
    return found


def _of_huggingface(arrays: Arrays) -> dict[str, Named]:
    """The network alone, without a classifier, has its names without "convnext."."""
    return {
        f"convnext.{name}" if re.match(r"embeddings|encoder|layernorm", name) else name: Named(
            name, array
        )
        for name, array in arrays.items()
    }


def _recognise(
    name: Callable[[str], str], preprocess: str
) -> Callable[[Shapes, str], Network | None]:
    """A Naming's `recognise`."""

    def recognise(shapes: Shapes, hint: str) -> Network | None:
        def blocks(stage: int) -> int:
            return count(lambda block: kernel(shapes, f"stage{stage}_block{block}/depthwise", name))

        stem, stages = kernel(shapes, "stem_conv", name), count(blocks)
        if stem[:3] != (4, 4, 3) or not stages:
            return None
        fields = {
            "stages": tuple(blocks(stage + 1) for stage in range(stages)),
            "width": stem[-1],
            "layer_scale": name("stage1_block1/layer_scale") in shapes,
            "last_norm": f"{name('norm')}.weight" in shapes,
        }
        described = describe(ConvNeXt, PRESETS, OPTIONS, fields)
        return described and Network(*described, PREPROCESS[preprocess], 224)

    return recognise


def _naming(
    library: str,
    name: Callable[[str], str],
    preprocess: str,
    canonical: Callable[[Arrays], dict[str, Named]] = as_they_are,
) -> Naming:
    entries = functools.partial(_entries, library, name)
    return Naming(library, ConvNeXt, _recognise(name, preprocess), entries, canonical=canonical)


NAMINGS = (
    _naming("timm", _TIMM, "imagenet_bicubic", _of_timm),
    _naming("torchvision", _TORCHVISION, "imagenet"),
    _naming("facebook", _FACEBOOK, "imagenet_bicubic"),
    _naming("huggingface", _HUGGINGFACE, "imagenet_bicubic", _of_huggingface),
)
