"""Tables of images."""

import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from ctl_jax import data
from ctl_jax.errors import UserError

Make = Callable[..., Any]


@pytest.fixture
def images(tmp_path: pathlib.Path, picture: Make) -> pathlib.Path:
    """images/0.png to images/39.png."""
    (tmp_path / "images").mkdir()
    for number in range(40):
        (tmp_path / "images" / f"{number}.png").write_bytes(picture(number))
    return tmp_path


def opened(path: pathlib.Path | str) -> data.DataSet:
    return data.open_set(data.stream(str(path))[0])


def write(
    path: pathlib.Path, header: str, row: Callable[[int], str], rows: int = 40
) -> pathlib.Path:
    path.write_text("\n".join([header, *map(row, range(rows))]))
    return path


def of_number(dataset: data.DataSet, picture: Make, number: int) -> Any:
    """The label of a picture."""
    for records in dataset.splits.values():
        for one in records.read(0, len(records)):
            if one.content == picture(number):
                return one.label
    return None


@pytest.mark.parametrize(
    "spelling",
    [
        *("images/{}.png", "./images/{}.png", "{}.png", "{}"),
        *("/elsewhere/images/{}.png", "C:\\images\\{}.png"),
    ],
)
def test_files_are_found(spelling: str, images: pathlib.Path, picture: Make) -> None:
    path = write(images / "t.csv", "file,label", lambda i: f"{spelling.format(i)},{'ab'[i % 2]}")
    dataset = opened(path)
    assert sum(map(len, dataset.splits.values())) == 40
    assert (of_number(dataset, picture, 7), of_number(dataset, picture, 8)) == (1, 0)


def test_no_two_files_may_fit(images: pathlib.Path) -> None:
    shutil.copytree(images / "images", images / "more")
    path = write(images / "t.csv", "file,label", lambda i: f"{i}.png,{i % 2}")
    with pytest.raises(
        UserError, match=r"40 of 40 files in column 'file' are not there: '0\.png', "
    ):
        opened(path)
    write(path, "file,label", lambda i: f"more/{i}.png,{i % 2}")
    assert len(opened(path).splits["train"]) == 22


def test_files_that_are_not_there(images: pathlib.Path) -> None:
    path = write(images / "t.csv", "file,label", lambda i: f"images/{i}.png,{i % 2}", rows=45)
    message = (
        r"t\.csv': 5 of 45 files in column 'file' are not there: 'images/40\.png', "
        r"'images/41\.png', 'images/42\.png' \.\.\.; expected them in '.*', or \?missing=skip"
    )
    with pytest.raises(UserError, match=message):
        opened(path)
    dataset = opened(f"{path}?missing=skip")
    assert sum(map(len, dataset.splits.values())) == 40
    assert dataset.passed_over == {"missing files": 5}


def test_one_table_a_split(images: pathlib.Path) -> None:
    write(images / "train.csv", "id,label", lambda i: f"{i},{'ab'[i % 2]}", rows=30)
    write(images / "test.csv", "id", lambda i: f"{i}", rows=30)
    write(images / "sample_submission.csv", "id,label", lambda i: f"{i},a", rows=3)
    dataset = opened(images)
    assert sum(map(len, dataset.splits.values())) == 30
    assert "'test.csv' is left out: it has no 'label'" in dataset.notes
    assert dataset.passed_over == {"tables of no split": 1}


def test_a_table_beside_its_images(images: pathlib.Path) -> None:
    write(images / "labels.csv", "id,label", lambda i: f"{i},{'ab'[i % 2]}")
    assert len(opened(images).splits["train"]) == 22
    assert data.stream(str(images))[0].source == "table"
    # Beside class folders it is no more than that.
    (images / "more").mkdir()
    assert data.stream(str(images))[0].source == "folder"


def test_several_labels(images: pathlib.Path, picture: Make) -> None:
    row = {0: "p;q", 1: "p", 2: "", 3: "r"}
    lists = opened(write(images / "l.csv", "file,tags", lambda i: f"{i}.png,{row[i % 4]}"))
    flags = opened(
        write(
            images / "f.csv",
            "file,p,q,r",
            lambda i: f"{i}.png,{','.join(str(int(name in row[i % 4])) for name in 'pqr')}",
        )
    )
    for dataset in (lists, flags):
        assert (dataset.kind, dataset.class_names) == ("multi_label", ("p", "q", "r"))
        assert of_number(dataset, picture, 4).tolist() == [1, 1, 0]
        assert of_number(dataset, picture, 6).tolist() == [0, 0, 0]
    assert lists.identity() == flags.identity()
    (spec,) = data.stream(str(images / "l.csv"))
    task = data.load(spec, 8)
    assert (task.spec.metric, task.splits["test"].labels.shape[1]) == ("mAP", 3)


def test_rows_without_a_label(images: pathlib.Path) -> None:
    path = write(images / "t.csv", "file,label", lambda i: f"{i}.png,{'ab '[i % 3]}")
    dataset = opened(path)
    assert dataset.passed_over == {"unlabelled rows": 13}
    assert sum(map(len, dataset.splits.values())) == 27


def test_a_table_without_a_header(images: pathlib.Path) -> None:
    path = write(images / "t.csv", "0.png,a", lambda i: f"{i + 1}.png,{'ab'[i % 2]}", rows=39)
    assert sum(map(len, opened(path).splits.values())) == 40


def test_names_that_are_not_utf8(images: pathlib.Path, picture: Make) -> None:
    (images / "caf\udce9.png").write_bytes(picture(0))
    write(images / "t.csv", "file,label", lambda i: f"images/{i}.png,{i % 2}")
    content = (images / "t.csv").read_bytes().replace(b"images/0.png", b"caf\xe9.png")
    (images / "t.csv").write_bytes(content)
    assert sum(map(len, opened(images / "t.csv").splits.values())) == 40


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", r"t\.csv' has no row; expected one for each image"),
        ("t.csv", b"file,label\n", r"t\.csv' has no row"),
        ("t.csv", b"file,label\n0.png,a,b\n", r"t\.csv', row 1: 3 fields; expected 2: file, label"),
        ("t.csv", b"file,file\n0.png,a\n", r"has columns file, file; expected each name once"),
        ("t.csv", b"file,label\n\0,a\n", r"1 of 1 files in column 'file' are not there: '\\x00'"),
        ("t.csv", b'file,label\n"0.png,a\n', r"t\.csv' is not a table of text: unexpected end"),
        ("t.csv", b"file,label\n0.png,a\n1.png,a\n", r"has one class, 'a'; expected two or more"),
        ("t.csv", b"file,label\n0.png,\n1.png,\n", r"has no image with a label; expected some"),
        ("t.csv", b"file,label\n0.png,a\n1.png,b\n", r"2 images of 2 classes, one image each"),
        ("t.jsonl", b"", r"t\.jsonl' has no row"),
        ("t.jsonl", b'{"file": "0.png"}\n[1]\n', r"t\.jsonl', line 2: .*; expected a JSON object"),
        ("t.jsonl", b'{"file": "0.png"', r"t\.jsonl', line 1: .*; expected a JSON object"),
        ("t.parquet", b"", r"t\.parquet' is not a parquet file"),
        ("t.parquet", b"PAR1 and nothing else PAR1", r"t\.parquet' is not a parquet file"),
    ],
)
def test_tables_that_are_none(
    name: str, content: bytes, message: str, images: pathlib.Path
) -> None:
    (images / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        opened(images / name)
    assert "\n" not in str(caught.value)


def test_a_split_that_is_none(images: pathlib.Path) -> None:
    path = write(images / "t.csv", "file,label,when", lambda i: f"{i}.png,{i % 2},dusk")
    with pytest.raises(UserError, match=r"has 'dusk' in column 'when'; expected one of train, "):
        opened(f"{path}?label=label&split=when")


def test_a_row_without_an_image(tmp_path: pathlib.Path, picture: Make) -> None:
    rows = [{"bytes": picture(i) if i else None, "path": f"{i}.png"} for i in range(30)]
    table = pyarrow.table({"image": rows, "label": [i % 2 for i in range(30)]})
    parquet.write_table(table, tmp_path / "t.parquet")
    (spec,) = data.stream(str(tmp_path / "t.parquet"))
    with pytest.raises(UserError, match=r"t\.parquet', row 1 has no image; .*max_corrupt=0"):
        data.load(spec, 8)
    task = data.load(spec, 8, max_corrupt=1)
    assert sum(map(len, task.splits.values())) == 29


def test_paths_of_images_that_were_never_read(images: pathlib.Path) -> None:
    rows = [{"bytes": None, "path": f"images/{i}.png"} for i in range(40)]
    table = pyarrow.table({"image": rows, "label": [i % 2 for i in range(40)]})
    parquet.write_table(table, images / "t.parquet")
    assert len(opened(images / "t.parquet").splits["train"]) == 22


def test_a_set_of_the_catalogue(images: pathlib.Path) -> None:
    write(images / "umist.csv", "file,label", lambda i: f"{i}.png,{i % 2}")
    (spec,) = data.stream("umist")
    found = data.find_set(spec, [f"table:{images}"])
    assert found is not None
    assert (found[0].name, found[1]) == ("table", images / "umist.csv")
    assert data.open_set(spec, [f"table:{images}"]).num_classes == 2
