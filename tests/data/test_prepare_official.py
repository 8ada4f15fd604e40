"""Preparing official sets from their official files, without TensorFlow.

The builders are the official ones. What they would download lies in the folder for manual
downloads: small archives of the official layout.
"""

import gzip
import io
import pathlib
import struct
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.download import checksums

from ctl_jax import data
from ctl_jax.data import prepare
from ctl_jax.data.dataset import DataSet
from ctl_jax.data.sources import tfds as source

Files = dict[str, bytes]
DOMAINNET = "http://csr.bu.edu/ftp/visda/2019/multi-source"
DOMAINS = ("real", "painting", "clipart", "quickdraw", "infograph", "sketch")
Prepared = Callable[[str, Mapping[str, bytes]], DataSet]


def encoded(number: int, kind: str = "PNG", mode: str = "RGB", side: int = 12) -> bytes:
    file = io.BytesIO()
    pixels = np.full((side, side, 3), number, np.uint8)
    Image.fromarray(pixels).convert(mode).save(file, kind)
    return file.getvalue()


def packed_zip(files: Files) -> bytes:
    result = io.BytesIO()
    with zipfile.ZipFile(result, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return result.getvalue()


def packed_tar(files: Files, mode: str = "w") -> bytes:
    result = io.BytesIO()
    with tarfile.open(fileobj=result, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return result.getvalue()


@pytest.fixture
def prepared(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Prepared:
    """Prepares a set from files that somebody has downloaded, and opens it."""

    def run(dataset: str, files: Mapping[str, bytes]) -> DataSet:
        manual = tmp_path / "downloads" / "manual"
        manual.mkdir(parents=True)
        for name, content in files.items():
            (manual / name).write_bytes(content)

        # These files are smaller than the official ones: other checksums.
        known = tfds.builder_cls(dataset.split("/")[0]).url_infos or {}
        urls = {info.filename: url for url, info in known.items()}
        # TFDS has no list of these.
        for name in DOMAINS:
            within = "groundtruth/" if name in ("painting", "clipart") else ""
            urls[f"{name}.zip"] = f"{DOMAINNET}/{within}{name}.zip"
            for split in ("train", "test"):
                urls[f"{name}_{split}.txt"] = f"{DOMAINNET}/domainnet/txt/{name}_{split}.txt"
        whole = tfds.download.DownloadManager.__init__

        def with_checksums(self: Any, **kwargs: Any) -> None:
            whole(self, **kwargs)
            for name in files:
                self._url_infos[urls.get(name, name)] = checksums.compute_url_info(manual / name)

        monkeypatch.setattr(tfds.download.DownloadManager, "__init__", with_checksums)
        path = prepare.prepare(dataset, tmp_path)
        (spec,) = data.stream(dataset)
        assert source.find(spec, (tmp_path,)) == path
        return source.open(spec, path)

    return run


def decoded(found: DataSet, name: str) -> list[tuple[Any, int | list[int]]]:
    """First pixel and label of every example, sorted."""
    records = found.splits[name]
    result: list[tuple[Any, int | list[int]]] = []
    for one in records.read(0, len(records)):
        with Image.open(io.BytesIO(one.content)) as image:
            pixel = np.asarray(image.convert("L"))[0, 0]
        label = one.label if isinstance(one.label, int) else one.label.tolist()
        result.append((int(pixel), label))
    return sorted(result)


def test_arrays_become_png_without_tensorflow(prepared: Prepared) -> None:
    def batch(numbers: range) -> bytes:
        return b"".join(bytes([number % 10]) + bytes([number]) * 3072 for number in numbers)

    files = {f"data_batch_{k}.bin": batch(range(k * 4, k * 4 + 4)) for k in range(1, 6)}
    files["test_batch.bin"] = batch(range(100, 105))
    files["batches.meta.txt"] = "\n".join(f"class{k}" for k in range(10)).encode()
    layout = {f"cifar-10-batches-bin/{name}": content for name, content in files.items()}
    found = prepared("cifar10", {"cifar-10-binary.tar.gz": packed_tar(layout, "w:gz")})
    assert found.class_names[:2] == ("class0", "class1")
    assert [len(records) for records in found.splits.values()] == [14, 3, 3, 5]
    seen = [pair for name in data.SPLITS[:3] for pair in decoded(found, name)]
    assert sorted(seen) == [(number, number % 10) for number in range(4, 24)]
    assert decoded(found, "test") == [(number, number % 10) for number in range(100, 105)]


def test_coil100(prepared: Prepared) -> None:
    angles = [0, 5, 10, 15, 80, 250, 355]
    files = {f"coil-100/obj7__{angle}.png": encoded(k) for k, angle in enumerate(angles)}
    found = prepared("coil100", {"coil-100.zip": packed_zip(files)})
    assert {name: decoded(found, name) for name in data.SPLITS} == {
        "train": [(0, 6), (1, 6), (2, 6), (6, 6)],
        "dev": [(4, 6)],
        "dev_test": [(5, 6)],
        "test": [(3, 6)],
    }


def test_smallnorb(prepared: Prepared) -> None:
    def matrix(array: np.ndarray) -> bytes:
        magic = 507333717 if array.dtype == np.uint8 else 507333716
        shape = [*array.shape, 1, 1][: max(3, array.ndim)]
        head = struct.pack(f"<{2 + len(shape)}i", magic, array.ndim, *shape)
        return gzip.compress(head + array.tobytes())

    files = {}
    instances = {
        "46789x9x18x6x2x96x96-training": (4, 6, 7, 8, 9),
        "01235x9x18x6x2x96x96-testing": (0, 1, 2, 3, 5),
    }
    for which, (part, chosen) in enumerate(instances.items()):
        numbers = np.arange(5, dtype=np.int32) + 10 * which
        images = np.zeros((5, 2, 96, 96), np.uint8) + numbers[:, None, None, None].astype(np.uint8)
        info = np.zeros((5, 4), np.int32)
        info[:, 0] = chosen
        for kind, array in (("dat", images), ("cat", np.arange(5, dtype=np.int32)), ("info", info)):
            files[f"smallnorb-5x{part}-{kind}.mat.gz"] = matrix(array)
    found = prepared("smallnorb", files)
    assert {name: decoded(found, name) for name in data.SPLITS} == {
        "train": [(2, 2), (3, 3), (4, 4)],
        "dev": [(0, 0)],
        "dev_test": [(1, 1)],
        "test": [(10 + k, k) for k in range(5)],
    }


def test_voc_2012(prepared: Prepared) -> None:
    def annotation(*names: str) -> bytes:
        objects = "".join(
            f"<object><name>{name}</name><pose>Left</pose><truncated>0</truncated>"
            "<difficult>1</difficult><bndbox><xmax>5</xmax><xmin>1</xmin><ymax>5</ymax>"
            "<ymin>1</ymin></bndbox></object>"
            for name in names
        )
        size = "<size><width>12</width><height>12</height></size>"
        return f"<annotation>{size}{objects}</annotation>".encode()

    root = "VOCdevkit/VOC2012/"
    lists = {"train": range(5), "val": range(10, 14)}
    files: Files = {}
    for name, numbers in lists.items():
        files[f"{root}ImageSets/Main/{name}.txt"] = "".join(f"{k}\n" for k in numbers).encode()
        for k in numbers:
            files[f"{root}JPEGImages/{k}.jpg"] = encoded(k * 9, "JPEG")
            files[f"{root}Annotations/{k}.xml"] = annotation("bird", *["aeroplane"] * (k % 2))
    test = {
        f"{root}ImageSets/Main/test.txt": b"99\n",
        f"{root}JPEGImages/99.jpg": encoded(9, "JPEG"),
    }
    found = prepared(
        "voc/2012",
        {"VOCtrainval_11-May-2012.tar": packed_tar(files), "VOC2012test.tar": packed_tar(test)},
    )
    bird = [int(k == 2) for k in range(20)]
    both = [int(k in (0, 2)) for k in range(20)]
    assert [len(records) for records in found.splits.values()] == [4, 1, 2, 2]
    first = sorted(decoded(found, "train") + decoded(found, "dev"))
    assert first == [(k * 9, both if k % 2 else bird) for k in range(5)]
    last = sorted(decoded(found, "dev_test") + decoded(found, "test"))
    assert last == [(k * 9, both if k % 2 else bird) for k in range(10, 14)]


def test_celeb_a(prepared: Prepared) -> None:
    headings = sys.modules[type_module("celeb_a")].ATTR_HEADINGS
    assert len(headings) == 40
    names = [f"{k:06}.jpg" for k in range(12)]
    kinds = [0] * 6 + [1] * 3 + [2] * 3

    def table(heading: list[str], rows: list[list[int]]) -> bytes:
        lines = [f"{n} {' '.join(map(str, row))}" for n, row in zip(names, rows, strict=True)]
        return "\n".join([str(len(rows)), " ".join(heading), *lines, ""]).encode()

    yes = [[1 if (number + place) % 3 else -1 for place in range(40)] for number in range(12)]
    images = {f"img_align_celeba/{name}": encoded(k * 9, "JPEG") for k, name in enumerate(names)}
    marks = sys.modules[type_module("celeb_a")].LANDMARK_HEADINGS
    found = prepared(
        "celeb_a",
        {
            "img_align_celeba.zip": packed_zip(images),
            "list_eval_partition.txt": "".join(
                f"{name} {kind}\n" for name, kind in zip(names, kinds, strict=True)
            ).encode(),
            "list_attr_celeba.txt": table(headings, yes),
            "list_landmarks_align_celeba.txt": table(marks, [[k] * 10 for k in range(12)]),
            "identity_CelebA.txt": "".join(f"{name} 5\n" for name in names).encode(),
        },
    )
    assert found.class_names == tuple(sorted(headings))
    expected = [(k * 9, [int(flag > 0) for flag in yes[k]]) for k in range(12)]
    assert sorted(decoded(found, "train") + decoded(found, "dev")) == expected[:6]
    assert decoded(found, "dev_test") == expected[6:9]
    assert decoded(found, "test") == expected[9:]


def type_module(name: str) -> str:
    return str(tfds.builder_cls(name).__module__)


def test_imagenet2012_with_its_odd_files(prepared: Prepared) -> None:
    module = sys.modules[type_module("imagenet2012")]
    (png,) = module.PNG_IMAGES
    inner = {png: encoded(40), module.CMYK_IMAGES[0]: encoded(90, "JPEG", "CMYK")}
    inner |= {f"n01440764_{k}.JPEG": encoded(100 + k, "JPEG") for k in range(40)}
    train = packed_tar({"n01440764.tar": packed_tar(inner)})
    validation = packed_tar(
        {f"ILSVRC2012_val_{k:08}.JPEG": encoded(k * 50, "JPEG") for k in range(1, 4)}
    )
    found = prepared(
        "imagenet2012",
        {"ILSVRC2012_img_train.tar": train, "ILSVRC2012_img_val.tar": validation},
    )
    assert [len(records) for records in found.splits.values()] == [37, 2, 3, 3]
    assert [pixel for pixel, _ in decoded(found, "test")] == [50, 100, 150]
    seen = {}
    for name in data.SPLITS[:3]:
        records = found.splits[name]
        for one in records.read(0, len(records)):
            with Image.open(io.BytesIO(one.content)) as image:
                assert (image.format, image.mode) == ("JPEG", "RGB")
                seen[int(np.asarray(image)[0, 0, 0])] = one.label
    assert set(seen) >= {40, *range(100, 140)}
    # Through CMYK and back a grey changes a little.
    assert any(abs(pixel - 90) <= 2 for pixel in seen)
    assert set(seen.values()) == {0}


def test_oxford_pets_with_a_picture_that_is_no_jpeg(prepared: Prepared) -> None:
    names = {"Abyssinian_5": encoded(10, "PNG", "RGBA")}
    names |= {f"pug_{k}": encoded(20 * k, "JPEG") for k in range(1, 12)}
    lines = [f"{name} {1 if 'Aby' in name else 26} 1 1\n" for name in names]
    masks = {f"annotations/trimaps/{name}.png": encoded(1, "PNG", "L") for name in names}
    lists = {
        "annotations/trainval.txt": "".join(lines[:8]).encode(),
        "annotations/test.txt": "".join(lines[8:]).encode(),
    }
    found = prepared(
        "oxford_iiit_pet",
        {
            "images.tar.gz": packed_tar({f"images/{n}.jpg": c for n, c in names.items()}),
            "annotations.tar.gz": packed_tar({**masks, **lists}),
        },
    )
    seen = [pair for name in data.SPLITS[:3] for pair in decoded(found, name)]
    assert sorted(seen) == [(10, 0), *((20 * k, 25) for k in range(1, 8))]
    records = [found.splits[name] for name in data.SPLITS]
    contents = [one.content for some in records for one in some.read(0, len(some))]
    assert {content[:2] for content in contents} == {b"\xff\xd8"}


def test_domainnet_is_six_sets(prepared: Prepared) -> None:
    files = {}
    for number, name in enumerate(DOMAINS):
        pictures = {f"{name}/a/{k}.jpg": encoded(number * 20 + k * 4, "JPEG") for k in range(3)}
        files[f"{name}.zip"] = packed_zip(pictures)
        files[f"{name}_train.txt"] = "".join(f"{name}/a/{k}.jpg {k}\n" for k in range(2)).encode()
        files[f"{name}_test.txt"] = f"{name}/a/2.jpg 2".encode()
    found = prepared("domainnet", files)
    assert [len(records) for records in found.splits.values()] == [10, 5, 2, 1]
    assert [label for _, label in decoded(found, "dev")] == [2] * 5
    assert decoded(found, "test") == [(108, 2)]
