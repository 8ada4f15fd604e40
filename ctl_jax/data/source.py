"""A source of data: a form in which data sets are on disk, and the registry of all of them.

Each module of `ctl_jax.data.sources` registers one; docs/extending.md shows how to add one.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ctl_jax.data.dataset import DataSet
from ctl_jax.data.task import TaskSpec

Dirs = Sequence[pathlib.Path]


class Instruction(NamedTuple):
    """What to do where a data set is not there.

    Attributes:
      state: "can_be_prepared" by one command, or "by_hand".
      words: what to do, in one line.
    """

    state: str
    words: str


@dataclasses.dataclass(frozen=True)
class Source:
    """Where data sets of one form are looked for, and how they are opened.

    Attributes:
      name: the kind of its folders, in front of their paths in `data.dirs`: "tfds".
      holds: what one of its folders is expected to be, in messages.
      find: the path of a data set in the first of some folders that has it, or None; reads nothing
        but names.
      open: what is at a path that was found; decodes no image. Raises a `UserError` where it is
        damaged.
      order: sources of a lower number are searched first.
      default_dirs: folders that are searched after those that are named.
      needs_dirs: whether its folders must be there before they are searched.
      instruction: what to do where none of its folders has a data set; None where it has no advice.
      misplaced: what may be wrong with folders that do not have a data set, in a few words; or "".
      remarks: a line for each liberty that was taken in finding a data set at a path.
      fits: whether what is at a path that a user names as a task is of this form; reads little.
      open_path: opens it, with the user's options; None where users cannot name paths of this form.
      options: what a user may add to such a path as ?NAME=VALUE, each with what it is.
    """

    name: str
    holds: str
    find: Callable[[TaskSpec, Dirs], pathlib.Path | None]
    open: Callable[[TaskSpec, pathlib.Path], DataSet]
    order: int = 100
    default_dirs: Callable[[], Dirs] = tuple
    needs_dirs: bool = True
    instruction: Callable[[TaskSpec, Dirs], Instruction | None] = lambda spec, dirs: None
    misplaced: Callable[[TaskSpec, Dirs], str] = lambda spec, dirs: ""
    remarks: Callable[[TaskSpec, pathlib.Path, Dirs], Sequence[str]] = lambda spec, path, dirs: ()
    fits: Callable[[pathlib.Path], bool] = lambda path: False
    open_path: Callable[[pathlib.Path, Mapping[str, str]], DataSet] | None = None
    options: tuple[tuple[str, str], ...] = ()


_SOURCES: dict[str, Source] = {}


def register(source: Source) -> Source:
    """Adds a source; one of the same name is replaced."""
    _SOURCES[source.name] = source
    return source


def registered() -> tuple[Source, ...]:
    """All sources, in the order in which they are searched."""
    return tuple(sorted(_SOURCES.values(), key=lambda source: source.order))


def own_folder(spec: TaskSpec, given: pathlib.Path) -> str:
    """A remark: a data set's own folder was given instead of one that holds data sets."""
    return f"{str(given)!r} is taken for the folder of {spec.file_name!r} itself"
