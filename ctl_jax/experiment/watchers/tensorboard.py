"""TensorBoard: a run of its own for each trial, in WORKDIR/tensorboard.

Loss, learning rate and FLOPs stand against updates; what a trial came to stands beside them, and
with its settings on the page of hyper-parameters. A training that goes on from a checkpoint says
from which update on what was written before is replaced, so that no point is shown twice.
"""

import contextlib
import functools
import itertools
import os
import pathlib
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from ctl_jax import files, records
from ctl_jax.errors import UserError
from ctl_jax.experiment.watchers import Follow, Run, Seen, Watched, watcher

# In a run's folder.
FOLDER = "tensorboard"
# Kinds of steps that train, or that evaluate a trial's network.
_SHOWN = ("adapt", "evaluate", "final", "finetune", "pretrain", "rung")
# Seconds after which what was written is there to be read, also should the program be killed.
_FLUSH_S = 2.0
# Files of one second differ by it: the newest has the last name.
_numbers = itertools.count()


@watcher("tensorboard")
def tensorboard(run: Run) -> Follow:
    """Writes TensorBoard's files.

    Raises:
      UserError: the run's folder is in an object store.
    """
    if files.is_remote(run.workdir):
        raise UserError(
            f"--workdir={run.workdir}: expected a folder on a disk, since TensorBoard's files grow "
            f"as the run goes on, and objects cannot"
        )
    # What takes a while, or is not there, shows before any work.
    import tensorboardX.proto.event_pb2  # noqa: F401

    folder = pathlib.Path(run.workdir) / FOLDER
    return lambda step: _following(folder, step) if step.kind in _SHOWN else None


@contextlib.contextmanager
def _following(folder: pathlib.Path, step: Watched) -> Iterator[Callable[[Seen], None]]:
    writer = _Writer(folder / step.name)
    try:
        yield functools.partial(_write, writer, step)
    finally:
        writer.close()


def _write(writer: "_Writer", step: Watched, seen: Seen) -> None:
    from tensorboardX import summary
    from tensorboardX.proto import summary_pb2

    if not writer.began and not seen.finished:
        # What was written at this update before it went on from a checkpoint: a loss is logged
        # before dev is looked at, and not again where that look alone was cut short.
        assert seen.at is not None
        writer.replace(seen.at + isinstance(seen.record, records.DevRecord))
    values = [
        summary_pb2.Summary.Value(tag=tag, simple_value=value) for tag, value in seen.values.items()
    ]
    writer.add(summary_pb2.Summary(value=values), seen.at or 0)
    if isinstance(seen.record, records.TrialRecord):
        # Which metrics and settings there are TensorBoard gathers from all trials.
        _, begin, end = summary.hparams({**step.settings, "trial": step.id}, {})
        writer.add(begin, 0)
        writer.add(end, 0)
    writer.flush(now=seen.finished)


class _Writer:
    """A file of events, made here: one a step and process.

    Attributes:
      began: whether anything was written.
    """

    def __init__(self, folder: pathlib.Path):
        import tensorboardX

        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads a folder's files in the order of their names.
        name = f"{time.time():.0f}.{socket.gethostname()}.{os.getpid()}.{next(_numbers):06d}"
        self._writer = tensorboardX.RecordWriter(str(folder / f"events.out.tfevents.{name}"))
        self._flushed = 0.0
        self._event(file_version="brain.Event:2")
        self.began = False

    def replace(self, step: int) -> None:
        """What earlier files of the folder have from this step on counts no more."""
        from tensorboardX.proto import event_pb2

        self._event(step=step, session_log=event_pb2.SessionLog(status="START"))

    def add(self, summary: Any, step: int) -> None:
        """Writes a summary."""
        self._event(step=step, summary=summary)

    def _event(self, **fields: Any) -> None:
        from tensorboardX.proto import event_pb2

        self.began = True
        self._writer.write(event_pb2.Event(wall_time=time.time(), **fields).SerializeToString())

    def flush(self, now: bool = False) -> None:
        """Hands it to the system, if it is time."""
        if now or time.monotonic() - self._flushed >= _FLUSH_S:
            self._writer.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Ends the file."""
        self._writer.flush()
        self._writer.close()
