"""Checkpoints within a training: written while it goes on, verified when they are read.

FOLDER/STEP/
  state/   the bytes of all arrays, in parts
  meta/    JSON: the log so far, what the arrays are, and SHA-256 of their bytes and of itself

Orbax writes them in the background, under a temporary name until they are whole. It does not notice
damaged arrays, hence the sums; they are of the content, so that they hold whatever the files look
like. Few large parts instead of hundreds of small arrays take half the time; and a part that
can not be read leaves no others behind, whose reading would go on and complain.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers

from ctl_jax import files, home, interrupts, object_store
from ctl_jax.finetune import multihost
from ctl_jax.finetune._loop import LogEntry, Snapshot
from ctl_jax.finetune.step import TrainState
from ctl_jax.trees import Tree

T = TypeVar("T")

# Checkpoints that stay: a newest that is damaged has one before it.
KEPT = 2
# Bytes of a part; the compression that is used takes no 2 GiB.
_PART = 1 << 30
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
      checkpoint: its arrays may be on a device.

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
    if checkpoint is not None and multihost.is_first():
        content, meta = pack(checkpoint)
        text = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    text, content = multihost.bytes_of_first(text), multihost.bytes_of_first(content)
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


class Checkpoints:
    """The checkpoints of one training; a context that waits at its end for what is being written.

    Nothing is touched before there is something to read or to write, so that a training too short
    to need any costs nothing. In a group of processes one of them has them.
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, warn: Callable[[str], None] = lambda line: None
    ) -> None:
        """Does nothing yet.

        Args:
          folder: of this training alone; local, or `gs://bucket/path`. Made when it is needed.
          warn: called with a line about each checkpoint that is damaged.
        """
        name = os.fspath(folder)
        if "://" not in name:
            # Orbax wants whole paths.
            above, name = os.path.split(os.path.abspath(name))
            name = os.path.join(home.in_utf8(above), name)
        self._folder = epath.Path(name)
        self._warn = warn
        self._manager: ocp.CheckpointManager | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        if self._manager is None:
            return
        try:
            # A training that came to its end does without what could not be written.
            with self._unless_away() if error is None else contextlib.nullcontext():
                self._manager.close()
        except Exception:
            # Of two errors the first counts; but who was told to stop is told of a failure to save.
            if error is None or isinstance(error, KeyboardInterrupt):
                raise

    def exist(self) -> bool:
        """Whether there may be any, whole or not."""
        return bool(files.names(self._folder))

    def newest(self, like: Like) -> Checkpoint | None:
        """The newest checkpoint that is whole; damaged ones are removed.

        Args:
          like: gives a state of a phase of the training, whose arrays may be abstract: what is
            expected.

        Returns:
          The checkpoint, its arrays on the host; None where there is none.
        """
        if not self.exist():
            return None
        manager = self._ask(self._open)
        for step in sorted(self._ask(manager.all_steps), reverse=True):
            try:
                return self._ask(functools.partial(self._read, manager, step, like))
            except (MemoryError, object_store.Unreachable):
                raise
            except Exception as error:
                # Whatever the libraries say of bytes that they did not expect.
                reason = next(iter(str(error).splitlines()), type(error).__name__)
                self._warn(f"checkpoint {self._folder / str(step)} is damaged: {reason[:100]}")
                self._ask(functools.partial(manager.delete, step))
        return None

    def _ask(self, read: Callable[[], T]) -> T:
        """What is read; what an object store that is away does not give is not damaged."""
        if not files.is_remote(self._folder):
            return read()
        try:
            return object_store.ask(os.fspath(self._folder), lambda store: read())
        except object_store.Refused as error:
            # Of Orbax, not of the store.
            raise error.__cause__ or error from None

    @property
    def busy(self) -> bool:
        """Whether the last one is still being written."""
        return self._manager is not None and bool(self._manager.is_saving_in_progress())

    def save(self, checkpoint: Checkpoint) -> None:
        """Writes a checkpoint in the background, and then removes all but the last two.

        Args:
          checkpoint: of a later step than all that are there. Its arrays are copied: they may be
            overwritten when this returns.

        Raises:
          Exception: the one before could not be written; where an object store is away, only if
            the program was told to stop.
        """
        with self._unless_away():
            # Here, since Orbax would warn that it has to wait.
            self._open().wait_until_finished()
        with self._unless_away():
            self._write(checkpoint.step, *pack(checkpoint))

    @contextlib.contextmanager
    def _unless_away(self) -> Iterator[None]:
        """An object store that is away for a while costs a checkpoint, not the training."""
        try:
            yield
        except Exception as error:
            if interrupts.requested() or not object_store.may_pass(error):
                raise
            reason = object_store.reason(error)
            self._warn(f"a checkpoint in {self._folder} could not be written ({reason})")
            manager, self._manager = self._manager, None
            if manager is not None:
                with contextlib.suppress(Exception):
                    manager.close()

    def wait(self) -> None:
        """Returns when what was saved is in its place, or raises what went wrong with it."""
        if self._manager is not None:
            self._manager.wait_until_finished()

    def _write(self, step: int, content: np.ndarray, meta: dict[str, Any]) -> None:
        parts = {str(i): content[i : i + _PART] for i in range(0, content.size, _PART)}
        args = ocp.args.Composite(state=ocp.args.PyTreeSave(parts), meta=ocp.args.JsonSave(meta))
        self._open().save(step, args=args)

    def _read(self, manager: ocp.CheckpointManager, step: int, like: Like) -> Checkpoint:
        meta = manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
        check(meta)
        content = np.empty(meta["size"], np.uint8)
        # As numpy arrays: Orbax would ask for the devices that the arrays were saved from.
        as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
        for start in range(0, content.size, _PART):
            name = str(start)
            part = ocp.args.PyTreeRestore(
                item={name: 0}, restore_args={name: as_numpy}, partial_restore=True
            )
            found = manager.restore(step, args=ocp.args.Composite(state=part))["state"]
            content[start : start + _PART] = found[name]
        checkpoint = unpack(content, meta, like)
        if checkpoint.step != step:
            raise ValueError(f"it is of step {checkpoint.step}")
        return checkpoint

    def _open(self) -> ocp.CheckpointManager:
        if self._manager is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            me = jax.process_index()
            # In a group Orbax would wait for the others to call it too.
            alone = ocp.options.MultiprocessingOptions(
                primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"training{me}"
            )
            self._manager = ocp.CheckpointManager(
                self._folder,
                item_handlers={
                    "state": ocp.PyTreeCheckpointHandler(multiprocessing_options=alone),
                    "meta": ocp.JsonCheckpointHandler(multiprocessing_options=alone),
                },
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=checkpoint_managers.LatestN(KEPT),
                    # It is made above: Orbax does not where one process acts alone.
                    create=False,
                    cleanup_tmp_directories=True,
                    save_root_metadata=False,
                    multiprocessing_options=alone,
                ),
            )
        return self._manager
