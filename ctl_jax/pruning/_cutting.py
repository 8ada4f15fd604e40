"""Step four: the cut."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ctl_jax.errors import UserError
from ctl_jax.pruning._arrays import cut_all
from ctl_jax.pruning._groups import Groups
from ctl_jax.pruning._keep import Keep
from ctl_jax.pruning._layout import Layout
from ctl_jax.trees import leaf_paths


def prune(tree: Any, groups: Groups, keep: Keep) -> Any:
    """Cuts the channels that do not stay off every array that holds them.

    A leaf is cut as a parameter if its path is, or ends in, the parameter's path: so `tree` may be
    the variables that were traced, their gradients, or an optimiser state that holds trees like
    them. Where no path fits, the tree may mirror one collection of the variables, or hold trees
    that do (`variables["params"]`, an optimiser state made from it): the parameters' first keys are
    left away. All other leaves stay as they are, and so do scalars.

    Pure; runs under `jax.jit`, `jax.vmap` and `jax.eval_shape`, too. On abstract arrays it takes no
    memory, whatever their size. Host arrays, and those of a CPU or an accelerator that are not
    large, are cut in the host's memory, so that nothing is compiled.

    Arrays that are split over devices stay so, by the same `PartitionSpec`. Where a cut dimension
    is no multiple of its mesh axes any more, the last of these are left away from the spec.

    Args:
      tree: a tree of arrays of NumPy or JAX, or of `jax.ShapeDtypeStruct`.
      groups: from `trace`.
      keep: from `select` on the same groups, or on those of another trace of the same structure.

    Returns:
      A tree of the same structure, types, dtypes and placement; leaves that are not cut are the
      same objects.

    Raises:
      UserError: `keep` is for another layout (the first difference is named), no leaf is a
        parameter, or one has another shape than when traced.

    Example:
      >>> small = prune(variables, groups, keep)
      >>> logits = model.apply(small, images)  # widths follow from the parameters
      >>> state = prune(state, groups, keep)  # the optimiser's, as far as it is trained
    """
    keep.check(groups)
    leaves: list[Any]
    treedef: Any
    leaves, treedef = jax.tree.flatten(tree)
    owners = _owners_of(tree, treedef, groups.layout)
    cut = []
    for i, owner in enumerate(owners):
        if owner is None:
            continue
        shape, expected = np.shape(leaves[i]), groups.shapes[owner]
        if shape != expected and shape != ():
            path, _ = leaf_paths(tree)[i]
            raise UserError(f"leaf {path} has shape {shape}, expected {expected} of {owner}")
        if shape and owner in keep.positions:
            cut.append(i)
    stays = [keep.positions[owner] for i in cut if (owner := owners[i]) is not None]
    for i, leaf in zip(cut, cut_all([leaves[i] for i in cut], stays), strict=True):
        leaves[i] = leaf
    return treedef.unflatten(leaves)


def _owners_of(tree: Any, treedef: Any, layout: Layout) -> Sequence[str | None]:
    """`_owners` of the leaves of `tree`; the same trees are pruned over and over."""
    try:
        known = layout.owners.get(treedef)
    except TypeError:  # a tree with static parts that have no hash
        return _owners([path for path, _ in leaf_paths(tree)], layout.shapes)
    if known is None:
        known = _owners([path for path, _ in leaf_paths(tree)], layout.shapes)
        if len(layout.owners) >= 8:
            layout.owners.clear()
        layout.owners[treedef] = known
    return known


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
