"""Types of trees and arrays, and the names of a tree's leaves."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import jax
import numpy as np
import numpy.typing as npt

Tree: TypeAlias = Any  # any pytree
Variables: TypeAlias = Mapping[str, Any]  # of a network: collections by name, "params" among them
Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]


def leaf_paths(tree: Tree) -> list[tuple[str, Any]]:
    """The leaves of `tree` in its order, each with its keys joined by "/"."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]
