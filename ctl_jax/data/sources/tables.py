"""Tables with a row an image: csv, tsv, jsonl or parquet, or a folder of them, one a split or more.

    table.csv   table.csv?image=file&label=species&split=part   data/train-00000-of-00002.parquet

An image is a path, relative to the table, or the bytes of a file. A row has one label, several, or
a 0 or 1 in a column for each. See `columns` for how columns are found.
"""

import os
import pathlib
import re
from collections.abc import Mapping, Sequence

import numpy as np

from ctl_jax.data.dataset import DataSet
from ctl_jax.data.formats import columns, cut, encoded, leftovers, listing, table_files, tables
from ctl_jax.data.source import Dirs, Source, register
from ctl_jax.data.task import TaskSpec
from ctl_jax.errors import UserError

UNLABELLED = "unlabelled rows"
MISSING = "missing files"
_EXAMPLES = 3
_DEEPEST = 3


def find(spec: TaskSpec, dirs: Dirs) -> pathlib.Path | None:
    """NAME.csv, .tsv, .jsonl or .parquet, or the folder NAME of tables, in the first folder."""
    for folder in dirs:
        for suffix in tables.SUFFIXES:
            if (path := folder / f"{spec.file_name}{suffix}").is_file():
                return path
        if fits(folder / spec.file_name):
            return folder / spec.file_name
    return None


def open(spec: TaskSpec, path: pathlib.Path) -> DataSet:
    """Reads a table of a data set of the catalogue, as one of a user's own."""
    return open_path(path, {})


def fits(path: pathlib.Path) -> bool:
    """Whether a path is that of a table or a folder of them: parquet, one a split, or only one."""
    if not path.is_dir():
        return path.suffix.casefold() in tables.SUFFIXES
    found = _files(path)
    if any(file.suffix.casefold() == ".parquet" for file in found):
        return True
    # Beside folders of class folders, lists of what is in them are only that.
    named = any(_split_of(path, file) == "train" for file in found)
    folders = [inner for inner in path.iterdir() if inner.is_dir() and inner.name[0] != "."]
    alone = len(found) == 1 and len(folders) <= 1
    return (named or alone) and not any(map(_has_folders, folders))


def _has_folders(folder: pathlib.Path) -> bool:
    with os.scandir(folder) as found:
        return any(entry.is_dir() for entry in found)


def open_path(path: pathlib.Path, options: Mapping[str, str]) -> DataSet:
    """Reads a table or a folder of them, but no image.

    Args:
      path: of what `fits`.
      options: of `columns.OPTIONS`.

    Raises:
      UserError: it is damaged, empty, or has no columns of images and labels; files that it names
        are not there; or it is no set to learn from.
    """
    if options.get("missing", "skip") != "skip":
        raise UserError(f"option missing={options['missing']}: expected skip")
    if not path.is_dir():
        return listing.data_set(of_tables("table", path, {"": [tables.read(path)]}, options))
    by_split: dict[str, list[pathlib.Path]] = {}
    for file in _files(path):
        by_split.setdefault(_split_of(path, file) or "", []).append(file)
    if not by_split:
        raise UserError(f"{str(path)!r} has no table; expected csv, tsv, jsonl or parquet files")
    over = (
        {"tables of no split": len(by_split.pop(""))}
        if len(by_split) > 1 and "" in by_split
        else {}
    )
    for split, files in by_split.items():
        if len({file.parent for file in files}) > 1:
            raise UserError(
                f"{str(path)!r} has tables of {split or 'the set'} in several folders; expected "
                "the path of one of them"
            )
    read = {split: list(map(tables.read, files)) for split, files in by_split.items()}
    return listing.data_set(of_tables("table", path, read, options).also(passed_over=over))


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Tables in a folder: parquet files in folders below too."""
    found: list[pathlib.Path] = []
    for outer, inner, names in os.walk(folder):
        depth = len(pathlib.Path(outer).relative_to(folder).parts)
        keep = sorted(name for name in inner if leftovers.of_folder(name) is None)
        # Nobody keeps tables among so many folders, which would take long to look through.
        inner[:] = keep if depth < _DEEPEST and len(keep) <= _MOST_INNER else []
        for name in sorted(names):
            suffix = os.path.splitext(name)[1].casefold()
            if suffix == ".parquet" or (suffix in tables.SUFFIXES and not depth):
                found.append(pathlib.Path(outer, name))
    return found


_MOST_INNER = 20


def _split_of(folder: pathlib.Path, file: pathlib.Path) -> str | None:
    """The split that a table is of by the first word of its name, or by that of its folder."""
    for name in (file.stem, *reversed(file.relative_to(folder).parts[:-1])):
        words = re.split(r"[-.]|_(?!and_dev|test)", name.casefold())
        if (split := columns.split_of(words[0])) is not None:
            return split
    return None


def of_tables(
    origin: str,
    path: pathlib.Path,
    by_split: Mapping[str, Sequence[tables.Table]],
    options: Mapping[str, str],
) -> listing.Listing:
    """What some tables list.

    Args:
      origin: the form of the set.
      path: where it is.
      by_split: the tables of each split that is given; of "" where a column says it, or none.
      options: of `columns.OPTIONS`.
    """
    first = (by_split.get("train") or next(iter(by_split.values())))[0]
    chosen = columns.choose(first, options)
    notes = []
    kept: list[tuple[str, tables.Table]] = []
    for split, found in by_split.items():
        for table in found:
            lacking = {chosen.image, *chosen.labels} - set(table.columns)
            if lacking and split not in ("", "train"):
                notes.append(f"{table.path.name!r} is left out: it has no {min(lacking)!r}")
            elif lacking:
                raise UserError(
                    f"{str(table.path)!r} has no column {min(lacking)!r}; expected it, as in "
                    f"{first.path.name!r}"
                )
            else:
                kept.append((split, table))
    parsed = _labels(path, chosen, [table for _, table in kept])
    images, there = _images(chosen, [table for _, table in kept], options)
    labels = parsed.labels[there]
    labelled = labels >= 0 if labels.ndim == 1 else np.ones(len(labels), bool)
    passed_over = {MISSING: int(np.sum(~there)), UNLABELLED: int(np.sum(~labelled))}
    passed_over = {kind: count for kind, count in passed_over.items() if count}
    names = np.asarray(_splits(chosen, kept))[there]
    splits = {
        split: np.flatnonzero((names == split) & labelled) for split in np.unique(names).tolist()
    }
    shown = ", ".join(map(repr, chosen.labels[:3])) + (" ..." if len(chosen.labels) > 3 else "")
    words = [f"image {chosen.image!r}", f"label {shown}"]
    words += [f"split {chosen.split!r}"] if chosen.split else []
    return listing.Listing(
        origin,
        path,
        images,
        labels,
        parsed.class_names,
        splits,
        (f"columns: {', '.join(words)}", *notes, *parsed.notes),
        passed_over,
    )


def _labels(
    path: pathlib.Path, chosen: columns.Columns, found: Sequence[tables.Table]
) -> columns.Labels:
    values = {
        name: [value for table in found for value in table.values[name]] for name in chosen.labels
    }
    if len(chosen.labels) > 1:
        return columns.flags_of(values, str(path))
    (name,) = chosen.labels
    declared = next((table.class_names[name] for table in found if name in table.class_names), ())
    return columns.labels_of(str(path), values[name], declared)


def _images(
    chosen: columns.Columns, found: Sequence[tables.Table], options: Mapping[str, str]
) -> tuple[encoded.Images, np.ndarray]:
    """The images that are there, and of which rows they are, bool [N]."""
    if chosen.image in found[0].encoded:
        images = tables.ArrowImages(
            [(table.path, table.encoded[chosen.image]()) for table in found]
        )
        return images, np.ones(len(images.sizes), bool)
    paths: list[str] = []
    there: list[bool] = []
    for table in found:
        folder = table.path.parent
        texts = [columns.text(value) for value in table.values[chosen.image]]
        files = table_files.find(folder, texts)
        absent = [text for text, file in zip(texts, files, strict=True) if file is None]
        if absent and options.get("missing") != "skip":
            some = ", ".join(map(repr, absent[:_EXAMPLES])) + (" ..." if absent[_EXAMPLES:] else "")
            raise UserError(
                f"{str(table.path)!r}: {len(absent):,} of {len(texts):,} files in column "
                f"{chosen.image!r} are not there: {some}; expected them in {str(folder)!r}, or "
                "?missing=skip behind the path to leave them out"
            )
        paths += [os.path.join(folder, file) for file in files if file is not None]
        there += [file is not None for file in files]
    return encoded.FileImages("", paths), np.asarray(there)


def _splits(chosen: columns.Columns, kept: Sequence[tuple[str, tables.Table]]) -> list[str]:
    """The split of each row; train where nothing says one."""
    of_row: list[str] = []
    for split, table in kept:
        if chosen.split and not split:
            values = [columns.text(value) for value in table.values[chosen.split]]
            meant = {value: columns.split_of(value) for value in set(values)}
            if odd := [value for value, found in meant.items() if found is None]:
                raise UserError(
                    f"{str(table.path)!r} has {odd[0]!r} in column {chosen.split!r}; expected one "
                    f"of {', '.join(cut.SPLIT_NAMES)}"
                )
            of_row += [meant[value] or "" for value in values]
        else:
            of_row += [split or "train"] * table.rows
    return of_row


register(
    Source(
        "table",
        "one that holds tables NAME.csv, .tsv, .jsonl or .parquet",
        find,
        open,
        order=35,
        fits=fits,
        open_path=open_path,
        options=columns.OPTIONS,
    )
)
