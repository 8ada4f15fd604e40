"""Importing: the same examples in the same order afterwards, whatever broke off before."""

import io
import os
import pathlib
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from ctl_jax.data import _importing, images
from ctl_jax.data.dataset import DataSet, Example
from ctl_jax.data.sources import imported
from ctl_jax.data.task import SPLITS, TaskSpec
from ctl_jax.errors import UserError


class Listed:
    """Records that are a list."""

    def __init__(self, examples: Sequence[tuple[bytes, Any]], name: str = "x") -> None:
        self.examples = [
            Example(content, label, f"{name}:{place}")
            for place, (content, label) in enumerate(examples)
        ]
        self.name = name
        self.reads = 0

    def __len__(self) -> int:
        return len(self.examples)

    def read(self, start: int, stop: int) -> Sequence[Example]:
        self.reads += 1
        return self.examples[start:stop]

    def fingerprint(self) -> str:
        return self.name

    def identity(self) -> str:
        return f"identity of {self.name}"


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def png(number: int) -> bytes:
    return encoded(Image.fromarray(np.full((4, 3), number % 256, np.uint8)), "PNG")


def spec(kind: str = "single_label", dataset: str = "umist") -> TaskSpec:
    name = dataset.replace("/", "_")
    return TaskSpec(name, dataset.upper(), dataset, "nevis", "face", kind, 2005)


def dataset(
    sizes: Sequence[int] = (9, 2, 3, 4), names: tuple[str, ...] = ("a", "b", "c"), tag: str = ""
) -> DataSet:
    splits = {
        split: Listed([(png(i), i % 3) for i in range(size)], split + tag)
        for split, size in zip(SPLITS, sizes, strict=True)
    }
    return DataSet("folder", "/data/umist", 3, names, "single_label", splits)


def read_all(found: DataSet) -> dict[str, list[tuple[bytes, Any]]]:
    return {
        split: [
            (one.content, one.label.tolist() if isinstance(one.label, np.ndarray) else one.label)
            for one in records.read(0, len(records))
        ]
        for split, records in found.splits.items()
    }


def reopened(path: pathlib.Path, kind: str = "single_label") -> DataSet:
    return imported.open(spec(kind), path)


def test_the_same_examples(tmp_path: pathlib.Path) -> None:
    before = dataset()
    calls: list[tuple[int, int]] = []
    path = _importing.import_set(before, "umist", tmp_path, lambda *call: calls.append(call))
    assert path == imported.find(spec(), [tmp_path])
    after = reopened(path)
    assert read_all(after) == read_all(before)
    assert after.identity() == before.identity()
    assert (after.origin, after.path) == ("imported", str(path))
    assert (after.num_classes, after.class_names) == (3, ("a", "b", "c"))
    assert after.kind == "single_label"
    assert tuple(after.splits) == SPLITS
    assert calls == [(9, 18), (11, 18), (14, 18), (18, 18)]
    # Nothing else is left.
    assert os.listdir(tmp_path) == ["umist"]


def test_tfds_reads_it(tmp_path: pathlib.Path) -> None:
    path = _importing.import_set(dataset(), "umist", tmp_path)
    builder = tfds.builder_from_directory(path)
    assert builder.info.features["label"].names == ["a", "b", "c"]
    found = builder.as_data_source("train")
    assert [int(one["label"]) for one in found] == [i % 3 for i in range(9)]
    assert [int(one["image"][0, 0, 0]) for one in found] == list(range(9))


def test_several_files_a_split(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_importing, "_SHARD", 100)
    before = dataset((350, 100, 1, 101))
    path = _importing.import_set(before, "umist", tmp_path)
    assert len(list(path.glob("*-train.array_record*"))) == 4
    after = reopened(path)
    assert read_all(after) == read_all(before)
    train = after.splits["train"]
    assert [one.label for one in train.read(95, 205)] == [i % 3 for i in range(95, 205)]


def test_several_labels(tmp_path: pathlib.Path) -> None:
    rows = [[0, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]]
    splits = {
        split: Listed([(png(i), np.asarray(row, np.uint8)) for i, row in enumerate(rows)])
        for split in SPLITS
    }
    before = DataSet("dm_nevis", "/data/awa2", 4, (), "multi_label", splits)
    path = _importing.import_set(before, "awa2", tmp_path)
    after = imported.open(spec("multi_label", "awa2"), path)
    assert read_all(after) == read_all(before)
    assert after.splits["test"].read(1, 2)[0].label.dtype == np.uint8  # type: ignore[union-attr]
    assert (after.kind, after.num_classes, after.class_names) == ("multi_label", 4, ())
    with pytest.raises(UserError, match="is multi_label; AWA2 is single_label"):
        imported.open(spec(dataset="awa2"), path)


@pytest.mark.parametrize(
    "names", [(" ", "a", "b"), ("a\nb", "b", "c"), ("", "b", "c"), (), ("ü", "日本", "a b")]
)
def test_any_class_names(tmp_path: pathlib.Path, names: tuple[str, ...]) -> None:
    path = _importing.import_set(dataset(names=names), "umist", tmp_path)
    assert reopened(path).class_names == names
    assert reopened(path).num_classes == 3


def pictures() -> dict[str, bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 12, 4), np.uint8)
    colour = Image.fromarray(pixels[..., :3])
    deep = Image.fromarray(np.arange(240, dtype=np.uint16).reshape(20, 12) * 257)
    turned = Image.Exif()
    turned[0x112] = 6
    palette = colour.quantize(16)
    grey = colour.convert("L")
    return {
        "png": encoded(colour, "PNG"),
        "jpeg": encoded(colour, "JPEG"),
        "bmp": encoded(colour, "BMP"),
        "turned jpeg": encoded(colour, "JPEG", exif=turned),
        "gif": encoded(colour.convert("P"), "GIF", save_all=True, append_images=[palette]),
        "transparent gif": encoded(palette, "GIF", transparency=3),
        "webp": encoded(Image.fromarray(pixels), "WEBP", lossless=True),
        "turned webp": encoded(colour, "WEBP", lossless=True, exif=turned),
        "tiff": encoded(colour, "TIFF"),
        "bilevel tiff": encoded(grey.convert("1"), "TIFF"),
        "grey-alpha tiff": encoded(Image.merge("LA", (grey, grey)), "TIFF"),
        "cmyk tiff": encoded(colour.convert("CMYK"), "TIFF"),
        "lab tiff": encoded(Image.merge("LAB", colour.split()), "TIFF"),
        "deep tiff": encoded(deep, "TIFF"),
        "float tiff": encoded(Image.fromarray(pixels[..., 0] / np.float32(255)), "TIFF"),
        "ppm": encoded(colour, "PPM"),
        "jpeg 2000": encoded(colour, "JPEG2000"),
    }


@pytest.mark.parametrize("name", list(pictures()))
def test_any_format(tmp_path: pathlib.Path, name: str) -> None:
    content = pictures()[name]
    splits = {split: Listed([(content, 0)], name) for split in SPLITS}
    before = DataSet("folder", "x", 2, (), "single_label", splits)
    after = reopened(_importing.import_set(before, "umist", tmp_path))
    (found,) = after.splits["train"].read(0, 1)
    for size in (1, 12, 30):
        np.testing.assert_array_equal(
            images.decode(found.content, size), images.decode(content, size)
        )
    kept = content.startswith((b"\x89PNG", b"\xff\xd8", b"BM")) or name == "float tiff"
    assert (found.content == content) == kept
    assert kept or found.content.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "content", [b"no image", b"GIF89a", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"]
)
def test_no_images(tmp_path: pathlib.Path, content: bytes) -> None:
    before = dataset()
    before.splits["dev"].examples[1] = Example(content, 0, "dev:1")  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"^dev:1: "):
        _importing.import_set(before, "umist", tmp_path)
    assert os.listdir(tmp_path) == []


def test_once(tmp_path: pathlib.Path) -> None:
    before = dataset()
    path = _importing.import_set(before, "umist", tmp_path)
    written = path.stat().st_ino
    again = dataset()
    assert _importing.import_set(again, "umist", tmp_path) == path
    assert path.stat().st_ino == written
    assert again.splits["train"].reads == 0  # type: ignore[attr-defined]
    # Other data takes its place.
    other = dataset((4, 2, 3, 4), tag="other")
    assert _importing.import_set(other, "umist", tmp_path) == path
    assert read_all(reopened(path)) == read_all(other)
    assert os.listdir(tmp_path) == ["umist"]
    assert len(list(path.parent.iterdir())) == 1


def test_what_breaks_off_leaves_the_earlier_one(tmp_path: pathlib.Path) -> None:
    before = dataset()
    path = _importing.import_set(before, "umist", tmp_path)
    other = dataset(tag="other")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _importing.import_set(other, "umist", tmp_path, stop)
    assert read_all(reopened(path)) == read_all(before)
    assert os.listdir(tmp_path) == ["umist"]
    # A folder without the note, as an unfinished one would be, does not count.
    (path / imported.NOTE).unlink()
    assert imported.find(spec(), [tmp_path]) is None
    _importing.import_set(before, "umist", tmp_path)
    assert read_all(reopened(path)) == read_all(before)


def test_names_and_places(tmp_path: pathlib.Path) -> None:
    path = _importing.import_set(dataset(), "emnist/balanced", tmp_path / "a" / "b")
    assert path == tmp_path / "a" / "b" / "emnist_balanced" / imported.VERSION
    places = [tmp_path / "a" / "b"]
    assert imported.find(spec(dataset="emnist/balanced"), places) == path
    assert imported.find(spec(), places) is None
    assert imported.find(spec(), ()) is None
    assert imported.find(spec(), [tmp_path / "nowhere"]) is None
    for name in ("..", "", "a b", "x.y", "-x"):
        with pytest.raises(UserError, match="is not that of a data set"):
            _importing.import_set(dataset(), name, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot import to .*file.*expected a folder to write to"):
        _importing.import_set(dataset(), "umist", tmp_path / "file")


def test_the_folder_above(shared_dir: pathlib.Path) -> None:
    above = shared_dir / "real_data" / "dm_nevis"
    assert _importing.open_source(spec(dataset="usps"), above).path == str(above / "usps")
    with pytest.raises(UserError, match="beside or instead of splits"):
        _importing.open_source(spec(dataset="pacs"), above)


def test_sources_to_import(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "set"
    for i in range(30):
        file = folder / "train" / "ab"[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(i))
    assert _importing.open_source(spec(), folder).origin == "folder"
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for file in folder.rglob("*.png"):
            archive.write(file, file.relative_to(folder))
    assert _importing.open_source(spec(), tmp_path / "set.zip").origin == "zip"
    with pytest.raises(UserError, match="does not exist; expected a folder or a zip archive"):
        _importing.open_source(spec(), tmp_path / "nowhere")
    (folder / "status").write_text("not_ready")
    with pytest.raises(UserError, match="let dm_nevis finish it"):
        _importing.open_source(spec(), folder)


@pytest.mark.parametrize("name", ["semeion", "pneumonia_chest_xray"])
def test_real_sets(shared_dir: pathlib.Path, tmp_path: pathlib.Path, name: str) -> None:
    path = shared_dir / "real_data" / "dm_nevis" / name
    if not path.exists():
        path = shared_dir / "real_data" / "folders" / f"{name}.zip"
    before = _importing.open_source(spec(dataset=name), path)
    done = _importing.import_set(before, name, tmp_path)
    after = reopened(done)
    assert read_all(after) == read_all(before)
    assert after.class_names == before.class_names
