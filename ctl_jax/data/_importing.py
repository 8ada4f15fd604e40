"""Turns data sets of dm_nevis, folders and archives into TFDS ones once, so that runs start fast.

dataset = importing.open_source(spec, path)
importing.import_set(dataset, spec.dataset, imported.default_dir())
"""

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from ctl_jax import files
from ctl_jax.data import images
from ctl_jax.data._names import printable
from ctl_jax.data.dataset import DataSet, Example
from ctl_jax.data.sources import dm_nevis, folders, imported
from ctl_jax.data.task import SPLITS, TaskSpec
from ctl_jax.errors import UserError

# What TFDS's Image feature reads as one picture.
_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM")
_BATCH = 256
_SHARD = 4096


def open_source(spec: TaskSpec, path: pathlib.Path) -> DataSet:
    """Opens what is to be imported: a folder of dm_nevis, an image folder, or a zip archive.

    The folder that they are in may be given too.

    Raises:
      UserError: there is nothing, or it is damaged.
    """
    if not path.exists():
        raise UserError(f"{str(path)!r} does not exist; expected a folder or a zip archive")
    if path.is_dir() and dm_nevis.is_prepared(path):
        return dm_nevis.open(spec, path)
    if path.is_dir() and not folders.has_splits(path):
        # The folder that holds it, perhaps beside others.
        for source in (dm_nevis, folders):
            if (inner := source.find(spec, [path])) is not None:
                return source.open(spec, inner)
    return folders.open(spec, path)


def import_set(
    dataset: DataSet,
    name: str,
    imported_dir: pathlib.Path,
    progress: Callable[[int, int], None] | None = None,
) -> pathlib.Path:
    """Writes a data set as a TFDS one, in ArrayRecord.

    PNG, JPEG and BMP files are kept byte for byte. Others become PNG without loss of what
    `images.decode` makes of them; pictures of floats or 32-bit integers, which PNG cannot hold, are
    kept too, though TFDS itself will not decode them. What is there of an earlier import is
    replaced, unless it is of the same data: then nothing is done.

    Args:
      dataset: from `open_source`, or of any other source.
      name: the catalogue's name of the set.
      imported_dir: where imported sets are; made if need be.
      progress: called with the examples done and all of them.

    Returns:
      The folder that `imported.open` and `tfds.builder_from_directory` read.

    Raises:
      UserError: the name is no name, an example is damaged, or the folder cannot be written to.
    """
    safe = name.replace("/", "_")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", safe):
        raise UserError(f"name {name!r} is not that of a data set; expected letters, digits and _")
    note = imported.Note(
        dataset.origin,
        dataset.path,
        dataset.kind,
        dataset.num_classes,
        dataset.class_names,
        {split: dataset.splits[split].fingerprint() for split in SPLITS},
        {split: dataset.splits[split].identity() for split in SPLITS},
        dataset.notes,
        dataset.passed_over,
    )
    final = imported.folder(imported_dir, safe)
    if _is_there(final, note):
        return final
    workshop = imported_dir / f".{safe}.{uuid.uuid4().hex}"
    try:
        workshop.mkdir(parents=True)
        fresh = imported.folder(workshop, safe)
        _write(dataset, safe, fresh, progress)
        # Last: a folder without it does not count.
        files.write_text(fresh / imported.NOTE, json.dumps(dataclasses.asdict(note), indent=1))
        _publish(fresh, final, workshop / "old")
    except OSError as error:
        raise UserError(
            f"cannot import to {str(imported_dir)!r}: {error.strerror or error}; "
            "expected a folder to write to"
        ) from error
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
    return final


def _is_there(final: pathlib.Path, note: imported.Note) -> bool:
    try:
        return imported.read_note(final) == note
    except UserError:
        return False


def _publish(fresh: pathlib.Path, final: pathlib.Path, old: pathlib.Path) -> None:
    final.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.rename(final, old)
    os.rename(fresh, final)


def _write(
    dataset: DataSet,
    name: str,
    folder: pathlib.Path,
    progress: Callable[[int, int], None] | None,
) -> None:
    import tensorflow_datasets as tfds

    folder.mkdir(parents=True)
    identity = tfds.core.dataset_info.DatasetIdentity(
        name=name,
        version=tfds.core.Version(imported.VERSION),
        data_dir=str(folder),
        module_name=__name__,
    )
    info = tfds.core.DatasetInfo(
        builder=identity,
        description=f"Imported by ctl_jax from {printable(dataset.path)}.",
        features=_features(dataset),
        disable_shuffling=True,
    )
    writer = tfds.core.SequentialWriter(info, _SHARD, file_format="array_record")
    writer.initialize_splits(list(SPLITS))
    total = sum(len(dataset.splits[split]) for split in SPLITS)
    done = 0
    for split in SPLITS:
        for examples in _batches(dataset, split):
            writer.add_examples({split: [_row(dataset.kind, example) for example in examples]})
            done += len(examples)
            if progress is not None:
                progress(done, total)
        writer.close_splits([split])


def _features(dataset: DataSet) -> Any:
    import tensorflow_datasets as tfds

    names = dataset.class_names
    # TFDS keeps them as the lines of a file.
    plain = len(set(names)) == dataset.num_classes and all(
        name == name.strip() and name.splitlines() == [name] for name in names
    )
    label: Any = tfds.features.ClassLabel(
        **({"names": list(names)} if plain else {"num_classes": dataset.num_classes})
    )
    if dataset.kind == "multi_label":
        label = tfds.features.Sequence(label)
    image = tfds.features.Image(shape=(None, None, 3))
    return tfds.features.FeaturesDict({"image": image, imported.FIELDS[dataset.kind]: label})


def _batches(dataset: DataSet, split: str) -> Iterator[list[Example]]:
    records = dataset.splits[split]
    for start in range(0, len(records), _BATCH):
        yield list(records.read(start, min(start + _BATCH, len(records))))


def _row(kind: str, example: Example) -> dict[str, Any]:
    label: Any = example.label
    if kind == "multi_label":
        label = np.flatnonzero(label).tolist()
    try:
        return {"image": _encoded(example.content), imported.FIELDS[kind]: label}
    except OSError as error:
        raise UserError(f"{example.where}: {error}") from error


def _encoded(content: bytes) -> bytes:
    """The image in a format that TFDS takes.

    Raises:
      OSError: not an image, a damaged one, or too large a one.
    """
    if content.startswith(_SIGNATURES):
        return content
    # What it refuses is not opened here either.
    images.decode(content, 1)
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        if image.mode in ("I", "F"):
            return content
        if image.mode.startswith("I;16"):
            plain = Image.fromarray(np.asarray(image).astype(np.uint16))
        elif image.mode in ("1", "L", "LA", "La"):
            plain = image.convert("LA" if image.mode == "La" else image.mode).convert("L")
        else:
            # By way of RGBA Pillow does not warn of transparency that is dropped.
            mode = "RGBA" if image.mode in ("P", "PA", "RGBa") else image.mode
            plain = image.convert(mode).convert("RGB")
        exif = _orientation(image)
    buffer = io.BytesIO()
    plain.save(buffer, "PNG", icc_profile=b"", exif=exif)
    return buffer.getvalue()


def _orientation(image: Image.Image) -> Image.Exif:
    """EXIF that says how the image is to be turned, and nothing else."""
    exif = Image.Exif()
    with contextlib.suppress(Exception):  # Damaged EXIF does not make a damaged picture.
        exif[ExifTags.Base.Orientation] = int(image.getexif()[ExifTags.Base.Orientation])
    return exif
