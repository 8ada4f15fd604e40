"""Data sets that Hugging Face's `datasets` has saved; those that are whole are in test_listing."""

import json
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from ctl_jax import data
from ctl_jax.errors import UserError

from ..forms import Picture, saved

Make = Callable[..., Any]


@pytest.fixture
def path(tmp_path: pathlib.Path, picture: Make) -> pathlib.Path:
    return saved(
        tmp_path,
        [
            Picture(
                split, "ab"[number % 2], f"{number}.png", picture(number + 100 * (split == "test"))
            )
            for split, count in (("train", 40), ("test", 6))
            for number in range(count)
        ],
    )


def opened(path: pathlib.Path) -> data.DataSet:
    return data.open_set(data.stream(str(path))[0])


def test_what_lies_in_the_cache_of_datasets(path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    for split in ("train", "test"):
        shutil.copy(path / split / "data-00000-of-00001.arrow", cache / f"plants-{split}.arrow")
        shutil.copy(path / split / "dataset_info.json", cache)
    (cache / "cache-0123456789abcdef.arrow").write_bytes(b"left by map")
    assert opened(cache).identity() == opened(path).identity()


def test_a_split_alone_is_cut(path: pathlib.Path) -> None:
    dataset = opened(path / "test")
    assert sum(map(len, dataset.splits.values())) == 6


def test_splits_of_other_names_are_left_out(path: pathlib.Path) -> None:
    shutil.copytree(path / "test", path / "extra")
    (path / "dataset_dict.json").write_text('{"splits": ["train", "test", "extra"]}')
    dataset = opened(path)
    assert len(dataset.splits["test"]) == 6
    assert "splits left out, by their names: extra" in dataset.notes


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("dataset_dict.json", "{", r"dataset_dict\.json' is damaged: .*; expected a JSON object"),
        ("dataset_dict.json", "{}", r"dataset_dict\.json' names no splits"),
        ("dataset_dict.json", '{"splits": ["a", "b"]}', r"a/state\.json' cannot be read: No such"),
        (
            "dataset_dict.json",
            '{"splits": ["test", "train", "x"]}',
            r"x/state\.json' cannot be read",
        ),
        ("train/state.json", "[1]", r"train/state\.json' is damaged"),
        ("train/state.json", "{}", r"train/state\.json' names no files of its own"),
        (
            "train/state.json",
            json.dumps({"_data_files": [{"filename": "../../x"}]}),
            "names no files of its own",
        ),
        (
            "train/state.json",
            json.dumps({"_data_files": [{"filename": "x.arrow"}]}),
            r"x\.arrow' is not an Arrow file",
        ),
        ("train/state.json", '{"_indices_files": [1]}', "rows chosen from others, by an old `dat"),
        ("train/data-00000-of-00001.arrow", "x", r"\.arrow' is not an Arrow file"),
        ("train/data-00000-of-00001.arrow", "", r"\.arrow' is not an Arrow file"),
    ],
)
def test_damaged_folders(name: str, content: str, message: str, path: pathlib.Path) -> None:
    (path / name).write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        opened(path)
    assert "\n" not in str(caught.value)
