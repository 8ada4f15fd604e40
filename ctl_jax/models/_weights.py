"""Weights of a file into the variables of a network that is known."""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from flax import linen as nn
from flax.traverse_util import flatten_dict

from ctl_jax.errors import UserError, naming
from ctl_jax.models.heads import with_head
from ctl_jax.models.matching import Match, match, own_naming, variables_of
from ctl_jax.models.names import Arrays, Named, Naming, Network, namings, of_module
from ctl_jax.models.sources import Source, open_source

# What wrappers put before all names of the network that they hold.
_WRAPPERS = ("module.", "_orig_mod.", "backbone.", "model.", "net.", "encoder.", "student.")


def load_weights(
    path: str | os.PathLike[str], module: nn.Module, variables: Mapping[str, Any]
) -> dict[str, Any]:
    """Variables with the backbone from a file and a zero task head.

    Args:
      path: as for `load_pretrained`.
      module: the network that the weights are for.
      variables: its variables, or `jax.ShapeDtypeStruct`s for them, which say what names and
        shapes to expect; the head gets as many outputs as theirs. Our own checkpoints may be of
        other widths, where they are pruned.

    Returns:
      {"params": ..., "batch_stats": ...}; every array but the head's is from the file.

    Raises:
      UserError: a missing, damaged or unknown file; the names that are missing, unmatched or
        mis-shaped, all at once; or an array that is no float, not finite, or a variance below 0.
    """
    source = open_source(path)
    shapes = {path: leaf.shape for path, leaf in flatten_dict(variables, sep="/").items()}
    with naming(f"weights {path}"):
        found = best_match(source, module, shapes)
        return with_head(variables_of(found), variables["params"]["head"]["kernel"].shape[-1])


def best_match(source: Source, module: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> Match:
    """How a source's arrays fit a network by the naming that they fit best.

    Raises:
      UserError: by none do they fit.
    """
    if source.own:
        named = {name: Named(name, array) for name, array in source.arrays.items()}
        candidates = [match(own_naming(module), module, shapes, named, any_widths=True)]
    else:
        candidates = [
            match(known, module, shapes, known.arrays(arrays), spare=spare)
            for arrays, spare in unwrapped(source.arrays)
            for known in of_module(module)
            if not _lacking(known, module)
        ]
    best = min(candidates, key=lambda found: found.problems, default=None)
    if best is not None and not best.problems:
        return best
    others = [] if source.own else recognised(source)
    for candidate in others:
        if candidate.naming.family is type(module):
            check_required(candidate.naming, module)
    if best is None:
        raise UserError(f"no library's names of a {type(module).__name__} are known")
    raise UserError(
        f"{_looks_like(others, type(module))}{best.naming.library}'s names: {best.describe()}"
    )


def _lacking(known: Naming, module: nn.Module) -> list[str]:
    """The fields that a module does not have as all networks of a library have them."""
    return [field for field, value in known.requires.items() if getattr(module, field) != value]


def check_required(known: Naming, module: nn.Module) -> None:
    """Raises UserError where a module lacks what all networks of a library have."""
    for field in _lacking(known, module):
        raise UserError(
            f"the names are {known.library}'s, whose networks have {field} "
            f"{known.requires[field]!r}; the model's {field} is {getattr(module, field)!r}"
        )


def _looks_like(candidates: Iterable["Candidate"], but: type[nn.Module]) -> str:
    """A phrase that says which network a source seems to be of, of another family than `but`."""
    for candidate in candidates:
        if candidate.naming.family is not but:
            name, library = candidate.network.name, candidate.naming.library
            return f"it looks like {library}'s {name}; expected a {but.__name__}, but by "
    return "by "


class Candidate(NamedTuple):
    """A network that a source may be of, by a naming, and the source's arrays by that."""

    naming: Naming
    network: Network
    named: Mapping[str, Named]
    spare: Collection[str]


def recognised(source: Source) -> list[Candidate]:
    """What a source may be of, the names taken as they are or with the least taken off them."""
    for arrays, spare in unwrapped(source.arrays):
        found = []
        for known in namings():
            named = known.arrays(arrays)
            shapes = {name: each.array.shape for name, each in named.items()}
            if network := known.recognise(shapes, source.hint):
                found.append(Candidate(known, network, named, spare))
        if found:
            return found
    return []


def unwrapped(arrays: Arrays) -> Iterator[tuple[Arrays, Collection[str]]]:
    """A file's arrays, and again without what wrappers put before their names.

    Yields:
      The arrays without one prefix more each time: one that is before all names, or a wrapper's
      known one; and the names that were without it, which need be of nothing in the network.
    """
    spare: set[str] = set()
    yield arrays, spare
    while True:
        firsts = {name.partition(".")[0] + "." for name in arrays}
        known = (prefix for prefix in _WRAPPERS if prefix in firsts)
        prefix = firsts.pop() if len(firsts) == 1 else next(known, "")
        if not prefix or prefix[:-1] in arrays:
            return
        spare |= {name for name in arrays if not name.startswith(prefix)}
        arrays = {name.removeprefix(prefix): array for name, array in arrays.items()}
        yield arrays, spare
