"""Step four: the cut."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ctl_jax.errors import UserError
from ctl_jax.pruning.groups import Groups
from ctl_jax.pruning.keep import Indices, Keep
from ctl_jax.pruning.paths import leaf_paths

Plan = Mapping[str, Mapping[int, Indices]]  # parameter -> axis -> positions that stay


def prune(tree: Any, groups: Groups, keep: Keep) -> Any:
    """Cuts the channels that do not stay off every array that holds them.

    A leaf is cut as a parameter if its path is, or ends in, the parameter's path: so `tree` may be
    the variables that were traced, their gradients, or an optimiser state that holds trees like
    them. Where no path fits, the tree may mirror one collection of the variables, or hold trees
    that do (`variables["params"]`, an optimiser state made from it): the parameters' first keys are
    left away. All other leaves stay as they are.

    Pure; runs under `jax.jit` and `jax.eval_shape`, too.

    Args:
      tree: a tree of arrays or `jax.ShapeDtypeStruct`.
      groups: from `trace`.
      keep: from `select` on the same groups.

    Returns:
      A tree of the same structure; leaves that are not cut are the same objects.

    Raises:
      UserError: `keep` is for other groups, no leaf is a parameter, or one has another shape than
        when traced.

    Example:
      >>> small = prune(variables, groups, keep)
      >>> logits = model.apply(small, images)  # widths follow from the parameters
    """
    sizes = {name: group.size for name, group in groups.items()}
    if keep.sizes != sizes:
        odd = next(n for n in {**sizes, **keep.sizes} if sizes.get(n) != keep.sizes.get(n))
        raise UserError(
            f"keep has {keep.sizes.get(odd)} channels of group {odd!r}, the trace has "
            f"{sizes.get(odd)}; expected a keep for these groups"
        )
    plan = _plan(groups, keep)
    leaves = leaf_paths(tree)
    owners = _owners([path for path, _ in leaves], list(groups.shapes))
    cut = []
    for (path, leaf), owner in zip(leaves, owners, strict=True):
        if owner is None:
            cut.append(leaf)
            continue
        shape = groups.shapes[owner]
        if np.shape(leaf) != shape:
            raise UserError(f"leaf {path} has shape {np.shape(leaf)}, expected {shape} of {owner}")
        cut.append(_cut(leaf, plan.get(owner, {})))
    return jax.tree.unflatten(jax.tree.structure(tree), cut)


def _plan(groups: Groups, keep: Keep) -> Plan:
    """Which positions stay, for the axes that lose some."""
    stays: dict[str, dict[int, np.ndarray]] = {}
    for name, group in groups.items():
        dropped = np.delete(np.arange(group.size), keep[name])
        if dropped.size:
            for member in group.members:
                # One axis may hold channels of several groups.
                size = groups.shapes[member.path][member.axis]
                axes = stays.setdefault(member.path, {})
                mask = axes.setdefault(member.axis, np.ones(size, bool))
                mask[member.positions[dropped]] = False
    return {
        path: {axis: np.flatnonzero(mask) for axis, mask in axes.items()}
        for path, axes in stays.items()
    }


def _owners(paths: Sequence[str], parameters: Iterable[str]) -> list[str | None]:
    """For each leaf the parameter that it belongs to, if any."""
    whole = {path: [path] for path in parameters}
    tails: dict[str, list[str]] = {}
    for path in whole:
        _, found, tail = path.partition("/")
        if found:
            tails.setdefault(tail, []).append(path)
    for known in (whole, tails):
        owners = [_owner(path, known) for path in paths]
        if any(owners):
            return owners
    raise UserError(
        f"no leaf of the tree is a parameter, expected paths that end like {next(iter(whole))!r}"
    )


def _owner(path: str, known: Mapping[str, Sequence[str]]) -> str | None:
    """The parameter that the longest ending of `path` names."""
    keys = path.split("/")
    for i in range(len(keys)):
        owners = known.get("/".join(keys[i:]), ())
        if len(owners) > 1:
            raise UserError(
                f"leaf {path} may be any of {', '.join(owners)}, expected its full path"
            )
        if owners:
            return owners[0]
    return None


def _cut(leaf: Any, stays: Mapping[int, Indices]) -> Any:
    if not stays:
        return leaf
    if isinstance(leaf, jax.ShapeDtypeStruct):
        shape = [len(stays[i]) if i in stays else n for i, n in enumerate(leaf.shape)]
        return jax.ShapeDtypeStruct(shape, leaf.dtype)
    if isinstance(leaf, np.ndarray):
        return _take(leaf, stays)
    if isinstance(leaf, jax.core.Tracer) or not leaf.sharding.is_fully_replicated:
        for axis, indices in stays.items():
            leaf = jnp.take(
                leaf, indices, axis, mode="clip", unique_indices=True, indices_are_sorted=True
            )
        return leaf
    # By the host: compiling a gather for each shape would take far longer than the copies.
    return jax.device_put(_take(np.asarray(leaf), stays), leaf.sharding if leaf.committed else None)


def _take(leaf: np.ndarray, stays: Mapping[int, Indices]) -> np.ndarray:
    for axis, indices in stays.items():
        leaf = np.take(leaf, indices, axis)
    return leaf
