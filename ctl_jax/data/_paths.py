"""Tasks that are named by where their images are, in any form that a source recognises.

    /data/flowers   ~/birds.zip   table.csv?image=file&label=species   tfds:beans   hf:/data/beans

A source's name in front forces a form. Behind "?" stand options of the form, as a table has them.
"""

import difflib
import os
import pathlib
import re
import urllib.parse
from collections.abc import Mapping
from typing import NamedTuple

from ctl_jax import home
from ctl_jax.data import places, sources
from ctl_jax.data._names import printable
from ctl_jax.data.dataset import DataSet
from ctl_jax.data.source import Source
from ctl_jax.data.sources.tfds.prepared import is_version
from ctl_jax.data.task import TaskSpec
from ctl_jax.errors import UserError

# A task's name is part of files' names.
_MOST_LETTERS = 60
_SUFFIXES = re.compile(
    r"(\.(zip|csv|tsv|jsonl|parquet|tar|tgz|tbz2|txz|tar\.(gz|bz2|xz)))$", re.IGNORECASE
)
_MOST_LISTED = 10_000


class Located(NamedTuple):
    """Where a task's images are, in which form, and what the user said about them."""

    source: Source
    path: pathlib.Path
    options: Mapping[str, str]


def exists(text: str) -> bool:
    """Whether a text, with "+" in its path, names something that is there."""
    try:
        _, path, options = _parse(text.strip())
    except UserError:
        return False
    # In options "+" stands between two tasks.
    return path is not None and os.path.lexists(path) and "+" not in "".join(options.values())


def spec(text: str) -> TaskSpec | None:
    """The task that a text names by its path, or by a name of TFDS's: "tfds:beans".

    Args:
      text: a path, absolute, relative or with "~", perhaps with a source's name and a colon in
        front, and with ?NAME=VALUE&NAME=VALUE behind.

    Returns:
      A spec whose `path` `locate` takes, and whose kind is not known yet, or one with a TFDS name;
      None where the text looks like no path, and none is there.

    Raises:
      UserError: it is a path and nothing is there, or nothing that is of a known form.
    """
    text = text.strip()
    if not text:
        return None
    kind, path, _ = _parse(text)
    if path is None:
        name = text.partition(":")[2]
        return TaskSpec(name.replace("/", "_"), name, name, "tfds", "own", "", None)
    clear = kind or text.startswith(("/", ".", "~")) or _SUFFIXES.search(path.name)
    if not clear and not os.path.lexists(path) and not ("/" in text and path.parent.is_dir()):
        return None
    source, path, options = locate(text)
    query = "&".join(f"{key}={urllib.parse.quote(value)}" for key, value in options.items())
    where = f"{source.name}:{path}{'?' if query else ''}{query}"
    title = _title(path)
    name = re.sub(r"[^\w.-]+", "_", title).strip("._-")[:_MOST_LETTERS] or "images"
    return TaskSpec(name, title, title, source.name, "own", "", None, where)


def locate(text: str) -> Located:
    """What is at a path.

    Raises:
      UserError: nothing, nothing of a known form, or options that its form does not have.
    """
    kind, path, options = _parse(text)
    assert path is not None, "a name of TFDS's is no path"
    try:
        os.stat(path)
    except FileNotFoundError:
        raise UserError(f"{str(path)!r}: there is no such file or folder{_close(path)}") from None
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be read: {error.strerror}") from None
    for source in sources.registered():
        if source.open_path is None:
            continue
        if source.name == kind or (not kind and _fits(source, path)):
            _check_options(source, options)
            return Located(source, path, options)
    if kind:
        raise UserError(f"{text!r}: a task of kind {kind!r} has a name, and no path")
    raise UserError(
        f"{str(path)!r} is of no known form; expected a folder or archive (zip, tar) of CLASS/file "
        "or SPLIT/CLASS/file, a table (csv, tsv, jsonl, parquet), a TFDS or Hugging Face data set"
    )


def open_path(text: str) -> DataSet:
    """Opens what is at a path; decodes no image.

    Raises:
      UserError: there is nothing, or nothing that can be learnt from.
    """
    source, path, options = locate(text)
    assert source.open_path is not None, "located sources have it"
    return source.open_path(path, options)


def _parse(text: str) -> tuple[str, pathlib.Path | None, dict[str, str]]:
    """Kind ("" where none is named), absolute path, and options; no path for a name of TFDS's."""
    kind, rest = "", text
    if places.has_kind(text) and not os.path.lexists(text):
        kind, rest = places.kind_and_path(text)
    plain, mark, query = rest.partition("?")
    if mark and os.path.lexists(home.expand(rest)):
        plain, query = rest, ""
    path = pathlib.Path(os.path.abspath(home.expand(plain)))
    named = kind == "tfds" and re.fullmatch(r"\w+(/[\w.-]+)?", plain)
    if named and not os.path.lexists(path):
        return kind, None, {}
    options = {}
    for word in filter(None, query.split("&")):
        name, _, value = word.partition("=")
        options[name] = urllib.parse.unquote(value)
    return kind, path, options


def _fits(source: Source, path: pathlib.Path) -> bool:
    try:
        return source.fits(path)
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be read: {error.strerror}") from error


def _check_options(source: Source, options: Mapping[str, str]) -> None:
    known = dict(source.options)
    for name, value in options.items():
        if name not in known or not value:
            listed = ", ".join(f"{key} ({words})" for key, words in known.items())
            raise UserError(f"option {name}={value}: expected {listed or 'none for this form'}")


def _title(path: pathlib.Path) -> str:
    """The name of a file without its suffixes, or of a folder; that of a set, not of a version."""
    while is_version(path.name) and path.name != path.parent.name:
        path = path.parent
    name = path.name if path.is_dir() else _SUFFIXES.sub("", path.name)
    return printable(name or "images")


def _close(path: pathlib.Path) -> str:
    """Names beside a path that is not there, or the first folder above it that is not."""
    folder = path.parent
    if not folder.is_dir():
        while not folder.parent.is_dir() and folder != folder.parent:
            folder = folder.parent
        return f"; there is no {str(folder)!r}"
    try:
        there = os.listdir(folder)[:_MOST_LISTED]
    except OSError:
        return ""
    by_case = {name.casefold(): name for name in there}
    close = difflib.get_close_matches(path.name.casefold(), by_case, n=3)
    names = ", ".join(repr(by_case[name]) for name in close)
    return f"; close in {str(folder)!r}: {names}" if close else ""
