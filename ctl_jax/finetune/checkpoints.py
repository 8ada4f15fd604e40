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
import functools
import os
import types
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers

from ctl_jax import files, home, interrupts, object_store
from ctl_jax.finetune.packing import Checkpoint, Like, check, pack, unpack

T = TypeVar("T")

# Checkpoints that stay: a newest that is damaged has one before it.
KEPT = 2
# Bytes of a part; the compression that is used takes no 2 GiB.
_PART = 1 << 30


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
