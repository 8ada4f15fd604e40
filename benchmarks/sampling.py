"""Where a program's main thread is, looked at every few milliseconds from another thread."""

import collections
import pathlib
import re
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType, TracebackType

PERIOD_S = 0.004
TRAINING = "training steps"
# The first pattern that any frame matches decides; frames are "folder/file.py:function". What jax
# does is work of its own, wherever it is done; the rest belongs to the room that it is done in.
KINDS = (
    ("imports", r"<frozen importlib\._bootstrap(_external)?>:"),
    ("programs from the cache", r"_src/compilation_cache\.py:"),
    ("compiling", r"_src/compiler\.py:|interpreters/pxla\.py:from_hlo"),
    ("checkpoints", r"finetune/checkpoints\.py:|experiment/checkpointing\.py:|orbax/"),
    ("lowering", r"interpreters/mlir\.py:|interpreters/pxla\.py:lower_\w+"),
    ("counting FLOPs", r"ctl_jax/compute/|experiment/method_costs\.py:"),
    ("pruning", r"ctl_jax/pruning/"),
    ("tracing", r"interpreters/partial_eval\.py:trace_to_jaxpr|_src/pjit\.py:_create_pjit_jaxpr"),
    ("evaluation", r"finetune/_evaluate\.py:"),
    (
        "a trial's start",
        r"finetune/step\.py:|finetune/_loop\.py:_first_state|models/functional\.py:",
    ),
    (TRAINING, r"finetune/_loop\.py:"),
    ("report", r"ctl_jax/report/"),
    ("data", r"ctl_jax/data/|experiment/tasks\.py:"),
    (
        "records",
        r"ctl_jax/records/|experiment/(store|step_files|run_records)\.py:|ctl_jax/files\.py:",
    ),
    ("claims of work", r"experiment/(queue|leases|processes|jobs|steps)\.py:"),
    ("messages", r"experiment/(progress|printing)\.py:|/rich/"),
    ("planning", r"experiment/plan\.py:"),
)
REST = "the rest"
_PATTERNS = [(kind, re.compile(pattern)) for kind, pattern in KINDS]


class Sampler:
    """Looks at the thread that makes it, while it is entered.

    Attributes:
      seconds: by kind, see `KINDS`.
      places: by kind, then function of `ctl_jax` that was running or waiting: seconds.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = collections.defaultdict(float)
        self.places: dict[str, dict[str, float]] = {}
        self._watched = threading.get_ident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Sampler":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        before = time.perf_counter()
        while not self._stop.wait(PERIOD_S):
            frame = sys._current_frames().get(self._watched)
            names = [_name(found) for found in _outwards(frame)]
            kind = classify(names)
            now = time.perf_counter()
            self.seconds[kind] += now - before
            here = next((name for name in names if name.startswith("ctl_jax/")), "")
            places = self.places.setdefault(kind, collections.defaultdict(float))
            places[here] += now - before
            before = now


def classify(names: list[str]) -> str:
    """The kind of work of a stack of frames, innermost first."""
    together = "\n".join(names)
    return next((kind for kind, pattern in _PATTERNS if pattern.search(together)), REST)


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _name(frame: FrameType) -> str:
    """ "ctl_jax/finetune/_loop.py:fit": the end of the path, enough to tell files apart."""
    path = frame.f_code.co_filename
    if not path.startswith("<"):
        path = "/".join(pathlib.PurePath(path).parts[-3:])
        path = path[max(path.find("ctl_jax/"), 0) :]
    return f"{path}:{frame.f_code.co_name}"
