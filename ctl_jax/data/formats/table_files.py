"""The files that a table's paths mean: beside the table, or somewhere in the folders beside it."""

import collections
import os
import pathlib
import re
from collections.abc import Sequence

from ctl_jax.data.formats import leftovers
from ctl_jax.data.formats.encoded import is_picture

# Files that are looked through for paths that are not where they should be.
_MOST_FILES = 2_000_000


def find(folder: pathlib.Path, texts: Sequence[str]) -> list[str | None]:
    """A file for each path of a table.

    One that is not there is looked for in all folders below: its last parts have to fit, and no two
    files may fit. A name without a suffix may be that of a picture with any.

    Args:
      folder: of the table; paths are relative to it, or absolute.
      texts: the paths.

    Returns:
      For each an absolute path or one relative to the folder; None for what is not there.
    """
    plain = [_plain(text) for text in texts]
    found: list[str | None] = [
        text if text and os.path.isfile(os.path.join(folder, text)) else None for text in plain
    ]
    if all(found):
        return found
    by_name = _below(folder)
    return [
        here or (_fitting(text, by_name) if text else None)
        for here, text in zip(found, plain, strict=True)
    ]


def _plain(text: str) -> str:
    text = text.strip()
    if "\\" in text and "/" not in text:  # As Windows has it.
        text = re.sub(r"^[A-Za-z]:", "", text).replace("\\", "/")
    return text


def _below(folder: pathlib.Path) -> dict[str, list[str]]:
    """Pictures below a folder, by their names with and without suffixes."""
    by_name: dict[str, list[str]] = collections.defaultdict(list)
    count = 0
    for outer, inner, names in os.walk(folder):
        inner[:] = sorted(name for name in inner if leftovers.of_folder(name) is None)
        for name in names:
            if is_picture(name):
                path = os.path.relpath(os.path.join(outer, name), folder)
                by_name[name].append(path)
                by_name[os.path.splitext(name)[0]].append(path)
                count += 1
        if count > _MOST_FILES:
            break
    return by_name


def _fitting(text: str, by_name: dict[str, list[str]]) -> str | None:
    """The one file whose path ends as the text does."""
    parts = [part for part in text.split("/") if part not in ("", ".")]
    candidates = by_name.get(parts[-1], []) if parts else []
    # Of an absolute path, which is of another machine, the end counts as far as it fits.
    least = 1 if os.path.isabs(text) else len(parts)
    fits = collections.defaultdict(list)
    for path in candidates:
        own = path.split("/")
        own[-1] = parts[-1]
        same = 0
        while same < min(len(own), len(parts)) and own[-1 - same] == parts[-1 - same]:
            same += 1
        if same >= least:
            fits[same].append(path)
    best = fits[max(fits)] if fits else []
    return best[0] if len(best) == 1 else None
