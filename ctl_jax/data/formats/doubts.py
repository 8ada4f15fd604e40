"""Warnings about class folders that may be something else, by their names and those of images."""

import collections
import os
import re
from collections.abc import Collection, Mapping, Sequence

from ctl_jax.data.formats.classes import listed
from ctl_jax.errors import UserError

# What no class is named by, whether with a number or not: parts of an archive, and kinds of files.
_NO_CLASS = frozenset(
    {
        *("annotations", "batch", "chunk", "data", "dataset", "files", "fold", "folder", "image"),
        *("images", "img", "imgs", "jpeg", "jpegimages", "jpg", "labels", "mask", "masks", "part"),
        *("png", "segmentation", "shard"),
    }
)


def check(path: str, names: Collection[str]) -> None:
    """Refuses class folders that are all named like parts of an archive or kinds of files.

    Args:
      path: the data set.
      names: of its class folders.

    Raises:
      UserError: they are, as "images_001" and "images_002", or "images" and "masks".
    """
    if len(names) > 1 and all(map(_is_no_class, names)):
        raise UserError(
            f"{path!r} has the class folders {listed(names)}, none of which is named like a class; "
            "expected SPLIT/CLASS/file"
        )


def notes(inner: Mapping[int, tuple[str, ...]], names: Sequence[str]) -> list[str]:
    """A line for each thing that may not be what was meant.

    Args:
      inner: of each example the folders from its class's on.
      names: paths of all files, of which the examples are some.
    """
    lines = []
    folders = set(inner.values())
    odd = {parts[0] for parts in folders if _is_no_class(parts[0])}
    if odd:
        lines.append(f"taken for classes, in spite of their names: {listed(odd)}")
    below: dict[str, set[str]] = collections.defaultdict(set)
    for parts in folders:
        below[parts[0]].add(parts[1] if len(parts) > 1 else "")
    first, *others = below.values()
    # As in a/x, a/y, b/x and b/y.
    if "" not in first and len(first) > 1 and all(found == first for found in others):
        lines.append(
            f"the classes are {listed(below)}, and each holds the same folders, {listed(first)}; "
            "if those are the classes, move them up"
        )
    # Of one suffix, names that differ differ without it too.
    if len({os.path.splitext(names[index])[1] for index in inner}) > 1:
        stems = collections.Counter(os.path.splitext(names[index])[0] for index in inner)
        if twice := sum(count > 1 for count in stems.values()):
            lines.append(
                f"pictures that may be there in several formats, by their names: {twice:,}"
            )
    return lines


def _is_no_class(name: str) -> bool:
    words = re.findall(r"[^\W\d_]+", name.casefold())
    return bool(words) and set(words) <= _NO_CLASS
