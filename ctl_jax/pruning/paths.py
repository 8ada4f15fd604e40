"""Names for the leaves of a tree."""

from typing import Any

import jax


def leaf_paths(tree: Any) -> list[tuple[str, Any]]:
    """The leaves of `tree` in its order, each with its keys joined by "/"."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]
