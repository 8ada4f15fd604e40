"""What holds for a user's own set in any form."""

import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from ctl_jax import data
from ctl_jax.errors import UserError

from ..forms import FORMS, Picture, folder

Make = Callable[..., Any]


def pictures(picture: Make, **counts: int) -> list[Picture]:
    """So many pictures of a class, in order of their paths; sizes differ, and some are equal."""
    found = []
    for split_and_label, count in counts.items():
        split, _, label = split_and_label.rpartition("_")
        for number in range(count):
            content = picture(len(found)) + bytes(number % 4)
            found.append(Picture(split, label, f"{number:02}.png", content))
    return sorted(found, key=lambda one: one.path)


def opened(path: pathlib.Path | str) -> data.DataSet:
    (spec,) = data.stream(str(path))
    return data.open_set(spec)


def contents(dataset: data.DataSet) -> dict[str, list[tuple[bytes, str]]]:
    return {
        split: [
            (one.content, dataset.class_names[int(one.label)])
            for one in records.read(0, len(records))
        ]
        for split, records in dataset.splits.items()
    }


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("split", ["", "given"])
def test_every_form_gives_the_same_examples(
    form: str, split: str, tmp_path: pathlib.Path, picture: Make
) -> None:
    counts = {"_b": 25, "_a": 30} if not split else {"train_b": 25, "train_a": 30, "test_a": 3}
    made = pictures(picture, **counts)
    (tmp_path / "plain").mkdir()
    (tmp_path / "other").mkdir()
    plain = opened(folder(tmp_path / "plain", made))
    path = FORMS[form](tmp_path / "other", made)
    (spec,) = data.stream(str(path))
    dataset = data.open_set(spec)
    assert (spec.name, dataset.kind, dataset.class_names) == (
        "flowers",
        "single_label",
        ("a", "b"),
    )
    found = contents(dataset)
    assert found == contents(plain)
    assert dataset.identity() == plain.identity()
    whole = [one for examples in found.values() for one in examples]
    assert sorted(whole) == sorted((one.content, one.label) for one in made)
    moved = pathlib.Path(shutil.move(tmp_path / "other", tmp_path / "moved"))
    (spec,) = data.stream(str(moved / path.relative_to(tmp_path / "other")))
    assert data.open_set(spec).identity() == dataset.identity()
    loaded = data.load(spec, 8)
    assert loaded.spec.kind == "single_label"
    assert [len(loaded.splits[name]) for name in data.SPLITS] == [
        len(found[name]) for name in data.SPLITS
    ]


def test_a_cut_is_by_class(tmp_path: pathlib.Path, picture: Make) -> None:
    dataset = opened(folder(tmp_path, pictures(picture, _a=100, _b=50, _c=7)))
    assert [len(dataset.splits[split]) for split in data.SPLITS] == [88, 19, 19, 31]
    for split, records in dataset.splits.items():
        counts = np.bincount([int(one.label) for one in records.read(0, len(records))])
        share = len(records) / 157
        assert abs(counts - share * np.asarray([100, 50, 7])).max() < 1.5, split
    assert dataset.notes == (
        "cut from all images, by class: test (20%), dev (12%), dev_test (12%)",
    )


@pytest.mark.parametrize(
    ("counts", "sizes"),
    [
        ({"train_a": 50, "train_b": 50, "test_a": 5, "test_b": 5}, [70, 15, 15, 10]),
        ({"train_a": 50, "train_b": 50, "val_a": 5, "test_b": 5}, [85, 5, 15, 5]),
        ({"train_a": 50, "train_b": 50, "valid_a": 5}, [68, 5, 12, 20]),
        ({"training_a": 50, "training_b": 50, "eval_a": 5}, [70, 15, 15, 5]),
        ({"train_a": 50, "train_b": 50, "eval_a": 5, "testing_a": 4}, [85, 5, 15, 4]),
        ({"train_a": 50, "train_b": 50}, [56, 12, 12, 20]),
        ({"train_a": 6, "train_b": 5, "dev_a": 1, "dev_test_a": 2, "test_b": 3}, [11, 1, 2, 3]),
    ],
)
def test_missing_splits(
    counts: dict[str, int], sizes: list[int], tmp_path: pathlib.Path, picture: Make
) -> None:
    dataset = opened(folder(tmp_path, pictures(picture, **counts)))
    assert [len(dataset.splits[split]) for split in data.SPLITS] == sizes


def test_copies_stay_together_or_are_left_out(tmp_path: pathlib.Path, picture: Make) -> None:
    made = pictures(picture, _a=20, _b=20)
    copies = [one._replace(name=f"copy of {one.name}") for one in made]
    found = contents(opened(folder(tmp_path / "cut", [*made, *copies])))
    assert sum(map(len, found.values())) == 80
    owners = [{content for content, _ in examples} for examples in found.values()]
    assert sum(map(len, owners)) == 40
    given = [one._replace(split="train") for one in made]
    given += [one._replace(split="val") for one in made[:6]]
    given += [one._replace(split="test") for one in (*made[:4], *made[-2:])]
    dataset = opened(folder(tmp_path / "given", given))
    assert [len(dataset.splits[split]) for split in data.SPLITS] == [27, 2, 5, 6]
    assert dataset.notes[:3] == (
        "left out of dev, as the same files are in test: 4 of 6",
        "left out of train, as the same files are in test: 6 of 40",
        "left out of train, as the same files are in dev: 2 of 40",
    )


def test_what_lies_beside_is_counted(tmp_path: pathlib.Path, picture: Make) -> None:
    path = folder(tmp_path, pictures(picture, _a=9, _b=9))
    for name in (".hidden.png", "Thumbs.db", "a/.ipynb_checkpoints/1.png", "__MACOSX/._1.png"):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(b"x")
    (path / "cover.png").write_bytes(picture(99))
    (path / "b" / "up").symlink_to(path)
    (path / "a" / "again").symlink_to(path / "b")
    dataset = opened(path)
    assert sum(map(len, dataset.splits.values())) == 18
    assert dict(dataset.passed_over) == {
        "hidden": 2,
        "system": 1,
        "thumbnails": 1,
        "outside": 1,
        "linked twice": 2,
    }
    assert "images in no class folder are left out: 1" in dataset.notes


def test_linked_files_and_classes_are_followed(tmp_path: pathlib.Path, picture: Make) -> None:
    store = folder(tmp_path / "store", pictures(picture, _a=9, _b=9))
    (tmp_path / "set" / "a").mkdir(parents=True)
    for file in (store / "a").iterdir():
        (tmp_path / "set" / "a" / file.name).symlink_to(file)
    (tmp_path / "set" / "b").symlink_to(store / "b")
    assert opened(tmp_path / "set").identity() == opened(store).identity()


def test_an_unlabelled_split_is_left_out(tmp_path: pathlib.Path, picture: Make) -> None:
    made = pictures(picture, train_a=9, train_b=9)
    path = folder(tmp_path, [*made, Picture("test", "", "1.png", picture(50))])
    dataset = opened(path)
    assert sum(map(len, dataset.splits.values())) == 18
    assert "images in 'test' in no class folder are left out: 1" in dataset.notes


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"_a": 9}, "has one class folder, 'a'; expected CLASS/file or SPLIT/CLASS/file"),
        ({"train_a": 9, "test_a": 2}, "has one class folder, 'a'; expected CLASS/file or"),
        ({"train_a": 9, "train_b": 9, "test_c": 2}, "train lacks 1 of 1 classes of test: 'c'"),
        ({f"_{label}": 1 for label in "abcdefgh"}, "8 images of 8 classes, one image each"),
        ({"_a": 1, "_b": 2}, "3 images of 2 classes, too few of each; expected more images"),
        ({"test_a": 9, "test_b": 9}, "has the splits test; expected train, or no splits"),
        ({"train_a": 9, "train_b": 9, "more_b": 9}, r"has folders 'more' beside or instead of"),
    ],
)
def test_sets_that_cannot_be_learnt(
    counts: dict[str, int], message: str, tmp_path: pathlib.Path, picture: Make
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        opened(folder(tmp_path, pictures(picture, **counts)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz"])
def test_an_empty_archive(suffix: str, tmp_path: pathlib.Path) -> None:
    path = FORMS[suffix](tmp_path, [])
    with pytest.raises(
        UserError, match=r"flowers\..*' has no image; expected CLASS/file or SPLIT/"
    ):
        opened(path)


def test_ten_thousand_classes_of_one_image(tmp_path: pathlib.Path) -> None:
    numbers = range(10_000)
    table = pyarrow.table({"image": [b"%d" % number for number in numbers], "label": numbers})
    parquet.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r"10,000 images of 10,000 classes, one image each"):
        opened(tmp_path / "t.parquet")


def test_copies_alone(tmp_path: pathlib.Path, picture: Make) -> None:
    made = pictures(picture, train_a=9, train_b=9)
    path = folder(tmp_path, [*made, *(one._replace(split="test") for one in made)])
    with pytest.raises(UserError, match=r"has none but copies of others in train; expected images"):
        opened(path)


def test_pictures_that_cannot_be_read(tmp_path: pathlib.Path, picture: Make) -> None:
    path = folder(tmp_path, pictures(picture, train_a=9, train_b=9, test_a=2, test_b=2))
    (path / "test" / "a" / "00.png").write_bytes(b"no picture")
    (spec,) = data.stream(str(path))
    with pytest.raises(UserError, match=r"00\.png': not an image .*max_corrupt=0 allows no"):
        data.load(spec, 8)
    task = data.load(spec, 8, max_corrupt=1)
    assert (len(task.splits["test"]), len(task.corrupt)) == (3, 1)


def test_pictures_of_eight_pixels(tmp_path: pathlib.Path, picture: Make) -> None:
    task = data.load(data.stream(str(folder(tmp_path, pictures(picture, _a=9, _b=9))))[0], 8)
    assert task.splits["train"].images.shape[1:] == (8, 8, 3)


def test_names_that_are_not_utf8(tmp_path: pathlib.Path, picture: Make) -> None:
    for number in range(9):
        for label in (b"caf\xe9", b"tea"):
            path = pathlib.Path(str(tmp_path / "set"), label.decode(errors="surrogateescape"))
            path.mkdir(parents=True, exist_ok=True)
            (path / f"{number}.png").write_bytes(picture(number) + label)
    dataset = opened(tmp_path / "set")
    assert dataset.class_names == ("caf\\xe9", "tea")
    assert data.load(data.stream(str(tmp_path / "set"))[0], 8).num_classes == 2


@pytest.mark.parametrize(
    ("name", "copies"),
    [("pacs", False), ("scenes15", True), ("german_tsr", False), ("pneumonia_chest_xray", True)],
)
def test_real_archives(shared_dir: pathlib.Path, name: str, copies: bool) -> None:
    dataset = opened(shared_dir / "real_data" / "folders" / f"{name}.zip")
    seen: set[bytes] = set()
    for records in dataset.splits.values():
        own = {one.content for one in records.read(0, len(records))}
        assert not own & seen
        seen |= own
    assert any("the same files" in line for line in dataset.notes) == copies
