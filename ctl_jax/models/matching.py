"""Arrays of a file into a network's variables, by the names of a library or by our own."""

import dataclasses
import difflib
import functools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.errors import FlaxError
from flax.traverse_util import flatten_dict, unflatten_dict

from ctl_jax.errors import UserError
from ctl_jax.models.functional import apply, init
from ctl_jax.models.names import Entry, Named, Naming, Shape, Shapes, transposed

_HEAD = "params/head/"
# So many names of a kind are listed.
_LISTED = 20


@dataclasses.dataclass
class Match:
    """How arrays of a file fit a network, by a naming.

    Attributes:
      naming: by which.
      named: the file's arrays by canonical name.
      shapes: of our variables by path; the head has as many outputs as the file's.
      entries: what is to be read.
      folded: paths of our BatchNorms that are folded into convolutions -> the name of the bias that
        is theirs, or None where the convolution has one here, too.
      epsilon: of the network's BatchNorms.
      missing, unmatched, misshapen: what does not fit.
      remarks: what was done that is not plain.
    """

    naming: Naming
    named: Mapping[str, Named]
    shapes: dict[str, Shape]
    entries: list[Entry]
    folded: dict[str, str | None]
    epsilon: float
    missing: list[str]
    unmatched: list[str]
    misshapen: list[str]
    remarks: list[str]

    @property
    def problems(self) -> int:
        """How many names do not fit."""
        return len(self.missing) + len(self.unmatched) + len(self.misshapen)

    def describe(self) -> str:
        """All that does not fit, in one line."""
        parts = []
        for title, names, others in (
            ("missing", self.missing, self.unmatched),
            ("of nothing in the network", self.unmatched, self.missing),
        ):
            if names:
                parts.append(f"{len(names)} {title}: {_listed(names, others)}")
        if self.misshapen:
            parts.append(f"{len(self.misshapen)} mis-shaped: {_listed(self.misshapen)}")
        return "; ".join(parts)


def _listed(names: Sequence[str], others: Sequence[str] = ()) -> str:
    shown = []
    for name in names[:_LISTED]:
        near = difflib.get_close_matches(name, others, 1)
        shown.append(f"{name} (nearest: {near[0]})" if near else name)
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


@functools.lru_cache(maxsize=64)
def shapes_of(module: nn.Module, image_size: int) -> dict[str, Shape]:
    """Shapes of a network's variables by path, "params/stem_conv/kernel"."""
    variables = jax.eval_shape(lambda key: init(module, key, image_size), jax.random.key(0))
    return {path: leaf.shape for path, leaf in flatten_dict(variables, sep="/").items()}


def own_naming(module: nn.Module) -> Naming:
    """Our own names of a network's arrays: their paths in its variables."""
    return Naming(
        "ctl_jax",
        type(module),
        lambda shapes, hint: None,
        lambda shapes: [transposed(path, path) for path in shapes],
    )


def match(
    naming: Naming,
    module: nn.Module,
    shapes: Shapes,
    named: Mapping[str, Named],
    *,
    any_widths: bool = False,
    spare: Collection[str] = (),
) -> Match:
    """How the arrays of a file fit a network.

    Args:
      naming: of the network's family.
      module: the network.
      shapes: of the network's variables, see `shapes_of`; the head's outputs follow from the file.
      named: the file's arrays by canonical name, those that are to be ignored left out.
      spare: names that may be of nothing in the network: they are said in the remarks.
      any_widths: channels may differ from the network's: the arrays are of a pruned one.
    """
    entries = naming.entries(shapes)
    expected = {name for entry in entries for name in entry.theirs}
    heads = [entry for entry in entries if entry.ours[0].startswith(_HEAD)]
    if heads and not any(name in named for entry in heads for name in entry.theirs):
        entries = [entry for entry in entries if entry not in heads]
        expected -= {name for entry in heads for name in entry.theirs}
    shapes = _with_outputs(shapes, heads, named)
    folded = _folded(entries, shapes, named)
    norms = tuple(f"{layer}/" for layer in folded)
    if norms:
        gone = [e for e in entries if e.ours[0].partition("/")[2].startswith(norms)]
        entries = [entry for entry in entries if entry not in gone]
        expected -= {name for entry in gone for name in entry.theirs}
    known = expected | {name for name in folded.values() if name}
    epsilon = getattr(module, "epsilon", 0.0)
    found = Match(naming, named, shapes, entries, folded, epsilon, [], [], [], [])
    found.missing = sorted(expected - named.keys())
    unmatched = sorted(named[name].name for name in named.keys() - known)
    found.unmatched = [name for name in unmatched if name not in spare]
    if passed := [name for name in unmatched if name in spare]:
        found.remarks.append(f"{len(passed)} other arrays were passed over: {_listed(passed)}")
    for entry in entries:
        if all(name in named for name in entry.theirs):
            _check_shapes(found, entry, any_widths)
    found.misshapen.sort()
    if folded:
        found.remarks.append(f"{len(folded)} BatchNorms were folded into convolutions")
    return found


def _with_outputs(
    shapes: Shapes, heads: Iterable[Entry], named: Mapping[str, Named]
) -> dict[str, Shape]:
    """The shapes with as many outputs of the head as the file has."""

    def wider(outputs: int) -> dict[str, Shape]:
        return {
            path: (*shape[:-1], outputs) if path.rpartition("/")[0] + "/" == _HEAD else shape
            for path, shape in shapes.items()
        }

    for entry in heads:
        one, two = (
            entry.write(zeros([wider(outputs)[path] for path in entry.ours]))[0].shape
            for outputs in (1, 2)
        )
        if entry.theirs[0] in named and named[entry.theirs[0]].array.ndim == len(one):
            shape = named[entry.theirs[0]].array.shape
            return wider(max(n for n, a, b in zip(shape, one, two, strict=True) if a != b))
    return dict(shapes)


def zeros(shapes: Sequence[Shape]) -> list[np.ndarray]:
    """Arrays that take no memory."""
    return [np.broadcast_to(np.float32(0), shape) for shape in shapes]


def _folded(
    entries: Iterable[Entry], shapes: Shapes, named: Mapping[str, Named]
) -> dict[str, str | None]:
    """BatchNorms that a file lacks though their convolutions have biases: see `Match`."""
    theirs = {path: entry.theirs[0] for entry in entries for path in entry.ours}
    found: dict[str, str | None] = {}
    for path in theirs:
        layer = path.removeprefix("batch_stats/").removesuffix("/var")
        if not path.startswith("batch_stats/") or not path.endswith("/var"):
            continue
        arrays = [f"params/{layer}/scale", f"params/{layer}/bias", f"batch_stats/{layer}/mean"]
        if any(theirs[each] in named for each in (path, *arrays) if each in theirs):
            continue
        for conv in _convolutions(layer):
            kernel = theirs.get(f"params/{conv}/kernel", "")
            bias = re.sub(r"(weight|kernel|depthwise_kernel)$", "bias", kernel)
            if kernel in named and bias in named:
                found[layer] = None if f"params/{conv}/bias" in shapes else bias
                break
    return found


def _convolutions(norm: str) -> list[str]:
    """Layers that a BatchNorm may follow, the likeliest first.

    A block's first BatchNorm stands before its first convolution in a DenseNet.
    """
    same = re.sub(r"bn(\d*)$", r"conv\1", norm)
    before = re.sub(r"bn(\d+)$", lambda m: f"conv{int(m[1]) - 1}", norm)
    return [same, before]


def _check_shapes(found: Match, entry: Entry, any_widths: bool) -> None:
    """Writes into a match which arrays of an entry have another shape."""
    wanted = [found.shapes[path] for path in entry.ours]
    theirs = entry.write(zeros(wanted))
    named = [found.named[name] for name in entry.theirs]
    differing = [
        f"{name} has shape {array.shape}; expected {other.shape}"
        for (name, array), other in zip(named, theirs, strict=True)
        if array.shape != other.shape
    ]
    if not differing:
        return
    same_axes = all(a.ndim == other.ndim for (_, a), other in zip(named, theirs, strict=True))
    if same_axes and any_widths and _of_other_widths(entry, named, wanted):
        return
    if same_axes and not entry.fits:
        found.remarks += [text.replace("expected", "it was resized to") for text in differing]
    else:
        found.misshapen += differing


def _of_other_widths(entry: Entry, named: Sequence[Named], wanted: Sequence[Shape]) -> bool:
    """Whether arrays differ from what is wanted in channels alone."""
    theirs = [array for _, array in named]
    try:
        ours = entry.read(theirs, wanted)
        # What is not to fit is as it was where reading it changed nothing.
        if not entry.fits and [a.shape for a in entry.write(ours)] != [a.shape for a in theirs]:
            return False
    except ValueError:
        return False
    # Of four axes are kernels of convolutions, and those of heads of blocks that are a loop.
    convolutions = all(array.ndim == 4 for array in theirs)
    return all(
        array.ndim == len(shape)
        and (not (convolutions and array.ndim == 4) or array.shape[:2] == shape[:2])
        for array, shape in zip(ours, wanted, strict=True)
    )


def variables_of(found: Match) -> dict[str, Any]:
    """The variables that a match without problems reads; a head that the file lacks is zero.

    Raises:
      UserError: an array that is no float, not finite as float32, or a variance below 0.
    """
    flat: dict[str, np.ndarray] = {}
    for entry in found.entries:
        arrays = [
            _checked(found.named[name], "/var" in "".join(entry.ours)) for name in entry.theirs
        ]
        wanted = [found.shapes[path] for path in entry.ours]
        flat |= zip(entry.ours, entry.read(arrays, wanted), strict=True)
    for layer, bias in found.folded.items():
        flat |= _identity(layer, found.named[bias] if bias else None, found)
    for path, shape in found.shapes.items():
        if path not in flat:
            flat[path] = np.zeros(shape, np.float32)
    return unflatten(flat)


def _identity(layer: str, bias: Named | None, found: Match) -> dict[str, np.ndarray]:
    """A BatchNorm that in evaluation changes nothing but to add the convolution's bias."""
    channels = found.shapes[f"batch_stats/{layer}/var"]
    added = np.zeros(channels, np.float32) if bias is None else _checked(bias, False)
    ones = np.ones(added.shape, np.float32)
    arrays = {
        f"params/{layer}/scale": ones,
        f"params/{layer}/bias": added,
        f"batch_stats/{layer}/mean": np.zeros_like(ones),
        f"batch_stats/{layer}/var": ones - np.float32(found.epsilon),
    }
    return {path: array for path, array in arrays.items() if path in found.shapes}


def _checked(named: Named, is_variance: bool) -> np.ndarray:
    """An array as float32, if it is one that a network can have."""
    name, array = named
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise UserError(f"{name} has dtype {array.dtype}; expected a float")
    with np.errstate(over="ignore"):
        array = array.astype(np.float32, copy=False)
    if not np.isfinite(array).all():
        raise UserError(f"{name} holds NaN or infinity as float32; expected finite numbers")
    if is_variance and (array < 0).any():
        raise UserError(f"{name} holds {array.min()}; expected variances of at least 0")
    return array


def unflatten(flat: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """{"params": ..., "batch_stats": ...} on the device; the latter may be empty."""
    # In one call: with jnp.asarray of each a third of loading went into calls.
    arrays = jax.device_put({path: np.ascontiguousarray(array) for path, array in flat.items()})
    return {"batch_stats": {}, **unflatten_dict(arrays, sep="/")}


def check_widths(module: nn.Module, variables: Mapping[str, Any], image_size: int) -> None:
    """Raises UserError where layers' widths do not fit one another, which no shape alone tells."""
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    try:
        jax.eval_shape(functools.partial(apply, module), variables, images)
    except (TypeError, ValueError, FlaxError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"its widths do not fit one another ({reason})") from None
