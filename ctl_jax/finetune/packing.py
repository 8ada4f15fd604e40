"""A training at some moment as bytes and JSON, with sums that tell whether they are whole."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from ctl_jax.finetune import group
from ctl_jax.finetune.loop import LogEntry, Snapshot
from ctl_jax.finetune.step import TrainState
from ctl_jax.trees import Tree

# Raised when what is packed changes; others are not read.
_FORMAT = 2


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A training at some moment, and what its owner remembers of it.

    Attributes:
      snapshot: as `fit` takes it to go on.
      best: parameters and statistics that were the best so far on dev; None where none are kept.
      notes: plain values that JSON holds, the owner's own.
    """

    snapshot: Snapshot
    best: Tree | None = None
    notes: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def step(self) -> int:
        """Updates made so far, in all phases."""
        return self.snapshot.step


def pack(checkpoint: Checkpoint) -> tuple[np.ndarray, dict[str, Any]]:
    """Takes a checkpoint apart.

    Args:
      checkpoint: its arrays may lie on a device.

    Returns:
      The bytes of all arrays one after the other, copied to the host, uint8 [size]; and the rest as
      JSON values: what the arrays are, the log, and SHA-256 of the bytes and of itself.
    """
    state, history, wall_s, phase, before = checkpoint.snapshot
    named = _named(state._replace(key=jax.random.key_data(state.key)), checkpoint.best)
    arrays = [np.asarray(leaf) for leaf in jax.device_get(list(named.values()))]
    parts = [np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in arrays]
    content = np.concatenate(parts)
    meta = {
        "format": _FORMAT,
        "step": checkpoint.step,
        "has_best": checkpoint.best is not None,
        "key_impl": str(jax.random.key_impl(state.key)),
        "history": [list(entry) for entry in history],
        "wall_s": wall_s,
        "phase": phase,
        "before": before,
        "notes": checkpoint.notes,
        "arrays": _described(dict(zip(named, arrays, strict=True))),
        "size": content.size,
        "content": hashlib.sha256(content.data).hexdigest(),
    }
    return content, {**meta, "sha256": _sum(meta)}


def check(meta: Any) -> None:
    """Raises ValueError unless `meta` is what `pack` made, unchanged."""
    if not isinstance(meta, dict) or meta.get("format") != _FORMAT:
        raise ValueError(f"expected format {_FORMAT}")
    if meta.get("sha256") != _sum({k: v for k, v in meta.items() if k != "sha256"}):
        raise ValueError("its log is not what was written")


# Gives a state of a training's phase, by its number; the arrays may be abstract.
Like = Callable[[int], TrainState]


def unpack(content: np.ndarray, meta: dict[str, Any], like: Like) -> Checkpoint:
    """Puts together what `pack` took apart.

    Args:
      content: uint8 [size].
      meta: checked before.
      like: gives states of the same training.

    Returns:
      The checkpoint, its arrays on the host, and its PRNG key on the default device.

    Raises:
      ValueError: the bytes are not those of `meta`, or the arrays not those of such a state.
    """
    if hashlib.sha256(content.data).hexdigest() != meta["content"]:
        raise ValueError("its arrays are not what was written")
    # A snapshot has no `start`.
    abstract = like(meta["phase"])._replace(start=None)
    key_data = jax.eval_shape(jax.random.key_data, abstract.key)
    best_like = {"params": abstract.params, "batch_stats": abstract.batch_stats}
    expected = _named(abstract._replace(key=key_data), best_like if meta["has_best"] else None)
    if meta["arrays"] != _described(expected):
        raise ValueError("its arrays are those of another network or optimiser")
    arrays, end = [], 0
    for leaf in expected.values():
        start, end = end, end + leaf.size * leaf.dtype.itemsize
        arrays.append(content[start:end].view(leaf.dtype).reshape(leaf.shape))
    count = len(jax.tree.leaves(abstract))
    state = jax.tree.unflatten(jax.tree.structure(abstract), arrays[:count])
    state = state._replace(key=jax.random.wrap_key_data(state.key, impl=meta["key_impl"]))
    best = None
    if meta["has_best"]:
        best = jax.tree.unflatten(jax.tree.structure(best_like), arrays[count:])
    history = tuple(LogEntry(*entry) for entry in meta["history"])
    snapshot = Snapshot(state, history, meta["wall_s"], meta["phase"], meta["before"])
    return Checkpoint(snapshot, best, meta["notes"])


def share(checkpoint: Checkpoint | None, like: Like) -> Checkpoint | None:
    """Gives every process of a group what its first one has.

    Args:
      checkpoint: of the first process; not looked at in the others.
      like: as for `unpack`.

    Returns:
      The first process's checkpoint, bit for bit. In one process, `checkpoint` as it is.
    """
    if jax.process_count() == 1:
        return checkpoint
    content = text = None
    if checkpoint is not None and group.is_first():
        content, meta = pack(checkpoint)
        text = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    text, content = group.bytes_of_first(text), group.bytes_of_first(content)
    if text is None or content is None:
        return None
    return unpack(content, json.loads(text.tobytes()), like)


def _named(state: TrainState, best: Tree | None) -> dict[str, Any]:
    """All leaves by their paths, in the order of the tree: the state's, then the best's."""
    leaves = jax.tree_util.tree_leaves_with_path((state, best))
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def _described(named: Mapping[str, Any]) -> list[list[Any]]:
    return [[name, list(leaf.shape), np.dtype(leaf.dtype).name] for name, leaf in named.items()]


def _sum(meta: dict[str, Any]) -> str:
    # As it reads back: JSON has no tuples.
    text = json.dumps(json.loads(json.dumps(meta)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
