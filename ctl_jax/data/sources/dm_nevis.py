"""What the public `dm_nevis` package has prepared: TFRecord shards, `metadata` and `status`.

    NAME/SPLIT/data-?????-of-?????    for the splits train, dev, dev-test, test and train_and_dev
    NAME/metadata                     a pickle, which is never unpickled (see metadata.py)
    NAME/status                       "ready" once all of it is written

train_and_dev is train and dev together, and is not read.
"""

import builtins
import contextlib
import dataclasses
import hashlib
import os
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ctl_jax import home
from ctl_jax.data import _tfrecord
from ctl_jax.data._names import printable
from ctl_jax.data.dataset import DataSet, Example
from ctl_jax.data.formats import metadata
from ctl_jax.data.formats.file_state import file_state
from ctl_jax.data.source import Dirs, Instruction, Source, own_folder, register
from ctl_jax.data.task import SPLITS, TaskSpec
from ctl_jax.errors import UserError

_SHARD = re.compile(r"data-(\d{5,9})-of-(\d{5,9})")
_READY = "ready"
# Three angles of five bins.
_BIWI_BINS = 5
_BIWI_CLASSES = 15
_ADDRESS = "https://github.com/google-deepmind/dm_nevis"


def find(spec: TaskSpec, dirs: Dirs) -> pathlib.Path | None:
    """The set's folder in the first folder that has it or is it, or in its `stable`.

    dm_nevis keeps sets under NEVIS_DATA_DIR/stable; what was copied from there may be anywhere.
    """
    name = spec.file_name
    for data_dir in dirs:
        for folder in (data_dir / name, data_dir / "stable" / name):
            if is_prepared(folder):
                return folder
        if data_dir.absolute().name == name and is_prepared(data_dir):
            return data_dir
    return None


def fits(path: pathlib.Path) -> bool:
    """Whether a path is that of a set's folder."""
    return path.is_dir() and is_prepared(path)


def open_path(path: pathlib.Path, options: Mapping[str, str]) -> DataSet:
    """Opens a set that a user names by its folder; whether labels are several, its records tell.

    Args:
      path: of what `fits`.
      options: none.

    Raises:
      UserError: as for `open`.
    """
    _check_status(path)
    first = _shards(_split_folder(path, "train"))[0]
    kind = "single_label"
    if len(first):
        with contextlib.suppress(ValueError):  # `open` says what is wrong.
            features = _tfrecord.parse(_tfrecord.read_at(first, [0])[0])
            if _tfrecord.values(features, "multi_label", "int64_list") or not _tfrecord.values(
                features, "label", "int64_list"
            ):
                kind = "multi_label"
    name = path.absolute().name
    return open(TaskSpec(name, name, name, "nevis", "own", kind, None), path)


def is_prepared(folder: pathlib.Path) -> bool:
    """Whether a folder looks like a set of dm_nevis, finished or not."""
    return any((folder / name).is_file() for name in ("status", "metadata")) or any(
        folder.glob("*/data-*-of-*")
    )


def open(spec: TaskSpec, path: pathlib.Path) -> DataSet:
    """Opens a set; reads where its records are, and no image.

    Only where `metadata` does not give the number of classes, all labels are read to count them.

    Args:
      spec: of kind "single_label" or "multi_label", which decides what a label is.
      path: from `find`.

    Returns:
      The data set with all four splits.

    Raises:
      UserError: dm_nevis has not finished it, or a shard is missing, cut off, or has another
        number of records than `metadata` says.
    """
    _check_status(path)
    known = metadata.read(path / "metadata")
    folders = {split: _split_folder(path, split) for split in SPLITS}
    shards = {split: _shards(folder) for split, folder in folders.items()}
    for split, files in shards.items():
        count, expected = sum(map(len, files)), known.counts.get(folders[split].name)
        if expected is not None and count != expected:
            raise UserError(
                f"{str(folders[split])!r} has {count} records; its metadata says {expected}"
            )
        if not count:
            raise UserError(f"{str(folders[split])!r} has no record; expected some")
    rule = _Labels(spec.kind == "multi_label", spec.dataset == "biwi", known.num_classes)
    if rule.num_classes is None:
        classes = _BIWI_CLASSES if rule.biwi else _count_classes(rule, shards.values())
        rule = dataclasses.replace(rule, num_classes=classes)
    if rule.biwi and rule.num_classes != _BIWI_CLASSES:
        raise UserError(
            f"{str(path)!r} has {rule.num_classes} labels by its metadata; "
            f"biwi has {_BIWI_CLASSES}, five for each of three angles"
        )
    assert rule.num_classes is not None, "counted above"
    return DataSet(
        origin="dm_nevis",
        path=str(path),
        num_classes=rule.num_classes,
        class_names=tuple(map(printable, known.class_names)),
        kind=spec.kind,
        splits={split: NevisRecords(files, rule) for split, files in shards.items()},
    )


@dataclasses.dataclass(frozen=True)
class _Labels:
    """How labels are read. `num_classes` is None while it is being counted."""

    multi: bool
    biwi: bool
    num_classes: int | None

    def numbers(self, features: object) -> list[int]:
        """The label or labels of an example as they are written."""
        several = list(_tfrecord.values(features, "multi_label", "int64_list"))
        single = list(_tfrecord.values(features, "label", "int64_list"))
        # TensorFlow does not write an empty list that may be missing.
        found = several or single
        if not self.multi and (several or len(single) != 1):
            raise ValueError(f"has {len(found)} labels; expected 1")
        return found

    def label(self, features: object) -> int | np.ndarray:
        """A class, or uint8 [num_classes] of 0 and 1.

        Raises:
          ValueError: a label is outside of the set's range.
        """
        assert self.num_classes is not None, "known by now"
        numbers = self.numbers(features)
        # A spill-over of biwi's last angle; see `_correct_biwi`.
        last = self.num_classes - 1 + self.biwi
        for number in numbers:
            if not 0 <= number <= last:
                raise ValueError(f"has label {number}; expected 0 to {self.num_classes - 1}")
        if not self.multi:
            return numbers[0]
        counts = np.bincount(np.asarray(numbers, np.int64), minlength=last + 1)[: self.num_classes]
        if self.biwi:
            return _correct_biwi(counts)
        return (counts > 0).astype(np.uint8)


def _correct_biwi(counts: np.ndarray) -> np.ndarray:
    """Puts right what dm_nevis writes for an angle in its last bin.

    It takes such an angle for one of the next angle's first bin, so that one group of five has
    nothing and the next has two, maybe both in the first bin. Of two neighbours in their last bins
    the second is then read as in its first: the benchmark has it so.

    Args:
      counts: int [15], how often each label was written.

    Returns:
      uint8 [15]

    Raises:
      ValueError: the labels cannot come about in this way.
    """
    groups = counts.reshape(-1, _BIWI_BINS).copy()
    totals = groups.sum(axis=1)
    groups[totals == 0, -1] = 1
    groups[totals == 2, 0] -= 1
    if not ((groups == 0) | (groups == 1)).all():
        raise ValueError(f"has label counts {counts.tolist()}, which are not biwi's angles")
    return groups.reshape(-1).astype(np.uint8)


class NevisRecords:
    """The examples of one split, shard after shard."""

    def __init__(self, shards: Sequence[_tfrecord.Index], rule: _Labels) -> None:
        self._shards = tuple(shards)
        self._rule = rule
        self._ends = np.cumsum([len(shard) for shard in shards])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, start: int, stop: int) -> list[Example]:
        """Examples `start` to `stop` (exclusive).

        Raises:
          UserError: a shard is damaged, or a record is no example with image and label.
        """
        result: list[Example] = []
        wanted = range(len(self))[start:stop]
        for shard, end in zip(self._shards, self._ends.tolist(), strict=True):
            begin = end - len(shard)
            positions = range(max(wanted.start, begin) - begin, min(wanted.stop, end) - begin)
            if positions:
                records = _tfrecord.read_at(shard, positions)
                result += map(self._example, [shard] * len(records), positions, records)
        return result

    def fingerprint(self) -> str:
        """SHA-256 of the shards' paths, sizes and times, and of how labels are read."""
        digest = hashlib.sha256(repr(self._rule).encode())
        for shard in self._shards:
            digest.update(file_state(shard.path))
        return digest.hexdigest()

    def identity(self) -> str:
        """SHA-256 of the shards' names, their records' checksums, and how labels are read."""
        digest = hashlib.sha256(repr(self._rule).encode())
        for shard in self._shards:
            path = pathlib.Path(shard.path)
            digest.update(f"{path.parent.name}/{path.name} {len(shard)}\n".encode())
            digest.update(shard.lengths.astype("<i8").tobytes())
            digest.update(shard.checksums.tobytes())
        return digest.hexdigest()

    def _example(self, shard: _tfrecord.Index, position: int, record: bytes) -> Example:
        where = _where(shard, position)
        try:
            features = _tfrecord.parse(record)
            images = _tfrecord.values(features, "png_encoded_image", "bytes_list")
            if len(images) != 1:
                raise ValueError(f"has {len(images)} images; expected 1")
            return Example(images[0], self._rule.label(features), where)
        except ValueError as error:
            raise UserError(f"{where}: {error}") from error


def _where(shard: _tfrecord.Index, position: int) -> str:
    return f"{shard.path!r}, record {position}"


def _count_classes(rule: _Labels, splits: Iterable[Sequence[_tfrecord.Index]]) -> int:
    """One more than the largest label of all splits."""
    largest = 0
    for shard in (shard for shards in splits for shard in shards):
        for position, record in enumerate(_tfrecord.read_at(shard, range(len(shard)))):
            try:
                largest = max(largest, *rule.numbers(_tfrecord.parse(record)), 0)
                if largest >= metadata.MOST_CLASSES:
                    raise ValueError(f"has label {largest}; expected no such large number")
            except ValueError as error:
                raise UserError(f"{_where(shard, position)}: {error}") from error
    return largest + 1


def _check_status(path: pathlib.Path) -> None:
    try:
        with builtins.open(path / "status", errors="replace") as file:
            status = file.readline(80).strip()
    except OSError as error:
        raise UserError(
            f"{str(path / 'status')!r} cannot be read ({error.strerror}); expected {_READY!r} in "
            "it, which dm_nevis writes when it has finished a set"
        ) from error
    if status != _READY:
        raise UserError(
            f"{str(path)!r} has status {status!r}; expected {_READY!r}: let dm_nevis finish it"
        )


def _split_folder(path: pathlib.Path, split: str) -> pathlib.Path:
    names = (split.replace("_", "-"), split)
    for name in names:
        if (path / name).is_dir():
            return path / name
    raise UserError(f"{str(path)!r} has no folder {names[0]!r} with that split")


def _shards(folder: pathlib.Path) -> list[_tfrecord.Index]:
    """All shards of a split in order.

    Raises:
      UserError: one is missing or damaged, or there are those of two writings.
    """
    found = {}
    totals = set()
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise UserError(f"{str(folder)!r} cannot be read: {error.strerror}") from error
    for name in names:
        match = _SHARD.fullmatch(name)
        if match and name == _shard_name(*map(int, match.groups())):
            number, total = map(int, match.groups())
            found[number] = folder / name
            totals.add(total)
    if not found:
        raise UserError(f"{str(folder)!r} has no shards; expected {_shard_name(0, 10)!r} and so on")
    if len(totals) > 1:
        raise UserError(
            f"{str(folder)!r} mixes shards of {' and '.join(map(str, sorted(totals)))} files; "
            "remove those of the older writing"
        )
    (total,) = totals
    if len(found) != total or max(found) >= total:
        missing = next((number for number in range(total) if number not in found), None)
        what = (
            f"there is {_shard_name(max(found), total)!r}"
            if missing is None
            else f"{_shard_name(missing, total)!r} is missing"
        )
        raise UserError(f"{str(folder)!r} has {len(found)} shards of {total}: {what}")
    return [_tfrecord.index(found[number]) for number in range(total)]


def _shard_name(number: int, total: int) -> str:
    return f"data-{number:05d}-of-{total:05d}"


def default_dirs() -> Dirs:
    """The folder that the variable NEVIS_DATA_DIR names, if it is set."""
    folder = home.from_variable("NEVIS_DATA_DIR")
    return (folder,) if folder else ()


def instruction(spec: TaskSpec, dirs: Dirs) -> Instruction | None:
    """How dm_nevis is run for a set; one that it cannot download, it names."""
    if spec.source != "nevis":
        return None
    # Where its script writes to.
    return Instruction(
        "by_hand",
        f"run ./build_dataset.sh -b -d {spec.file_name} of {_ADDRESS} (needs Docker), which writes "
        "to ~/nevis/nevis_data_dir, and give --dir=nevis:~/nevis/nevis_data_dir",
    )


def remarks(spec: TaskSpec, path: pathlib.Path, dirs: Dirs) -> Sequence[str]:
    """Whether the set's own folder was given."""
    return [own_folder(spec, path)] if path in dirs else []


register(
    Source(
        "nevis",
        "what dm_nevis has written",
        find,
        open,
        order=30,
        default_dirs=default_dirs,
        instruction=instruction,
        remarks=remarks,
        fits=fits,
        open_path=open_path,
    )
)
