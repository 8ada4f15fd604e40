"""Folders of data as users name them: "tfds:~/tensorflow_datasets", "nevis:/d", "folder:/i"."""

import pathlib
from collections.abc import Iterable, Mapping

from ctl_jax import home
from ctl_jax.data import sources
from ctl_jax.data.source import Dirs, Source
from ctl_jax.errors import UserError

Places = Mapping[Source, Dirs]


def expected() -> str:
    """What a folder is written as, for messages."""
    kinds = ", ".join(source.name for source in sources.registered())
    return f"folders as KIND:PATH, KIND one of {kinds}"


def resolve(dirs: Iterable[str]) -> Places:
    """Where each source looks for data sets.

    Args:
      dirs: folders as KIND:PATH, KIND being a source's name; "~" is the home.

    Returns:
      For every source, in the order in which they are searched, the folders that are named, in
      their order, and then its default ones.

    Raises:
      UserError: a text without such a kind or without a path.
    """
    known = {source.name: source for source in sources.registered()}
    found: dict[Source, list[pathlib.Path]] = {source: [] for source in known.values()}
    for text in dirs:
        kind, path = kind_and_path(text)
        found[known[kind]].append(pathlib.Path(home.expand(path)))
    return {source: (*given, *source.default_dirs()) for source, given in found.items()}


def kind_and_path(text: str) -> tuple[str, str]:
    """Kind and path of KIND:PATH.

    Raises:
      UserError: a text without a source's name in front, or without a path.
    """
    if not has_kind(text):
        raise UserError(f"{text!r}: expected {expected()}")
    kind, _, path = text.partition(":")
    return kind, path


def has_kind(text: str) -> bool:
    """Whether a text is KIND:PATH with a source's name in front; a gs://bucket/path is not."""
    kind, _, path = text.partition(":")
    return bool(path) and any(source.name == kind for source in sources.registered())


def check(places: Places) -> None:
    """Raises if a folder is not there that a source needs.

    Raises:
      UserError: names it.
    """
    for source, folders in places.items():
        for folder in folders if source.needs_dirs else ():
            if not folder.is_dir():
                given, above = (f"{source.name}:{path}" for path in (folder, folder.parent))
                instead = f", such as {above!r}" if folder.is_file() else ""
                raise UserError(f"{given!r} is not a folder; expected {source.holds}{instead}")
