"""Data sets as tables: DIR/NAME.csv, a line an image with its path, its label and its split."""

import csv
import pathlib

import numpy as np

from ctl_jax.data.dataset import DataSet
from ctl_jax.data.formats.image_files import FolderRecords
from ctl_jax.data.source import Dirs, Source, register
from ctl_jax.data.task import SPLITS, TaskSpec
from ctl_jax.errors import UserError


def find(spec: TaskSpec, dirs: Dirs) -> pathlib.Path | None:
    """NAME.csv in the first folder that has it."""
    paths = (folder / f"{spec.file_name}.csv" for folder in dirs)
    return next(filter(pathlib.Path.is_file, paths), None)


def open_table(spec: TaskSpec, path: pathlib.Path) -> DataSet:
    """Reads the table; no image. Paths in it are relative to it."""
    with path.open(newline="", encoding="utf-8") as file:
        table = csv.DictReader(file)
        found = table.fieldnames
        if set(found or ()) != {"path", "label", "split"}:
            raise UserError(f"{str(path)!r} has columns {found}; expected path, label, split")
        rows = list(table)
    classes = tuple(sorted({row["label"] for row in rows}))
    splits = {}
    for split in SPLITS:
        chosen = [row for row in rows if row["split"] == split]
        if not chosen:
            raise UserError(f"{str(path)!r} has no line of split {split!r}; expected some")
        labels = np.asarray([classes.index(row["label"]) for row in chosen], np.int32)
        splits[split] = FolderRecords(path.parent, [row["path"] for row in chosen], labels)
    return DataSet("csv", str(path), len(classes), classes, "single_label", splits)


register(Source("csv", "one that holds tables NAME.csv", find, open_table))
