"""Folder trees as nobody should make them: they open as what they are, or are refused in a line.

CTL_JAX_FUZZ_TRIES says how many are tried.
"""

import contextlib
import dataclasses
import os
import pathlib
import tempfile
import unicodedata
import zipfile
from collections.abc import Callable, Sequence

import hypothesis
import numpy as np
from hypothesis import strategies as st

from ctl_jax.data import _duplicates
from ctl_jax.data.dataset import DataSet
from ctl_jax.data.formats import image_files
from ctl_jax.data.formats.image_files import FolderRecords, ZipRecords
from ctl_jax.data.sources import folders
from ctl_jax.data.task import SPLITS, TaskSpec
from ctl_jax.errors import UserError

TRIES = int(os.environ.get("CTL_JAX_FUZZ_TRIES", "50"))
SPEC = TaskSpec("pacs", "PACS", "pacs", "nevis", "object", "single_label", 2018)
SPLIT_FOLDERS = ["train", "test", "val", "dev", "dev_test", "train_and_dev", "Train", "training"]
SPLITS_THERE = [[], ["test"], ["val"], ["val", "test"], ["dev", "dev_test", "test"]]
CLASSES = ["cat", "Cat", "dog", "caf\u00e9", "cafe\u0301", "a", "A", "train", "dog ", "猫", "x.y"]
RAW = [b"caf\xe9", b"\x95\\", b"\x83A", b"\x83a"]
WRAPPERS = ["images", "data", "pacs", "train", "test", "new folder", "train_images"]
JUNK = [".git", "@eaDir", "__MACOSX", ".ipynb_checkpoints", "lost+found", "thumbs", "thumbnails"]
FILES = [
    "1.png",
    "2.JPG",
    "3",
    "._1.png",
    "Thumbs.db",
    "1.jpg.json",
    "4.png~",
    "5.part",
    "é.png",
    "1_thumb.png",
]

SEGMENTS = st.sampled_from(
    [name.encode() for name in SPLIT_FOLDERS + CLASSES + WRAPPERS + JUNK] + RAW
)
RawInfo = Callable[[bytes, bool], zipfile.ZipInfo]
LINKS = ("folder", "file", "loop", "nothing", "itself")


@dataclasses.dataclass
class Tree:
    """Paths of files, and of links to folders and files: (kind, where it is, what it is to)."""

    files: set[bytes]
    links: list[tuple[str, bytes, bytes]]


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """A plain tree with things done to it, or now and then one of names at random."""
    if draw(st.integers(0, 9)) == 9:
        paths = st.lists(SEGMENTS, min_size=0, max_size=5)
        return Tree({b"/".join([*draw(paths), draw(_file())]) for _ in range(12)}, [])
    classes = draw(st.lists(_class(), min_size=2, max_size=3, unique=True))
    splits = draw(st.sampled_from(SPLITS_THERE))
    if draw(_rarely()):
        splits = draw(st.lists(st.sampled_from(SPLIT_FOLDERS), max_size=2, unique=True))
    files: set[bytes] = set()
    for split, count in (("train", 6), *((split, 2) for split in splits)):
        names = [draw(_spelt(name)) if draw(_rarely()) else name for name in classes]
        kept = names if split == "train" or draw(st.booleans()) else names[:1]
        above = draw(st.lists(st.sampled_from(WRAPPERS), max_size=2)) if draw(_rarely()) else []
        below = [draw(SEGMENTS)] if draw(_rarely()) else []
        for name in kept:
            parts = [split.encode(), *(each.encode() for each in above), name, *below]
            files |= {b"/".join([*parts, b"%d.png" % number]) for number in range(count)}
    for _ in range(draw(st.integers(0, 4)) if draw(st.booleans()) else 0):
        beside = draw(st.sampled_from(sorted(files))).split(b"/")
        inner = [draw(SEGMENTS)] if draw(st.booleans()) else []
        upper = beside[: draw(st.integers(0, len(beside) - 1))]
        files.add(b"/".join([*upper, *inner, draw(_file())]))
    links = []
    if draw(_rarely()):
        target = draw(st.sampled_from(sorted(files)))
        links.append((draw(st.sampled_from(LINKS)), b"train/" + draw(SEGMENTS), target))
    if draw(_rarely()):
        outer = b"/".join(draw(st.lists(SEGMENTS, min_size=1, max_size=2))) + b"/"
        files, links = {outer + name for name in files}, []
    return Tree(files, links)


def _rarely() -> st.SearchStrategy[bool]:
    # Zero is what hypothesis likes best.
    return st.integers(0, 3).map(lambda number: number == 3)


def _file() -> st.SearchStrategy[bytes]:
    return st.sampled_from([name.encode() for name in FILES] + [b"\xe9.png", b"\x95\\.png"])


def _class() -> st.SearchStrategy[bytes]:
    return st.sampled_from([name.encode() for name in CLASSES] + RAW)


@st.composite
def _spelt(draw: st.DrawFn, name: bytes) -> bytes:
    """The name in another case or Unicode form."""
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return name
    forms = [text.upper(), text.lower(), *(unicodedata.normalize(f, text) for f in ("NFC", "NFD"))]
    return draw(st.sampled_from(forms)).encode()


def build(folder: pathlib.Path, tree: Tree) -> int:
    """Makes the tree, and returns how many files there are; names may clash with folders'."""
    root = os.fsencode(folder)
    count = 0
    for number, name in enumerate(sorted(tree.files)):
        path = os.path.join(root, name)
        with contextlib.suppress(FileExistsError, NotADirectoryError, IsADirectoryError):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "xb") as file:
                # Some are the same.
                file.write(b"%d" % (number // 2))
            count += 1
    for kind, name, target in tree.links:
        path, aim = os.path.join(root, name), os.path.join(root, target)
        aim = {
            "folder": os.path.dirname(aim),
            "loop": root,
            "nothing": aim + b"?",
            "itself": path,
        }.get(kind, aim)
        with contextlib.suppress(FileExistsError, FileNotFoundError, NotADirectoryError):
            os.symlink(aim, path)
    return count


def pack(folder: pathlib.Path, path: pathlib.Path, marked: bool, raw_info: RawInfo) -> None:
    """Archives a folder with its names as they are; those of UTF-8 may be marked so."""
    root = os.fsencode(folder)
    with zipfile.ZipFile(path, "w") as archive:
        for outer, _, names in os.walk(root):
            for name in names:
                raw = os.path.relpath(os.path.join(outer, name), root)
                # What is not UTF-8 cannot be marked so.
                text = raw.decode(errors="replace").encode() == raw
                with open(os.path.join(outer, name), "rb") as file:
                    archive.writestr(raw_info(raw, marked and text), file.read())


def opened(path: pathlib.Path) -> DataSet | str:
    """The data set, or the complaint."""
    dataset: DataSet | None
    notes: tuple[str, ...]
    try:
        dataset = folders.open(SPEC, path)
        contents = image_files.contents(dataset)
        assert contents is not None
        numbers, labels = ({name: pair[i] for name, pair in contents.items()} for i in (0, 1))
        notes = (*dataset.notes, *_duplicates.notes(numbers, labels, dataset.num_classes))
    except UserError as error:
        dataset, notes = None, (str(error),)
    for note in notes:
        assert note.encode().decode().isprintable()
    return dataset or notes[0]


def listed(dataset: DataSet, folder: pathlib.Path) -> dict[str, list[tuple[str, int]]]:
    """For each split the paths of its examples within the data set, and their labels."""
    result = {}
    for split, records in dataset.splits.items():
        if isinstance(records, FolderRecords):
            names: Sequence[str] = [os.path.relpath(path, folder) for path in records.paths()]
        else:
            assert isinstance(records, ZipRecords)
            names = records._entries.names
        result[split] = list(zip(names, records.labels.tolist(), strict=True))
    return result


def plain(name: str) -> str:
    """What names of one class have in common."""
    name = name.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold()).strip(" .")


def test_trees(raw_info: RawInfo) -> None:
    outcomes: list[bool] = []

    @hypothesis.given(tree=trees(), marked=st.booleans())
    @hypothesis.settings(
        max_examples=TRIES, suppress_health_check=list(hypothesis.HealthCheck), print_blob=True
    )
    def run(tree: Tree, marked: bool) -> None:
        with tempfile.TemporaryDirectory() as outer:
            outcomes.append(tried(pathlib.Path(outer) / "pacs", tree, marked, raw_info))

    run()
    # Were it nearly always the same, little would have been tried.
    assert 0.2 < np.mean(outcomes) < 0.8


def tried(folder: pathlib.Path, tree: Tree, marked: bool, raw_info: RawInfo) -> bool:
    """Makes and checks a tree; whether it opens."""
    folder.mkdir()
    count = build(folder, tree)
    check_own(folder)
    found = opened(folder)
    if not tree.links:
        path = folder.with_name("pacs.zip")
        pack(folder, path, marked, raw_info)
        check_own(path)
        packed = opened(path)
        # The same, also what is wrong with it.
        if isinstance(packed, DataSet):
            assert isinstance(found, DataSet), found
            assert listed(packed, folder) == listed(found, folder)
            assert packed.class_names == found.class_names
            assert packed.passed_over == found.passed_over
        elif "unknown encoding" not in packed:
            assert packed.replace("pacs.zip", "pacs") == found
    if not isinstance(found, DataSet):
        return False
    check(found, listed(found, folder), None if tree.links else count)
    return True


def check(dataset: DataSet, examples: dict[str, list[tuple[str, int]]], count: int | None) -> None:
    """What holds for every data set that opens, by other means than its own."""
    every = [example for split in SPLITS for example in examples[split]]
    names = [name for name, _ in every]
    assert len(set(names)) == len(names)
    if count is not None:
        assert len(names) + sum(dataset.passed_over.values()) == count
    assert len({unicodedata.normalize("NFC", name) for name in dataset.class_names}) >= 2
    # train's own examples are in the other splits too, where these are cut from it.
    shown = {label for name, label in every if {"train", "training", "train_and_dev"} & parts(name)}
    for name, label in every:
        assert label in shown
        folders_of = name.split("/")[:-1]
        assert not any(part.startswith(".") or part in JUNK[1:5] for part in folders_of)
        # The class is a folder below that of the split.
        after = next(i for i, part in enumerate(folders_of) if plain(part) in SPLIT_NAMES)
        own = plain(dataset.class_names[label])
        assert own in map(plain, folders_of[after + 1 :])
        if own in SPLIT_NAMES:
            assert own == plain(folders_of[-1]) == "train"
    for name, _ in examples["test"]:
        if any("test" in parts(other) for other in names):
            assert {"test", "train"} & parts(name)


def check_own(path: pathlib.Path) -> None:
    """A user's own set of any tree opens too, with no picture in two splits, or is refused."""
    try:
        dataset = folders.open_path(path, {})
    except UserError as error:
        complaint = str(error)
    else:
        complaint = ""
    assert complaint.encode().decode().isprintable()
    if complaint:
        return
    seen: set[bytes] = set()
    for split in SPLITS:
        examples = dataset.splits[split].read(0, len(dataset.splits[split]))
        own = {one.content for one in examples}
        assert own
        assert not own & seen
        seen |= own
        if split == "train":
            shown = {int(one.label) for one in examples}
        assert {int(one.label) for one in examples} <= shown
    for note in dataset.notes:
        assert note.encode().decode().isprintable()


SPLIT_NAMES = {plain(name) for name in SPLIT_FOLDERS}


def parts(name: str) -> set[str]:
    return {plain(part) for part in name.split("/")[:-1]}
