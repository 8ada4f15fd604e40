"""Names and layouts of other libraries' parameters: one file a family.

A file of this folder holds `NAMINGS`, a tuple of `Naming`s: each is one library's form of one
family. It says which network a file's names and shapes are of, and which arrays of ours hold the
same numbers as which of theirs, so that it reads and writes with one table.

Example, a family whose layers the library calls "conv1" and "fc":
  >>> def entries(shapes):
  ...     name = renamer((r"stem_conv", "conv1"), (r"head", "fc"))
  ...     return layer_entries(shapes, name)
  >>> NAMINGS = (Naming("torchvision", Net, recognise, entries),)
"""

import functools
import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np

from ctl_jax.models.options import Options
from ctl_jax.models.preprocess import Preprocess

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
Arrays = Mapping[str, np.ndarray]


class Network(NamedTuple):
    """What a file is of.

    Attributes:
      name: one of `models.NAMES`.
      options: as `models.create` takes them.
      preprocess: what the library's networks of that kind expect of an image.
      image_size: side of the images that they are for, in pixels.
      remarks: what is a guess, for neither names, shapes nor the hint tell it.
    """

    name: str
    options: dict[str, Any]
    preprocess: Preprocess
    image_size: int
    remarks: tuple[str, ...] = ()


class Entry(NamedTuple):
    """Arrays of ours and of theirs that hold the same numbers.

    Attributes:
      ours: paths in our variables, "params/stem_conv/kernel".
      theirs: names in their file, one or several for those of `ours` together.
      read: (their arrays, shapes that ours are to have) -> our arrays. The shapes are the whole
        network's: those of a file may be of fewer channels, where it is pruned.
      write: our arrays -> their arrays.
      fits: whether their arrays are to have the very shapes that `write` gives; without, `read`
        makes ours of others, too (position embeddings of another size).
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    read: Callable[[Sequence[np.ndarray], Sequence[Shape]], Sequence[np.ndarray]]
    write: Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]
    fits: bool = True


class Named(NamedTuple):
    """An array of a file with the name that it has there."""

    name: str
    array: np.ndarray


def as_they_are(arrays: Arrays) -> dict[str, Named]:
    """The names of a library whose files have one form."""
    return {name: Named(name, array) for name, array in arrays.items()}


def _unconfigured(network: Network, config: Mapping[str, Any]) -> Network:
    return network


# What PyTorch and its tools count beside the weights.
_COUNTERS = r".*\.(num_batches_tracked|total_ops|total_params)|(total_ops|total_params)"


@dataclass(frozen=True)
class Naming:
    """One library's names of one family.

    Attributes:
      library: "timm", "torchvision", "huggingface", "keras", ...
      family: the class of our module.
      recognise: (shapes of the file's arrays by name, hint) -> the network; None where the names
        are of another. Names are canonical, BatchNorms may be missing (folded into convolutions),
        so may be the last stages and the classifier. The hint is the file's name and, where there
        is one, config.json's architecture: for what no shape tells.
      entries: shapes of our variables by path -> what belongs together, all of them. The paths are
        "params/LAYER/ARRAY" and "batch_stats/LAYER/ARRAY"; widths may be pruned.
      ignored: a pattern of their names that hold nothing a network computes with, beside counters.
      requires: fields that our module must have, for the library's networks all have them.
      configure: (network, content of Hugging Face's config.json) -> the network by what it says.
      canonical: brings the forms of a library's files to one, see `as_they_are` and `keras`.
    """

    library: str
    family: type[nn.Module]
    recognise: Callable[[Shapes, str], Network | None]
    entries: Callable[[Shapes], list[Entry]]
    ignored: str = ""
    requires: Mapping[str, Any] = field(default_factory=dict)
    configure: Callable[[Network, Mapping[str, Any]], Network] = _unconfigured
    canonical: Callable[[Arrays], dict[str, Named]] = as_they_are

    def arrays(self, arrays: Arrays) -> dict[str, Named]:
        """A file's arrays by canonical name, but for those that a network computes nothing with."""
        ignored = re.compile(f"{_COUNTERS}|{self.ignored}" if self.ignored else _COUNTERS)
        found = self.canonical(arrays)
        return {name: each for name, each in found.items() if not ignored.fullmatch(each.name)}


@functools.cache
def namings() -> tuple[Naming, ...]:
    """All that there are, those of a family in a row and its likeliest library first."""
    found: list[Naming] = []
    for module in sorted(info.name for info in pkgutil.iter_modules(__path__)):
        found += getattr(importlib.import_module(f"{__name__}.{module}"), "NAMINGS", ())
    return tuple(found)


def of_module(module: nn.Module, library: str = "") -> list[Naming]:
    """The namings of a module's family; of them those of one library, where it is given."""
    return [
        naming
        for naming in namings()
        if type(module) is naming.family and library in ("", naming.library)
    ]


def write(naming: Naming, variables: Arrays) -> dict[str, np.ndarray]:
    """A network's arrays by a library's names, in its layout.

    Args:
      naming: of the network's family.
      variables: arrays by path, "params/stem_conv/kernel", of any widths.
    """
    found: dict[str, np.ndarray] = {}
    for entry in naming.entries({path: array.shape for path, array in variables.items()}):
        arrays = entry.write([np.asarray(variables[path]) for path in entry.ours])
        found |= zip(entry.theirs, map(np.ascontiguousarray, arrays), strict=True)
    return found


# Of a layer's array: (array, its number of axes, whether the layer is a norm, whether each channel
# has its own kernel) -> what stands behind the layer's name, and how ours is transposed to theirs.
Convention = Callable[[str, int, bool, bool], tuple[str, tuple[int, ...] | None]]


def torch_arrays(
    array: str, ndim: int, norm: bool, depthwise: bool
) -> tuple[str, tuple[int, ...] | None]:
    """PyTorch's: kernels [outputs, inputs, height, width] and [outputs, inputs]."""
    if array == "kernel":
        return ".weight", {4: (3, 2, 0, 1), 2: (1, 0)}[ndim]
    return {"scale": ".weight", "bias": ".bias", "mean": ".running_mean", "var": ".running_var"}[
        array
    ], None


def keras_arrays(
    array: str, ndim: int, norm: bool, depthwise: bool
) -> tuple[str, tuple[int, ...] | None]:
    """Keras's, canonical: kernels as ours, but depthwise ones [height, width, channels, 1]."""
    if array == "kernel":
        return ("/depthwise_kernel", (0, 1, 3, 2)) if depthwise else ("/kernel", None)
    names = {"scale": "gamma", "mean": "moving_mean", "var": "moving_variance"}
    return "/" + ("beta" if norm and array == "bias" else names.get(array, array)), None


def layer_entries(
    shapes: Shapes, name: Callable[[str], str], convention: Convention = torch_arrays
) -> list[Entry]:
    """An entry for each array: convolutions, dense layers, BatchNorms and layer norms.

    Args:
      shapes: of our arrays, those that are not like that left out.
      name: their name of our layer, "stage1_block1/conv1".
      convention: how the library calls a layer's arrays and has its kernels. A layer whose name
        contains "depthwise" is a depthwise convolution.
    """
    entries = []
    for path, shape in shapes.items():
        layer, _, array = path.partition("/")[2].rpartition("/")
        norm = f"params/{layer}/scale" in shapes
        suffix, axes = convention(array, len(shape), norm, "depthwise" in layer)
        entries.append(transposed(path, name(layer) + suffix, axes))
    return entries


def kernel(
    shapes: Shapes, layer: str, name: Callable[[str], str], convention: Convention = torch_arrays
) -> Shape:
    """The shape that our kernel of a layer has by a file; () where it has none.

    Args:
      shapes: of the file's arrays by name.
      layer: ours, "stage1_block1/conv1".
      name, convention: as for `layer_entries`.

    Returns:
      [height, width, inputs, outputs] or [inputs, outputs].
    """
    for ndim in (4, 2):
        suffix, axes = convention("kernel", ndim, False, "depthwise" in layer)
        shape = shapes.get(name(layer) + suffix, ())
        if len(shape) == ndim:
            return shape if axes is None else tuple(shape[axes.index(i)] for i in range(ndim))
    return ()


def transposed(ours: str, theirs: str, axes: tuple[int, ...] | None = None) -> Entry:
    """One array for one, whose axes may be in another order: theirs is `ours.transpose(axes)`."""
    if axes is None:
        return Entry((ours,), (theirs,), lambda arrays, _: arrays, lambda arrays: arrays)
    back = tuple(map(axes.index, range(len(axes))))
    return Entry(
        (ours,),
        (theirs,),
        lambda arrays, _: [arrays[0].transpose(back)],
        lambda arrays: [arrays[0].transpose(axes)],
    )


def reshaped(ours: str, theirs: str, to_theirs: Callable[[Shape], Shape]) -> Entry:
    """One array for one of the same order and another shape, such as [C] and [C, 1, 1]."""
    return Entry(
        (ours,),
        (theirs,),
        lambda arrays, shapes: [arrays[0].reshape(_inferred(shapes[0]))],
        lambda arrays: [arrays[0].reshape(to_theirs(arrays[0].shape))],
    )


def _inferred(shape: Shape) -> Shape:
    """A shape whose channels, the longest axis, are as many as there are."""
    longest = max(range(len(shape)), key=lambda axis: shape[axis])
    return tuple(-1 if axis == longest else size for axis, size in enumerate(shape))


Rule = tuple[str, str | Callable[[re.Match[str]], str]]


def renamer(*rules: Rule) -> Callable[[str], str]:
    """A function of a name by rules: (pattern, template or function of the match).

    The first rule whose pattern is the whole name applies.

    Raises:
      KeyError: by the function, of a name that no rule is for.

    Example:
      >>> renamer(("head", "fc"), (r"stage(\\d+)", lambda m: f"layer{int(m[1]) - 1}"))("stage2")
      'layer1'
    """
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in rules]

    def rename(name: str) -> str:
        for pattern, replacement in compiled:
            if match := pattern.fullmatch(name):
                return (
                    match.expand(replacement)
                    if isinstance(replacement, str)
                    else replacement(match)
                )
        raise KeyError(name)

    return rename


def count(is_there: Callable[[int], object], start: int = 1) -> int:
    """How many consecutive numbers, from `start` on, are there.

    Example:
      >>> count(lambda i: f"layer{i}.0.conv1.weight" in shapes)
      4
    """
    number = start
    while is_there(number):
        number += 1
    return number - start


def describe(
    family: type[nn.Module],
    presets: Mapping[str, Mapping[str, Any]],
    options: Options,
    found: Mapping[str, Any],
) -> tuple[str, dict[str, Any]] | None:
    """The preset that fields of a module are nearest to, and the options that make up the rest.

    Args:
      family: the class of the module.
      presets: its fields by name.
      options: fields that may be set.
      found: fields of the network; those that are not here are as the preset has them.

    Returns:
      (name, options); None where no preset with any options has those fields.
    """
    defaults = {f.name: f.default if f.default is not MISSING else None for f in fields(family)}
    best: tuple[tuple[int, int], str, dict[str, Any]] | None = None
    for name, preset in presets.items():
        full = {**defaults, **preset}
        other = {key: value for key, value in found.items() if full[key] != value}
        if not other.keys() <= options.keys():
            continue
        # Of a truncated network the one that it is the beginning of.
        alike = zip(full.get("stages") or (), found.get("stages") or (), strict=False)
        rank = (len(other), -sum(1 for a, b in alike if a == b))
        if best is None or rank < best[0]:
            best = (rank, name, other)
    return best and best[1:]


def without(shapes: Shapes, entries: Iterable[Entry]) -> dict[str, Shape]:
    """The shapes of our arrays that no entry has."""
    taken = {path for entry in entries for path in entry.ours}
    return {path: shape for path, shape in shapes.items() if path not in taken}
