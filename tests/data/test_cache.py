"""Decoded splits on disk: made once, never half, and told apart."""

import io
import json
import os
import pathlib
import resource
import subprocess
import sys
import time
from concurrent import futures

import numpy as np
import pytest
from PIL import Image

from ctl_jax.data import cache
from ctl_jax.data.dataset import Example
from ctl_jax.errors import UserError

CLASSES = 7


def encode(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (6, 4), (value % 256, 1, 2)).save(file, "PNG")
    return file.getvalue()


class Counted:
    """Records that count how many of them were read; those at `corrupt` are no images."""

    def __init__(self, examples: int = 50, corrupt: tuple[int, ...] = (), name: str = "a") -> None:
        self.examples, self.corrupt, self.name, self.reads = examples, corrupt, name, 0

    def __len__(self) -> int:
        return self.examples

    def read(self, start: int, stop: int) -> list[Example]:
        self.reads += stop - start
        return [
            Example(
                b"noise" if i in self.corrupt else encode(i), i % CLASSES, f"'file', record {i}"
            )
            for i in range(start, stop)
        ]

    def fingerprint(self) -> str:
        return self.name


def load(records, directory, image_size=4, **options):
    return cache.load_split(
        records, image_size, num_classes=CLASSES, directory=directory, **options
    )


def folders(directory: pathlib.Path) -> list[pathlib.Path]:
    return sorted(directory.iterdir())


def test_a_split_is_decoded_once(tmp_path):
    first = load(Counted(), tmp_path)
    again = Counted()
    second = load(again, tmp_path)
    assert again.reads == 0
    for loaded in (first, second):
        np.testing.assert_array_equal(loaded.split.images[:, 0, 0, 0], np.arange(50))
        np.testing.assert_array_equal(loaded.split.labels, np.arange(50) % CLASSES)
        assert loaded.split.images.shape == (50, 4, 4, 3)
        assert loaded.corrupt == ()
    assert first.fingerprint == second.fingerprint
    assert sorted(path.name for path in folders(tmp_path)[0].iterdir()) == [
        "contents.npy",
        "images.npy",
        "labels.npy",
        "split.json",
        "stamp",
    ]


def test_whatever_decides_the_content_makes_another_folder(tmp_path, monkeypatch):
    load(Counted(), tmp_path)
    load(Counted(name="b"), tmp_path)
    load(Counted(examples=49), tmp_path)
    load(Counted(), tmp_path, image_size=5)
    cache.load_split(Counted(), 4, num_classes=CLASSES + 1, directory=tmp_path)
    monkeypatch.setattr(cache.images, "VERSION", "next")
    load(Counted(), tmp_path)
    assert len(folders(tmp_path)) == 6


def test_large_images_stay_on_disk(tmp_path):
    small = load(Counted(), tmp_path)
    large = load(Counted(), tmp_path, memory_bytes=50 * 48 - 1)
    assert not isinstance(small.split.images, np.memmap)
    assert isinstance(large.split.images, np.memmap)
    for loaded in (small, large):
        assert not loaded.split.images.flags.writeable
    np.testing.assert_array_equal(small.split.images, large.split.images)


def test_the_fingerprint_is_of_the_content_alone(tmp_path):
    """Not of files, and not of how the work was cut up."""
    one = load(Counted(600), tmp_path).fingerprint
    assert load(Counted(600, name="elsewhere"), tmp_path).fingerprint == one
    others = [
        load(Counted(599), tmp_path),
        load(Counted(600), tmp_path, image_size=5),
        load(Counted(600, corrupt=(1,)), tmp_path / "other", max_corrupt=1),
    ]
    assert len({one, *(other.fingerprint for other in others)}) == 4


def test_labels_are_part_of_the_fingerprint(tmp_path):
    class Shifted(Counted):
        def read(self, start, stop):
            return [e._replace(label=(e.label + 1) % CLASSES) for e in super().read(start, stop)]

    one, other = load(Counted(), tmp_path), load(Shifted(name="b"), tmp_path)
    np.testing.assert_array_equal(one.split.images, other.split.images)
    assert one.fingerprint != other.fingerprint


def test_progress_goes_up_to_the_whole(tmp_path):
    seen = []
    load(Counted(600, corrupt=(3,)), tmp_path, max_corrupt=1, progress=lambda *a: seen.append(a))
    assert len(seen) > 2
    assert seen == sorted(seen)
    assert seen[-1] == (600, 600)


def test_a_corrupt_example_is_named(tmp_path):
    with pytest.raises(UserError, match=r"^'file', record 20: not an image.*max_corrupt=0"):
        load(Counted(corrupt=(20,)), tmp_path)


def test_corrupt_examples_are_counted_and_named(tmp_path, caplog):
    records = Counted(corrupt=(20, 30))
    message = (
        r"^2 examples are corrupt, more than config.data.max_corrupt=0 allows, the first: 'file', "
        r"record 20: not an image.*; 'file', record 30: not an image"
    )
    with pytest.raises(UserError, match=message):
        load(records, tmp_path)
    # What is decoded need not be so again, once they are allowed.
    read = records.reads
    assert len(load(records, tmp_path, max_corrupt=2).split) == 48
    assert (records.reads, caplog.text) == (read, "")


def test_corrupt_examples_are_left_out_counted_and_logged(tmp_path, caplog):
    for _ in range(2):
        loaded = load(Counted(corrupt=(0, 20)), tmp_path, max_corrupt=2)
        kept = [i for i in range(50) if i not in (0, 20)]
        np.testing.assert_array_equal(loaded.split.images[:, 0, 0, 0], kept)
        np.testing.assert_array_equal(loaded.split.labels, np.asarray(kept) % CLASSES)
        assert [line.partition(":")[0] for line in loaded.corrupt] == [
            "'file', record 0",
            "'file', record 20",
        ]
    assert "2 of 50 examples left out; 'file', record 0: not an image" in caplog.text


def test_a_cache_with_more_corrupt_examples_than_allowed_is_refused(tmp_path):
    records = Counted(corrupt=(5, 6))
    load(records, tmp_path, max_corrupt=2)
    with pytest.raises(UserError, match=r"max_corrupt=1 allows, the first: 'file', record 5"):
        load(records, tmp_path, max_corrupt=1)
    with pytest.raises(UserError, match=r"max_corrupt=0 allows, the first: 'file', record 5"):
        load(records, tmp_path)


def test_a_split_without_a_good_example_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"'file', record 0"):
        load(Counted(2, corrupt=(0, 1)), tmp_path, max_corrupt=5)
    with pytest.raises(UserError, match=r"without examples"):
        load(Counted(0), tmp_path)


def test_large_images_are_looked_at_where_they_were_touched(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "MEMORY_BYTES", 0)
    load(Counted(), tmp_path)
    path = folders(tmp_path)[0] / "images.npy"
    untouched = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    for time_ns, reads in ((untouched.st_mtime_ns, 0), (untouched.st_mtime_ns + 1, 50)):
        os.utime(path, ns=(time_ns, time_ns))
        records = Counted()
        load(records, tmp_path, memory_bytes=0)
        assert records.reads == reads


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "contents.npy", "split.json"])
@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "zeros", "flipped"])
@pytest.mark.parametrize("memory_bytes", [0, 1 << 20])
def test_a_damaged_folder_is_made_anew(tmp_path, name, damage, memory_bytes, caplog):
    load(Counted(), tmp_path)
    assert not caplog.messages
    path = folders(tmp_path)[0] / name
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        flipped = content[:20] + bytes([content[20] ^ 1]) + content[21:]
        zeros = content[:-30] + bytes(30)
        changes = {"cut": content[:-5], "empty": b"", "zeros": zeros, "flipped": flipped}
        path.write_bytes(changes[damage])
    records = Counted()
    loaded = load(records, tmp_path, memory_bytes=memory_bytes)
    assert records.reads == 50
    assert caplog.messages == [
        f"decoded images in {path.parent} are damaged; they are decoded again"
    ]
    np.testing.assert_array_equal(loaded.split.images[:, 0, 0, 0], np.arange(50))
    assert path.read_bytes() == content


def test_an_interrupted_one_leaves_nothing(tmp_path):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(Counted(), tmp_path, progress=interrupt)
    assert folders(tmp_path) == []


KILLED = """
import os, sys, pathlib
sys.path.insert(0, sys.argv[1])
import test_cache
def die(done, total):
    if done > 1000:
        os._exit(9)
test_cache.load(test_cache.Counted(3000), pathlib.Path(sys.argv[2]), progress=die)
"""


@pytest.fixture
def killed(tmp_path) -> pathlib.Path:
    """A cache in which a process was killed while it wrote."""
    arguments = [os.fspath(pathlib.Path(__file__).parent), os.fspath(tmp_path)]
    run = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False)
    assert run.returncode == 9
    (left,) = folders(tmp_path)
    assert (left / "images.npy").stat().st_size
    return tmp_path


def test_what_a_killed_process_left_is_not_used(killed):
    records = Counted(3000)
    load(records, killed)
    assert records.reads == 3000
    # It might still be at work.
    assert len(folders(killed)) == 2


def test_it_is_removed_a_day_later(killed):
    (left,) = folders(killed)
    long_ago = time.time() - 25 * 3600
    other = killed / ".somebody-elses"
    other.mkdir()
    for path in (left, *left.iterdir(), other):
        os.utime(path, (long_ago, long_ago))
    load(Counted(3000), killed)
    assert other.is_dir()
    assert not left.exists()
    assert len(folders(killed)) == 2


def test_several_at_once_agree(tmp_path):
    """Each decodes, the first one to finish is kept, and all return the same."""
    with futures.ThreadPoolExecutor(6) as pool:
        loaded = list(pool.map(lambda _: load(Counted(300), tmp_path, memory_bytes=0), range(6)))
    for one in loaded:
        np.testing.assert_array_equal(one.split.images, loaded[0].split.images)
    assert len(folders(tmp_path)) == 1


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UserError, match=r"file/cache.*Not a directory.*CTL_JAX_CACHE"):
        load(Counted(), file / "cache")


def test_so_is_a_disk_that_is_too_small(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(UserError, match=rf"{tmp_path}.*File too large.*CTL_JAX_CACHE"):
            load(Counted(), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert folders(tmp_path) == []


def test_the_environment_names_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CTL_JAX_CACHE", raising=False)
    assert cache.cache_dir() == tmp_path / "ctl_jax" / "images"
    monkeypatch.setenv("CTL_JAX_CACHE", str(tmp_path / "own"))
    cache.load_split(Counted(), 4, num_classes=CLASSES)
    (folder,) = folders(tmp_path / "own")
    assert json.loads((folder / "split.json").read_text())["corrupt"] == []
