"""Image folders and archives: NAME/SPLIT/CLASS/file, or NAME.zip with that in it.

A user's own may be without splits, and a tar archive too, plain or compressed.
"""

import os
import pathlib
import zipfile
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ctl_jax.data._names import printable
from ctl_jax.data.dataset import DataSet, Records
from ctl_jax.data.formats import encoded, layout, leftovers, listing, tars, zips
from ctl_jax.data.formats.classes import listed
from ctl_jax.data.formats.cut import split_of
from ctl_jax.data.formats.image_files import FolderRecords, ZipRecords
from ctl_jax.data.source import Dirs, Instruction, Source, own_folder, register
from ctl_jax.data.task import TaskSpec
from ctl_jax.errors import UserError


def find(spec: TaskSpec, dirs: Dirs) -> pathlib.Path | None:
    """NAME/ or else NAME.zip in the first folder that has it, or is NAME/ itself.

    Upper or lower case does not matter where no name fits exactly.

    Raises:
      UserError: a folder has several that differ in case only.
    """
    name = spec.file_name
    for data_dir in dirs:
        if (data_dir / name).is_dir():
            return data_dir / name
        if (data_dir / f"{name}.zip").is_file():
            return data_dir / f"{name}.zip"
        if (other := _in_other_case(data_dir, name)) is not None:
            return other
        if data_dir.absolute().name.casefold() == name.casefold() and has_splits(data_dir):
            return data_dir
    return None


def has_splits(folder: pathlib.Path) -> bool:
    """Whether a folder holds a split, so that it is a data set's own."""
    try:
        return any(split_of(name) and (folder / name).is_dir() for name in os.listdir(folder))
    except OSError:
        return False


def _in_other_case(data_dir: pathlib.Path, name: str) -> pathlib.Path | None:
    try:
        there = os.listdir(data_dir)
    except OSError as error:
        raise UserError(f"{str(data_dir)!r} cannot be read: {error.strerror}") from error
    found = {
        other
        for other in there
        if (other.casefold() == name.casefold() and (data_dir / other).is_dir())
        or (other.casefold() == f"{name}.zip".casefold() and (data_dir / other).is_file())
    }
    if len(found) > 1:
        raise UserError(f"{str(data_dir)!r} has {listed(found)}; expected one of them as {name!r}")
    return data_dir / found.pop() if found else None


def open(spec: TaskSpec, path: pathlib.Path) -> DataSet:
    """Lists the images of a folder or archive; reads none. See `layout.arrange` for the splits.

    Args:
      spec: of kind "single_label".
      path: from `find`.

    Returns:
      The data set with all four splits; classes are in the order of their sorted names.

    Raises:
      UserError: not such a folder or archive, or an archive with entries that are not safe.
    """
    if spec.kind != "single_label":
        raise UserError(
            f"{str(path)!r}: {spec.title} has several labels an image, which folders cannot "
            "express; expected a data set of TFDS or dm_nevis"
        )
    if path.is_dir():
        names, inner, _ = _walk(path)
        plan = layout.arrange(str(path), names, inner)
        return _data_set(
            "folder",
            path,
            plan,
            {
                split: FolderRecords(path, [names[i] for i in chosen], plan.labels[chosen])
                for split, chosen in plan.splits.items()
            },
        )
    entries = zips.index(path)
    plan = layout.arrange(str(path), entries.names, entries.folders)
    return _data_set(
        "zip",
        path,
        plan,
        {
            split: ZipRecords(entries.take(chosen), plan.labels[chosen])
            for split, chosen in plan.splits.items()
        },
    )


def fits(path: pathlib.Path) -> bool:
    """Whether a path is that of a folder or an archive, whatever is in it."""
    return path.is_dir() or _is_zip(path) or tars.is_one(path)


def _is_zip(path: pathlib.Path) -> bool:
    # A damaged one may be known by its name alone.
    return path.suffix.casefold() == ".zip" or zipfile.is_zipfile(path)


def open_path(path: pathlib.Path, options: Mapping[str, str]) -> DataSet:
    """Lists the images of a user's own folder or archive; see `layout.of_user` and `listing`.

    Args:
      path: of what `fits`.
      options: none.

    Raises:
      UserError: it cannot be read, is not safe to read, or is no set to learn from.
    """
    images: encoded.Images
    if path.is_dir():
        names, inner, linked = _walk(path, once=True)
        places, plan = layout.of_user(str(path), names, inner).of_examples(names)
        images = encoded.FileImages(path, [names[place] for place in places])
        over = {"linked twice": linked} if linked else {}
        return listing.data_set(_listing("folder", path, images, plan, over))
    if _is_zip(path):
        entries = zips.index(path)
        plan = layout.of_user(str(path), entries.names, entries.folders)
        places, plan = plan.of_examples(entries.names)
        images = encoded.ZipImages(entries.take(np.asarray(places, np.int64)))
        return listing.data_set(_listing("zip", path, images, plan, {}))
    found = tars.index(path)
    plan = layout.of_user(str(path), found.names, found.folders)
    places, plan = plan.of_examples(found.names)
    inside = [found.names[place] for place in places]
    images = encoded.PackedImages(found.path, inside, found.starts[places], found.sizes[places])
    return listing.data_set(_listing("tar", path, images, plan, {}))


def _listing(
    origin: str,
    path: pathlib.Path,
    images: encoded.Images,
    plan: layout.Layout,
    passed_over: Mapping[str, int],
) -> listing.Listing:
    return listing.Listing(
        origin,
        path,
        images,
        plan.labels,
        plan.class_names,
        plan.splits,
        plan.notes,
        {**plan.passed_over, **passed_over},
    )


def _data_set(
    origin: str, path: pathlib.Path, plan: layout.Layout, splits: Mapping[str, Records]
) -> DataSet:
    names = tuple(map(printable, plan.class_names))
    return DataSet(
        origin,
        str(path),
        len(names),
        names,
        "single_label",
        splits,
        notes=plan.notes,
        passed_over=plan.passed_over,
    )


def _walk(folder: pathlib.Path, *, once: bool = False) -> tuple[list[str], list[str], int]:
    """Paths of all files in a folder, relative to it, and those of folders; links are followed.

    Args:
      folder: where to begin.
      once: whether a folder that a link leads to once more is left out, and counted.

    Returns:
      The paths of files and of folders, and how many folders are left out.

    Raises:
      UserError: a folder cannot be read; or, without `once`, is there twice by a link, or holds one
        to what encloses it. Links among what is passed over are not followed.
    """
    names: list[str] = []
    folders: list[str] = []
    again = 0
    seen: dict[tuple[int, int], str] = {}
    waiting: list[tuple[str, frozenset[tuple[int, int]], bool]] = [("", frozenset(), False)]
    links: list[tuple[str, frozenset[tuple[int, int]], bool]] = []
    while waiting or links:
        # Folders themselves before links to them, in the order of their names.
        inner, above, passed_over = waiting.pop() if waiting else links.pop(links.index(min(links)))
        outer = os.path.join(folder, inner)
        try:
            facts = os.stat(outer)
            here = (facts.st_dev, facts.st_ino)
            if once and (here in above or here in seen) and not passed_over:
                again += 1
                continue
            if here in above:
                raise UserError(f"{outer!r} is a link to a folder that it is in")
            if not passed_over and seen.setdefault(here, outer) != outer:
                raise UserError(f"{outer!r} and {seen[here]!r} are one folder; expected it once")
            with os.scandir(outer) as found:
                for entry in found:
                    name = inner + entry.name
                    below = passed_over or leftovers.of_folder(entry.name) is not None
                    if _is(entry.is_dir) and not (below and entry.is_symlink()):
                        later = links if once and entry.is_symlink() else waiting
                        later.append((f"{name}/", above | {here}, below))
                        folders.append(name)
                    elif below or _is(entry.is_file) or leftovers.of_file(entry.name):
                        names.append(name)
                    elif entry.is_symlink():
                        raise UserError(f"{entry.path!r} is a link to nothing")
        except OSError as error:
            if not passed_over:
                raise UserError(f"{outer!r} cannot be read: {error.strerror}") from error
    return names, folders, again


def _is(ask: Callable[[], bool]) -> bool:
    try:
        return ask()
    except OSError:  # A link to itself.
        return False


def instruction(spec: TaskSpec, dirs: Dirs) -> Instruction | None:
    """Where images that are there in some other form may be put."""
    # What TFDS prepares is left to it.
    if spec.source != "nevis" or spec.kind != "single_label":
        return None
    name = spec.file_name
    return Instruction(
        "by_hand",
        f"put the images into DIR/{name}/SPLIT/CLASS/ or DIR/{name}.zip and give --dir=folder:DIR",
    )


def misplaced(spec: TaskSpec, dirs: Dirs) -> str:
    """Says so where the folder of a set of another name was given."""
    for given in filter(has_splits, dirs):
        return (
            f"{str(given)!r} has splits itself; expected a folder that holds {spec.file_name}/, "
            "with splits in it"
        )
    return ""


def remarks(spec: TaskSpec, path: pathlib.Path, dirs: Dirs) -> Sequence[str]:
    """Whether the set's own folder was given, or a name in upper case stands for its own."""
    if path in dirs:
        return [own_folder(spec, path)]
    if path.name in (spec.file_name, f"{spec.file_name}.zip"):
        return []
    return [f"{path.name!r} in {str(path.parent)!r} is taken for {spec.file_name!r}"]


register(
    Source(
        "folder",
        "one that holds data sets",
        find,
        open,
        order=40,
        instruction=instruction,
        misplaced=misplaced,
        remarks=remarks,
        fits=fits,
        open_path=open_path,
    )
)
