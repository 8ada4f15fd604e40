"""Data sets as Hugging Face's `datasets` saves them on disk, read without that library.

PATH/dataset_dict.json and, for each split, as below in PATH/SPLIT   a DatasetDict, saved
PATH/state.json and data-?????-of-?????.arrow                        a Dataset, saved
PATH/dataset_info.json and NAME-SPLIT.arrow                          what its cache holds
"""

import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from ctl_jax.data.dataset import DataSet
from ctl_jax.data.formats import columns, listing, tables
from ctl_jax.data.source import Dirs, Source, register
from ctl_jax.data.sources.tables import of_tables
from ctl_jax.data.task import TaskSpec
from ctl_jax.errors import UserError

_CACHED = re.compile(r".+-([A-Za-z_]+)(-\d{5}-of-\d{5})?\.arrow")
_INDICES = ("_indices_files", "_indices_data_files")


def find(spec: TaskSpec, dirs: Dirs) -> pathlib.Path | None:
    """The folder NAME in the first folder that has such a data set."""
    return next((dir / spec.file_name for dir in dirs if fits(dir / spec.file_name)), None)


def open(spec: TaskSpec, path: pathlib.Path) -> DataSet:
    """Opens a data set of the catalogue as one of a user's own."""
    return open_path(path, {})


def fits(path: pathlib.Path) -> bool:
    """Whether a path is that of a folder which `datasets` has written."""
    saved = any((path / name).is_file() for name in ("dataset_dict.json", "state.json"))
    return saved or ((path / "dataset_info.json").is_file() and any(path.glob("*.arrow")))


def open_path(path: pathlib.Path, options: Mapping[str, str]) -> DataSet:
    """Opens a data set; reads its labels, and no image.

    Args:
      path: of what `fits`.
      options: of `columns.OPTIONS`.

    Raises:
      UserError: a file is missing or damaged, or it has no columns of images and labels.
    """
    files = _files(path)
    known = {split: columns.split_of(split) or "" for split in files}
    if len(known) == 1:
        known = dict.fromkeys(known, "train")
    by_split: dict[str, list[tables.Table]] = {}
    for split, (folder, names) in files.items():
        features = _json(folder / "dataset_info.json").get("features") or {}
        if known[split]:
            by_split.setdefault(known[split], []).extend(
                tables.of_arrow(file, tables.read_arrow(file), features)
                for file in (folder / name for name in names)
            )
    over = sorted(split for split, meant in known.items() if not meant)
    if not by_split:
        raise UserError(f"{str(path)!r} has the splits {', '.join(over)}; expected train")
    found = of_tables("hf", path, by_split, options)
    notes = [f"splits left out, by their names: {', '.join(over)}"] if over else []
    return listing.data_set(found.also(notes))


def _files(path: pathlib.Path) -> dict[str, tuple[pathlib.Path, list[str]]]:
    """For each split, by its own name, the folder and the names of its files."""
    if (path / "dataset_dict.json").is_file():
        splits = _json(path / "dataset_dict.json").get("splits")
        if not isinstance(splits, list) or not splits:
            raise UserError(f"{str(path / 'dataset_dict.json')!r} names no splits; expected some")
        return {split: (path / split, _of_state(path / split)) for split in splits}
    if (path / "state.json").is_file():
        return {"train": (path, _of_state(path))}
    found: dict[str, tuple[pathlib.Path, list[str]]] = {}
    for file in sorted(path.glob("*.arrow")):
        # Others are what `map` and `filter` have left in the cache.
        if match := _CACHED.fullmatch(file.name):
            found.setdefault(match[1], (path, []))[1].append(file.name)
    return found


def _of_state(folder: pathlib.Path) -> list[str]:
    state = _json(folder / "state.json")
    if any(state.get(key) for key in _INDICES):
        raise UserError(
            f"{str(folder)!r} has rows chosen from others, by an old `datasets`; expected "
            "it to be saved again by a current one"
        )
    names = [file.get("filename") for file in state.get("_data_files") or ()]
    if not names or not all(isinstance(name, str) and "/" not in name for name in names):
        raise UserError(f"{str(folder / 'state.json')!r} names no files of its own")
    return names


def _json(path: pathlib.Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
        return {**found}
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{str(path)!r} is damaged: {error}; expected a JSON object") from error


register(
    Source(
        "hf",
        "one that holds data sets saved by Hugging Face's datasets",
        find,
        open,
        order=25,
        fits=fits,
        open_path=open_path,
        options=columns.OPTIONS[:3],
    )
)
