"""Files of weights: arrays by the names that they have there, one file of this folder a format.

A file of this folder holds `FORMAT`, a `Format`. Which one a file is of is told by its content, and
only where that says nothing by its suffix.
"""

import functools
import importlib
import os
import pathlib
import pkgutil
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ctl_jax.errors import UserError

# The first bytes of a file, which tell most formats.
_HEAD = 64


@dataclass(frozen=True)
class File:
    """What a file holds.

    Attributes:
      arrays: by name, as they are in the file; perhaps mapped from it.
      metadata: texts that stand beside them.
      remarks: what its reader chose among what there was, a sentence each.
    """

    arrays: Mapping[str, np.ndarray]
    metadata: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
      name: as a sentence has it, "a safetensors file".
      suffixes: of its files' names, in lower case.
      matches: (path, first bytes) -> whether the content is of this format.
      read: what a file holds. It raises what its library raises where the file is damaged, which
        `read` of this module makes a `UserError` of, or a `UserError` with the reason alone.
      damage: what its library raises then, beside `OSError`, `ValueError` and `EOFError`.
    """

    name: str
    suffixes: tuple[str, ...]
    matches: Callable[[pathlib.Path, bytes], bool]
    read: Callable[[pathlib.Path], File]
    damage: tuple[type[Exception], ...] = ()


@functools.cache
def formats() -> tuple[Format, ...]:
    """All that there are, in the order of their files' names."""
    modules = sorted(info.name for info in pkgutil.iter_modules(__path__))
    return tuple(importlib.import_module(f"{__name__}.{name}").FORMAT for name in modules)


def suffixes() -> tuple[str, ...]:
    """Of all formats."""
    return tuple(suffix for known in formats() for suffix in known.suffixes)


def read(path: pathlib.Path) -> File:
    """What a file of weights holds.

    Raises:
      UserError: no such file, one that may not be read, of no format that there is, or damaged.
    """
    _check_is_file(path)
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise UserError(f"weights {path}: cannot be read ({error.strerror})") from None
    known = _format(path, head)
    damage: tuple[type[Exception], ...] = (OSError, ValueError, EOFError, *known.damage)
    try:
        return known.read(path)
    except UserError as error:
        raise UserError(f"weights {path}: {error}") from None
    except damage as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise UserError(f"weights {path}: no readable {known.name} ({reason})") from error


def _format(path: pathlib.Path, head: bytes) -> Format:
    for known in formats():
        if known.matches(path, head):
            return known
    for known in formats():
        if path.suffix.lower() in known.suffixes:
            return known
    expected = ", ".join(suffixes())
    raise UserError(f"weights {path}: unknown type; expected one of {expected}, or a folder")


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether something is a folder; an error where there is nothing."""
    return stat.S_ISDIR(_mode(path))


def _check_is_file(path: str | os.PathLike[str]) -> None:
    """Raises UserError where there is no file, or something that would be waited for."""
    if not stat.S_ISREG(_mode(path)):
        raise UserError(f"weights {path}: neither a file nor a directory")


def _mode(path: str | os.PathLike[str]) -> int:
    """What is at a path, as `os.stat` says it.

    Raises:
      UserError: nothing, or what cannot be asked.
    """
    try:
        return os.stat(path).st_mode
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            raise UserError(f"weights {path}: no such file or directory") from None
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"weights {str(path)!r}: cannot be read ({reason})") from None


def needs(package: str, extra: str) -> UserError:
    """The error where an optional package is missing."""
    return UserError(f"needs the package {package}: pip install 'ctl-jax[{extra}]'")
