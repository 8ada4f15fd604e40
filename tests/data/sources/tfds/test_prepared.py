"""Prepared TFDS sets as files: found, whole, damaged, not as expected."""

import json
import pathlib
import re
import shutil
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow_datasets as tfds

from ctl_jax import data
from ctl_jax.data.dataset import DataSet
from ctl_jax.data.sources import tfds as source
from ctl_jax.errors import UserError

Opened = Callable[[str, pathlib.Path], DataSet]
Version = Callable[[pathlib.Path, str], pathlib.Path]


def test_the_fingerprint_is_that_of_the_files_and_the_choice(
    copied: Callable[[str], pathlib.Path], opened: Opened, tmp_path: pathlib.Path
) -> None:
    folder = copied("mnist")

    def fingerprints() -> dict[str, str]:
        found = opened("mnist", tmp_path / "data")
        return {name: records.fingerprint() for name, records in found.splits.items()}

    first = fingerprints()
    assert len(set(first.values())) == 4
    assert fingerprints() == first
    file = min(folder.glob("mnist-train*"))
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content)
    second = fingerprints()
    assert [second[name] == first[name] for name in data.SPLITS] == [False, False, False, True]
    records = opened("mnist", tmp_path / "data").splits["train"]
    file.unlink()
    with pytest.raises(UserError, match=f"file '{file}' cannot be read"):
        records.fingerprint()


def test_the_identity_is_that_of_a_copy(
    copied: Callable[[str], pathlib.Path], opened: Opened, tmp_path: pathlib.Path
) -> None:
    copied("mnist")
    first = opened("mnist", tmp_path / "data").identity()
    shutil.copytree(tmp_path / "data", tmp_path / "other", copy_function=shutil.copyfile)
    assert opened("mnist", tmp_path / "other").identity() == first
    file = min((tmp_path / "other").rglob("mnist-train*"))
    file.write_bytes(file.read_bytes() + b"x")
    assert opened("mnist", tmp_path / "other").identity() != first


def test_damaged_records_are_named_with_their_position(
    copied: Callable[[str], pathlib.Path], opened: Opened, tmp_path: pathlib.Path
) -> None:
    file = min(copied("mnist").glob("mnist-train*"))
    whole = file.read_bytes()
    train = opened("mnist", tmp_path / "data").splits["train"]
    contents = [one.content for one in train.read(0, len(train))]
    messages = []
    used = [place for place, byte in enumerate(whole) if byte]
    for place in used[:: max(1, len(used) // 150)]:
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 8]) + whole[place + 1 :])
        records = opened("mnist", tmp_path / "data").splits["train"]
        try:
            examples = records.read(0, len(records))
        except UserError as error:
            messages.append(str(error))
        else:
            # Not every byte matters.
            assert [one.content for one in examples] == contents
    assert messages
    assert all(str(file) in message and "\n" not in message for message in messages)
    named = {int(found[1]) for m in messages if (found := re.search(r"record (\d+)", m))}
    assert len(named) > 3


@pytest.mark.parametrize("content", [b"", b"\0" * 100, None])
def test_files_that_are_cut_off_are_named(
    copied: Callable[[str], pathlib.Path],
    opened: Opened,
    tmp_path: pathlib.Path,
    content: bytes | None,
) -> None:
    file = max(copied("mnist").glob("mnist-train*"))
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if content is None else content)
    # Nothing is read of it before it is needed.
    records = opened("mnist", tmp_path / "data").splits["dev"]
    with pytest.raises(UserError) as error:
        records.read(0, len(records))
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_another_number_of_records_than_announced(
    copied: Callable[[str], pathlib.Path], opened: Opened, tmp_path: pathlib.Path
) -> None:
    folder = copied("mnist")
    first, second = sorted(folder.glob("mnist-train*"))
    second.write_bytes(first.read_bytes())
    records = opened("mnist", tmp_path / "data").splits["dev"]
    with pytest.raises(UserError, match=r"has 1[01] records; expected 1[01]"):
        records.read(0, len(records))


def first_file(folder: pathlib.Path) -> tuple[pathlib.Path, int]:
    """The first file of train and the number of its records."""
    lengths = tfds.builder_from_directory(folder).info.splits["train"].shard_lengths
    return min(folder.glob("*-train*")), lengths[0]


def test_records_that_are_something_else(
    tfrecords: pathlib.Path,
    opened: Opened,
    version: Version,
    frame: Callable[[bytes], bytes],
    example: Callable[..., bytes],
    tmp_path: pathlib.Path,
) -> None:
    shutil.copytree(version(tfrecords, "mnist"), tmp_path / "mnist" / "3.0.1")
    file, count = first_file(tmp_path / "mnist" / "3.0.1")
    wrong = {
        "is not an example": b"\xff\xff",
        "has 0 images; expected 1": example(label=[1]),
        "has 0 values of label; expected 1": example(image=b"x"),
        "has 2 values of label; expected 1": example(image=b"x", label=[1, 2]),
        "has label 10; expected 0 to 9": example(image=b"x", label=[10]),
        "has label -1; expected 0 to 9": example(image=b"x", label=[-1]),
        "has label as a bytes_list; expected a int64_list": example(image=b"x", label=b"1"),
        "has image as a int64_list; expected a bytes_list": example(image=[1], label=[1]),
    }
    rest = [example(image=b"x", label=[1])] * (count - len(wrong))
    file.write_bytes(b"".join(map(frame, [*wrong.values(), *rest])))
    records = opened("mnist", tmp_path).splits["train"]
    for position, text in enumerate(wrong):
        with pytest.raises(UserError) as error:
            records.read(position, position + 1)
        assert str(error.value).startswith(f"{str(file)!r}, record {position} {text}")
        assert "\n" not in str(error.value)
    assert records.read(count - 1, count)[0][:2] == (b"x", 1)


def test_yes_and_no_of_celeb_a(
    tfrecords: pathlib.Path,
    opened: Opened,
    version: Version,
    frame: Callable[[bytes], bytes],
    example: Callable[..., bytes],
    tmp_path: pathlib.Path,
) -> None:
    folder = version(tfrecords, "celeb_a")
    shutil.copytree(folder, tmp_path / "celeb_a" / folder.name)
    file, count = first_file(tmp_path / "celeb_a" / folder.name)
    names = opened("celeb_a", tmp_path).class_names
    flags: dict[str, list[int]] = {f"attributes/{name}": [0] for name in names}
    good = example(image=b"x", **{**flags, "attributes/Young": [1]})
    bad = example(image=b"x", **{**flags, "attributes/Bald": [2]})
    file.write_bytes(frame(good) + frame(bad) * (count - 1))
    records = opened("celeb_a", tmp_path).splits["train"]
    label = records.read(0, 1)[0].label
    assert isinstance(label, np.ndarray)
    assert label.tolist() == [0] * 39 + [1]
    with pytest.raises(UserError, match="record 1 has attributes/Bald 2; expected 0 or 1"):
        records.read(1, 2)


def test_instances_that_smallnorb_has_not(
    tfrecords: pathlib.Path,
    opened: Opened,
    version: Version,
    frame: Callable[[bytes], bytes],
    example: Callable[..., bytes],
    tmp_path: pathlib.Path,
) -> None:
    folder = version(tfrecords, "smallnorb")
    shutil.copytree(folder, tmp_path / "smallnorb" / folder.name)
    file, count = first_file(tmp_path / "smallnorb" / folder.name)
    file.write_bytes(frame(example(image=b"x", label_category=[0], instance=[5])) * count)
    records = opened("smallnorb", tmp_path).splits["dev"]
    with pytest.raises(UserError, match=r"record 0 has instance 5; expected one of 4, 6, 7, 8, 9"):
        len(records)


def test_the_first_folder_that_has_a_set_and_its_highest_version(
    array_records: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (spec,) = data.stream("mnist")
    empty, other = tmp_path / "empty", tmp_path / "other"
    for name in ("3.0.1", "3.0.9", "3.0.10", "3.0.11.incompleteABC"):
        (other / "mnist" / name).mkdir(parents=True)
    empty.mkdir()
    assert source.find(spec, (empty, other, array_records)) == (other / "mnist" / "3.0.10")
    assert source.find(spec, (empty,)) is None
    assert source.find(spec, ()) is None
    # TFDS has a default configuration.
    (spec,) = data.stream("sun397")
    found = source.find(spec, (array_records,))
    assert found is not None
    assert found.parent == array_records / "sun397" / "tfds"
    # Sets of dm_nevis are not TFDS's, whatever is there.
    (spec,) = data.stream("COIL 20")
    (other / "coil20" / "1.0.0").mkdir(parents=True)
    assert source.find(spec, (other,)) is None


def test_domainnet_where_all_its_domains_are(
    array_records: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (spec,) = data.stream("domainnet")
    some = tmp_path / "some"
    shutil.copytree(array_records / "domainnet" / "real", some / "domainnet" / "real")
    places = (some, array_records)
    assert source.find(spec, places) == array_records / "domainnet"
    path = source.find(spec, (some,))
    assert path == some / "domainnet"
    with pytest.raises(UserError, match=f"TFDS data set 'domainnet/painting' is not in '{some}'"):
        source.open(spec, path)


def test_what_is_missing_or_wrong_is_said_before_any_work(
    copied: Callable[[str], pathlib.Path], opened: Opened, tmp_path: pathlib.Path
) -> None:
    folder = copied("voc/2007")
    file = min(folder.glob("*-test*"))
    content = file.read_bytes()
    file.unlink()
    with pytest.raises(UserError, match=f"file '{file}' is missing"):
        opened("voc/2007", tmp_path / "data")
    file.write_bytes(content)
    path = folder / "features.json"
    whole = path.read_text()
    for name, what in (("image", "an image"), ("labels", "a list of classes")):
        features = json.loads(whole)
        table = features["featuresDict"]["features"]
        table[name] = table["image/filename"]
        path.write_text(json.dumps(features))
        with pytest.raises(UserError, match=f"has no feature '{name}' that is {what}"):
            opened("voc/2007", tmp_path / "data")
    path.write_text(whole)
    path = folder / "dataset_info.json"
    info = json.loads(path.read_text())
    info["splits"] = [split for split in info["splits"] if split["name"] != "validation"]
    path.write_text(json.dumps(info))
    with pytest.raises(UserError, match=r"has no split 'validation'; it has \['test', 'train'\]"):
        opened("voc/2007", tmp_path / "data")
    path.write_text(json.dumps({**info, "fileFormat": "riegeli"}))
    with pytest.raises(UserError, match="has file format riegeli; expected array_record or tfrec"):
        opened("voc/2007", tmp_path / "data")
    path.write_text("{")
    with pytest.raises(UserError, match="is not a prepared TFDS data set") as error:
        opened("voc/2007", tmp_path / "data")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("dataset", "name", "what"),
    [
        ("celeb_a", "attributes", "has several yes or no"),
        ("coil100", "object_id", "is a class"),
        ("smallnorb", "label_category", "is a class"),
        ("mnist", "label", "is a class"),
    ],
)
def test_features_that_are_not_the_official_ones(
    copied: Callable[[str], pathlib.Path],
    opened: Opened,
    tmp_path: pathlib.Path,
    dataset: str,
    name: str,
    what: str,
) -> None:
    path = copied(dataset) / "features.json"
    features = json.loads(path.read_text())
    table = features["featuresDict"]["features"]
    del table[name]
    path.write_text(json.dumps(features))
    with pytest.raises(UserError, match=f"has no feature '{name}' that {what}"):
        opened(dataset, tmp_path / "data")


def test_a_set_that_is_too_small_to_be_cut(
    make_official: Callable[..., None], opened: Opened, tmp_path: pathlib.Path
) -> None:
    make_official(tmp_path, "mnist", {"train": 3, "test": 2})
    with pytest.raises(UserError, match="too few examples: none is left for split 'dev'"):
        opened("mnist", tmp_path)


def test_sets_that_are_not_official(tmp_path: pathlib.Path) -> None:
    (spec,) = data.stream("COIL 20")
    with pytest.raises(UserError, match="'coil20' is not an official TFDS set of Nevis'22"):
        source.open(spec, tmp_path)
