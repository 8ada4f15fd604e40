"""Watchers: what follows a run while it goes on, such as TensorBoard; one file each.

    @watcher("tensorboard")
    def tensorboard(run: Run) -> Follow:
        ...

A module here makes its watchers known with `watcher`; it is found by being here. `config.watch`
names those of a run, and functions of a user's own as PACKAGE.MODULE:FUNCTION. They see what is
computed and change none of it; `experiment.watching` calls them.
"""

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, TypeAlias

from ctl_jax import files, records, values
from ctl_jax.errors import UserError
from ctl_jax.experiment.config import rules


class Run(NamedTuple):
    """A run that is watched, in one of its workers.

    Attributes:
      workdir: its folder.
      record: what it is: tasks, methods, and the whole config as `record.config`.
    """

    workdir: files.Path
    record: records.RunRecord

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.workdir.name


@dataclasses.dataclass(frozen=True)
class Watched:
    """A step of a run, as its watchers see it.

    Attributes:
      id: the step's, as in records.
      kind: "finetune" is a trial, "rung" a part of one; the others are in `experiment.kinds`.
      training: id of the training that it is, is a part of, or whose network it evaluates: the
        rungs of a search have that of the trial which goes on with them.
      name: of that training, for people and folders: "digits/dense/4GFLOP/lr=0.1,seed=0-1a2b3c".
      settings: what it was told, as far as that is a number or a text: task, method, budget,
        learning_rate, batch_size, seed, ...
    """

    id: str
    kind: str
    training: str
    name: str
    settings: Mapping[str, Any]


class Seen(NamedTuple):
    """What a step says of itself.

    Attributes:
      record: a `TrainRecord` or `DevRecord` while it trains; in the end what it came to, such as a
        `TrialRecord`.
      at: updates made so far; None of a step that makes none.
      values: the record's numbers by name, "train/loss" while it trains, "result/dev" in the end;
        without the settings, and without what is not finite.
      finished: whether this is the end: the step's records are kept.
    """

    record: records.Record
    at: int | None
    values: Mapping[str, float]
    finished: bool


# Follows one step, or does not (None). The context is entered before the first thing that the step
# says, and left when it ends, is interrupted, or fails, which alone passes an exception through.
Follow: TypeAlias = Callable[[Watched], AbstractContextManager[Callable[[Seen], object]] | None]
# Called once, before any work.
Watcher: TypeAlias = Callable[[Run], Follow]

# Here the config finds what may stand in it.
_WATCHERS: dict[str, Watcher] = rules.WATCHERS


def watcher(name: str) -> Callable[[Watcher], Watcher]:
    """Makes a watcher known under a name.

    Raises:
      UserError: there is one of this name.
    """

    def add(function: Watcher) -> Watcher:
        if name in _WATCHERS:
            raise UserError(f"watcher {name!r}: there is one of this name; expected a new name")
        _WATCHERS[name] = function
        return function

    return add


def find(names: Iterable[str]) -> dict[str, Watcher]:
    """The watchers of some names, by these.

    Args:
      names: that they were made known under, or PACKAGE.MODULE:FUNCTION, which is imported.

    Raises:
      UserError: there is none of a name.
    """
    return {name: _WATCHERS[name] if name in _WATCHERS else _imported(name) for name in names}


def _imported(name: str) -> Watcher:
    try:
        found: Any = values.imported(name)
    # Whatever a user's module raises as it is imported.
    except Exception as error:
        raise UserError(
            f"config.watch={name!r}: {type(error).__name__}: {error}; expected "
            f"PACKAGE.MODULE:FUNCTION that can be imported"
        ) from None
    if not callable(found):
        raise UserError(f"config.watch={name!r}: it is {found!r:.100}; expected a function")
    function: Watcher = found
    return function


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
