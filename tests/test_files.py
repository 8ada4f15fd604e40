"""Files that several processes share: whole or not there, made by one alone, local or remote."""

import errno
import os
import pathlib
import sys
import threading

import fsspec
import pytest

from ctl_jax import files
from ctl_jax.errors import UserError


@pytest.fixture(params=["local", "bucket"])
def folder(request, tmp_path):
    """A folder that does not exist yet, on the disk and in an object store."""
    place = tmp_path if request.param == "local" else request.getfixturevalue("bucket")
    return files.path(f"{place}/run")


def test_writes_reads_lists_and_removes(folder):
    assert files.names(folder) == files.tree(folder) == []
    assert not files.exists(folder / "one.txt")
    files.write_text(folder / "one.txt", "é")
    files.write_bytes(folder / "deep" / "two.bin", b"\0\1")
    assert files.exists(folder / "one.txt")
    assert files.read_text(folder / "one.txt") == "é"
    assert files.read_bytes(folder / "deep" / "two.bin") == b"\0\1"
    assert sorted(files.names(folder)) == ["deep", "one.txt"]
    assert sorted(files.tree(folder)) == ["deep/two.bin", "one.txt"]
    files.write_text(folder / "one.txt", "shorter")
    assert files.read_text(folder / "one.txt") == "shorter"
    files.remove(folder / "one.txt")
    assert not files.exists(folder / "one.txt")
    files.remove(folder / "one.txt")
    files.remove_tree(folder)
    assert files.names(folder) == files.names(folder / "deep") == []
    files.remove_tree(folder)
    with pytest.raises(FileNotFoundError):
        files.read_text(folder / "one.txt")


@pytest.mark.parametrize("make", [files.create_bytes, files.claim])
def test_one_alone_makes_a_file(folder, make):
    files.make_folder(folder)
    together = threading.Barrier(8)
    made = {}

    def create(content: bytes) -> None:
        together.wait()
        made[content] = make(folder / "it", content)

    threads = [threading.Thread(target=create, args=(b"by %d" % n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = (content for content, won in made.items() if won)
    assert files.read_bytes(folder / "it") == winner
    assert files.names(folder) == ["it"]


def test_a_claim_changes_in_place_and_only_where_it_is(tmp_path):
    path = tmp_path / "lease"
    assert files.claim(path, b"a long content")
    before = path.stat().st_ino
    files.overwrite(path, b"short")
    assert (path.read_bytes(), path.stat().st_ino) == (b"short", before)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        files.overwrite(path, b"again")
    assert not path.exists()


@pytest.mark.parametrize("write", [files.write_bytes, files.create_bytes])
def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, write):
    old, new = tmp_path / "old", tmp_path / "new"
    files.write_text(old, "whole")

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    for path in (old, new):
        with pytest.raises(OSError, match="No space left"):
            write(path, b"x" * 100)
    assert files.names(tmp_path) == ["old"]
    assert old.read_text() == "whole"


def test_a_claim_on_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(handle, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        files.claim(tmp_path / "lease", b"x")
    assert files.names(tmp_path) == []


def test_a_link_whose_answer_was_lost_counts_as_made(tmp_path, monkeypatch):
    """NFS: the server made it, the client asked again, and hears that it is there already."""
    link = os.link

    def twice(source, target):
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", twice)
    assert files.create_bytes(tmp_path / "it", b"first")
    assert not files.create_bytes(tmp_path / "it", b"second")
    assert (tmp_path / "it").read_bytes() == b"first"
    assert files.names(tmp_path) == ["it"]


def test_an_upload_whose_answer_was_lost_counts_as_made(bucket):
    store = fsspec.filesystem("gs", use_listings_cache=False)
    store.pipe_file(f"{bucket}/it", b"mine")
    assert files.create_bytes(f"{bucket}/it", b"mine")
    assert not files.create_bytes(f"{bucket}/it", b"another's")


def test_a_file_system_without_links(tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    assert files.create_bytes(tmp_path / "it", b"first")
    assert not files.create_bytes(tmp_path / "it", b"second")
    assert (tmp_path / "it").read_bytes() == b"first"
    assert files.names(tmp_path) == ["it"]


def test_what_killed_processes_left_is_swept_away(tmp_path, monkeypatch):
    """Also while a process that is late still writes: what it would make is there already."""
    link, kept = os.link, ["it", "it.tmp", ".hidden", ".it.tmp.jsonl"]

    def killed(source, target):
        raise KeyboardInterrupt

    def swept(source, target):
        files.sweep(tmp_path)
        link(source, target)

    for name in kept:
        (tmp_path / name).write_text("")
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", killed)
        patch.setattr(os, "unlink", lambda path: None)
        for name in ("new.jsonl", "new"):
            with pytest.raises(KeyboardInterrupt):
                files.create_bytes(tmp_path / name, b"")
    assert len(files.names(tmp_path)) == len(kept) + 2
    monkeypatch.setattr(os, "link", swept)
    assert not files.create_bytes(tmp_path / "it", b"")
    assert sorted(files.names(tmp_path)) == sorted(kept)
    with pytest.raises(FileNotFoundError):
        files.create_bytes(tmp_path / "new", b"")


def test_other_failures_of_a_link_are_told(tmp_path, monkeypatch):
    def fail(source, target):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(OSError, match="Input/output"):
        files.create_bytes(tmp_path / "it", b"first")
    assert files.names(tmp_path) == []


def test_what_an_object_store_raises_is_an_oserror(bucket, monkeypatch):
    class NoCredentialsError(Exception):
        pass

    def refuse(self, path, *args, **kwargs):
        raise NoCredentialsError("log in first")

    store = fsspec.get_filesystem_class("gs")
    for name in ("pipe_file", "cat_file", "exists", "ls", "find", "rm_file", "rm"):
        monkeypatch.setattr(store, name, refuse)
    path = f"{bucket}/it"
    for call in (
        lambda: files.write_text(path, ""),
        lambda: files.create_bytes(path, b""),
        lambda: files.claim(path, b""),
        lambda: files.overwrite(path, b""),
        lambda: files.read_bytes(path),
        lambda: files.exists(path),
        lambda: files.names(path),
        lambda: files.tree(path),
        lambda: files.remove(path),
        lambda: files.remove_tree(path),
    ):
        with pytest.raises(OSError, match="NoCredentialsError: log in first"):
            call()


def test_paths():
    assert files.path("runs/one") == pathlib.Path("runs/one")
    assert isinstance(files.path("runs/one"), pathlib.Path)
    assert not files.is_remote("runs/one")


def test_a_home_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.path("~/runs/one") == tmp_path / "runs/one"
    with pytest.raises(UserError, match="there is no user 'nobody-here'"):
        files.path("~nobody-here/runs")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("file:///runs/one", "/runs/one"),
        ("file:/runs/one", "/runs/one"),
        ("FILE://localhost/a%20b/caf%E9%C3%A9", "/a b/caf\udce9é"),
        ("file:///a?b#c", "/a?b#c"),
        ("runs/x:/y", "runs/x:/y"),
        ("10:30", "10:30"),
        ("a:b/c", "a:b/c"),
    ],
)
def test_addresses_of_local_files(text, path):
    assert files.path(text) == pathlib.Path(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(
            (f"{s}://b/run", "a local folder or gs://")
            for s in ("s3", "S3", "http", "https", "gcs")
        ),
        *(
            (f"{s}://b/run", "a local folder or gs://")
            for s in ("hdfs", "abfss", "memory", "x+y.z")
        ),
        *(
            (text, "a local folder or gs://BUCKET")
            for text in ("C:\\runs", "c:/runs", "C:", "hdfs:/x")
        ),
        *(
            (text, "gs://BUCKET/FOLDER")
            for text in ("gs://", "gs:///run", "gs:/b/run", "gs:", "GS://b")
        ),
        *((text, "file:///FOLDER") for text in ("file://host/run", "file:", "file://", "file:\\x")),
    ],
)
def test_addresses_that_lead_nowhere(text, expected):
    with pytest.raises(UserError) as error:
        files.path(text)
    assert str(error.value).startswith(f"{text}: expected {expected}")
    assert "\n" not in str(error.value)


def test_a_current_folder_that_is_gone(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(UserError, match=r"^runs: the current folder is not there any more"):
        files.path("runs")
    assert files.path("/runs") == pathlib.Path("/runs")


def test_addresses(bucket):
    path = files.path(f"{bucket}/run") / "trials"
    assert str(path) == os.fspath(path) == "gs://bucket/run/trials"
    assert files.is_remote(path)
    assert files.path(path) == path


@pytest.mark.parametrize("text", ["nowhere://bucket/run", "gs://bucket/run"])
def test_stores_that_cannot_be_read(text, monkeypatch):
    """The first is unknown; for the second, a package is missing."""
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UserError, match=f"^{text}: expected ") as error:
        files.path(text)
    assert ("ctl-jax[gcs]" in str(error.value)) == text.startswith("gs")
    assert "\n" not in str(error.value)
