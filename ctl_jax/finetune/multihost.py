"""Messages between the processes of a group, besides gradients.

Each process calls these functions at the same points. A process of its own is a group of one, in
which they cost nothing.
"""

import itertools
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from ctl_jax import interrupts
from ctl_jax.finetune import sharding
from ctl_jax.trees import Tree

# Numbers every look at `stop_requested` of this process, and so of its group.
_looks = itertools.count(1)
# Bytes that go round at once: lengths are int32.
_PART = 1 << 28


def is_first() -> bool:
    """Whether this process is the one of its group that reads and writes the run's folder."""
    return jax.process_index() == 0


def of_first(number: int) -> int:
    """The first process's number (an int32), in all of them."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.broadcast_one_to_all(np.array([number], np.int32))[0])


def bytes_of_first(content: np.ndarray | None) -> np.ndarray | None:
    """The first process's bytes, uint8 [size], or its None, in all of them."""
    if jax.process_count() == 1:
        return content
    parts = of_first(-1 if content is None else -(-len(content) // _PART))
    if parts < 0:
        return None
    got = []
    for index in range(parts):
        part = content[index * _PART : (index + 1) * _PART] if content is not None else None
        size = of_first(0 if part is None else len(part))
        given = np.zeros(size, np.uint8) if part is None else part
        got.append(np.asarray(multihost_utils.broadcast_one_to_all(given)))
    return np.concatenate([np.zeros(0, np.uint8), *got])


def tree_of_first(tree: Tree, like: Tree) -> Tree:
    """The first process's arrays, bit for bit, in all of them.

    Args:
      tree: of the first process; not looked at in the others.
      like: a tree of the same structure, shapes and types; abstract arrays do.

    Returns:
      The tree, on the host. In one process, `tree` as it is.
    """
    if jax.process_count() == 1:
        return tree
    first = jax.tree.leaves(tree) if is_first() else None
    leaves = []
    # As bytes: a broadcast is a sum with zeros, which would lose the sign of a float's zero.
    for index, leaf in enumerate(jax.tree.leaves(like)):
        content = None
        if first is not None:
            content = np.frombuffer(np.asarray(first[index]).tobytes(), np.uint8)
        got = bytes_of_first(content)
        assert got is not None
        leaves.append(np.frombuffer(got.tobytes(), leaf.dtype).reshape(leaf.shape))
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def json_of_first(value: Any) -> Any:
    """The first process's plain value, in all of them."""
    if jax.process_count() == 1:
        return value
    content = np.frombuffer(json.dumps(value).encode(), np.uint8) if is_first() else None
    got = bytes_of_first(content)
    assert got is not None
    return json.loads(got.tobytes())


def arrays_of_first(arrays: Mapping[str, np.ndarray] | None) -> Mapping[str, np.ndarray]:
    """The first process's arrays by name, bit for bit, in all of them.

    Args:
      arrays: of the first process; not looked at in the others.
    """
    about = arrays and [[name, each.dtype.name, each.shape] for name, each in arrays.items()]
    about = json_of_first(about)
    like = {name: jax.ShapeDtypeStruct(shape, dtype) for name, dtype, shape in about}
    found: Mapping[str, np.ndarray] = tree_of_first(arrays, like)
    return found


def stop_requested() -> bool:
    """Whether the group is to stop here: some process of it got a signal.

    Returns:
      The same in all processes of the group; in a group true once.
    """
    return sharding.agree_to_stop(interrupts.requested(), next(_looks))
