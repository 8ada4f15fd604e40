"""Imported sets that are damaged; test_importing.py has the others."""

import json
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from ctl_jax import data
from ctl_jax.data import _importing
from ctl_jax.data.sources import folders, imported
from ctl_jax.data.task import TaskSpec
from ctl_jax.errors import UserError

Make = Callable[..., Any]
NOTE = {
    "origin": "folder",
    "path": "",
    "kind": "single_label",
    "num_classes": 2,
    "class_names": ["a", "b"],
    "fingerprints": {},
}


@pytest.fixture
def spec(make_spec: Make) -> TaskSpec:
    found = make_spec("umist")
    assert isinstance(found, TaskSpec)
    return found


@pytest.fixture
def path(spec: TaskSpec, tmp_path: pathlib.Path, picture: Make) -> pathlib.Path:
    """An imported set."""
    for i in range(20):
        file = tmp_path / "umist" / "train" / "ab"[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(i))
    dataset = folders.open(spec, tmp_path / "umist")
    return _importing.import_set(dataset, "umist", tmp_path / "imported")


@pytest.mark.parametrize(
    "note",
    [
        "",
        "[]",
        "{}",
        json.dumps({**NOTE, "kind": "odd"}),
        json.dumps({**NOTE, "num_classes": "2"}),
        json.dumps({**NOTE, "num_classes": 0}),
        json.dumps({**NOTE, "fingerprints": 3}),
        json.dumps({**NOTE, "class_names": None}),
        json.dumps({**NOTE, "more": 1}),
        json.dumps({**NOTE, "notes": [1]}),
        json.dumps({**NOTE, "passed_over": []}),
        json.dumps({**NOTE, "passed_over": {"hidden": "1"}}),
        "\udcff",
    ],
)
def test_notes(spec: TaskSpec, path: pathlib.Path, note: str) -> None:
    (path / imported.NOTE).write_text(json.dumps(NOTE))
    (line,) = imported.open(spec, path).notes
    assert "by an earlier version" in line
    (path / imported.NOTE).write_text(json.dumps({**NOTE, "origin": "dm_nevis"}))
    assert imported.open(spec, path).notes == ()
    (path / imported.NOTE).write_text(json.dumps({**NOTE, "notes": ["x"]}))
    assert imported.open(spec, path).notes == ("x",)
    assert imported.open(spec, path).num_classes == 2
    (path / imported.NOTE).write_text(note, errors="surrogateescape")
    with pytest.raises(UserError, match=r"\.json' is not the note of an import: .*; import"):
        imported.open(spec, path)


def test_files(spec: TaskSpec, path: pathlib.Path) -> None:
    (file,) = path.glob("*-dev.array_record*")
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"umist-dev\.array_record"):
        imported.open(spec, path).splits["dev"].read(0, 2)
    shutil.copy(next(path.glob("*-train.array_record*")), file)
    with pytest.raises(UserError, match=r"umist-dev\.array_record.* has 11 records; expected 2"):
        imported.open(spec, path).splits["dev"].read(0, 2)
    file.unlink()
    with pytest.raises(UserError, match=r"umist-dev\.array_record.*is missing"):
        imported.open(spec, path)
    (path / "dataset_info.json").unlink()
    with pytest.raises(UserError, match="is not a prepared TFDS data set"):
        imported.open(spec, path)


@pytest.mark.parametrize("version", ["", imported.VERSION])
def test_by_path(path: pathlib.Path, version: str) -> None:
    (found,) = data.stream(str(path.parent / version))
    assert (found.name, found.source) == ("umist", "imported")
    dataset = data.open_set(found)
    assert (dataset.kind, dataset.path) == ("single_label", str(path))
