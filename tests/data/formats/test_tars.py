"""Tar archives: what is read, and what is not trusted."""

import io
import pathlib
import tarfile
from collections.abc import Callable
from typing import Any

import pytest

from ctl_jax.data.formats import tars
from ctl_jax.errors import UserError

Change = Callable[[tarfile.TarInfo], Any]


def write(path: pathlib.Path, change: Change = lambda info: None, suffix: str = "") -> pathlib.Path:
    path = path / f"set.tar{suffix and '.'}{suffix}"
    with tarfile.open(path, f"w:{suffix}") as archive:
        for name in ("a", "b/c"):
            info = tarfile.TarInfo(f"set/{name}.png")
            info.size = 700
            if name == "a":
                change(info)
            archive.addfile(info, io.BytesIO(name.encode() * 700) if info.isreg() else None)
    return path


@pytest.mark.parametrize("suffix", ["", "gz", "bz2", "xz"])
def test_entries(suffix: str, tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, suffix=suffix)
    assert tars.is_one(path)
    found = tars.index(path)
    assert (found.names, found.sizes.tolist()) == (("set/a.png", "set/b/c.png"), [700, 700])
    start = int(found.starts[1])
    assert found.path.read_bytes()[start : start + 5] == b"b/cb/"
    assert (found.path == path) == (not suffix)
    # Unpacked once.
    assert tars.index(path).path == found.path


def test_other_files_are_none(tmp_path: pathlib.Path) -> None:
    for content in (b"", b"x" * 1000, b"\x1f\x8bx", b"PK\3\4"):
        (tmp_path / "x").write_bytes(content)
        assert not tars.is_one(tmp_path / "x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i: setattr(i, "name", "../a.png"), r"'\.\./a\.png' has a path with '\.\.'"),
        (lambda i: setattr(i, "name", "a/..\\a.png"), r"has a path with '\.\.'"),
        (lambda i: setattr(i, "name", "/a.png"), "has an absolute path"),
        (lambda i: setattr(i, "name", "set/b/c.png"), r"'set/b/c\.png' comes twice"),
        (lambda i: setattr(i, "type", tarfile.SYMTYPE), "is a link; expected files"),
        (lambda i: setattr(i, "type", tarfile.LNKTYPE), "is a link; expected files"),
        (lambda i: setattr(i, "type", tarfile.FIFOTYPE), "is a special file; expected files"),
    ],
)
def test_entries_that_are_not_trusted(change: Change, message: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match=message):
        tars.index(write(tmp_path, change))


@pytest.mark.parametrize("suffix", ["", "gz", "bz2", "xz"])
def test_a_truncated_archive(suffix: str, tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, suffix=suffix)
    content = path.read_bytes()
    path.write_bytes(content[: 900 if not suffix else len(content) // 2])
    with pytest.raises(UserError, match=r"ends within|not a whole tar archive|cannot be unpacked"):
        tars.index(path)


def test_a_bomb(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tars, "_SMALL", 1 << 20)
    path = tmp_path / "set.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo("a.bmp")
        info.size = 16 << 20
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    with pytest.raises(UserError, match="would unpack to more than 100 times its size"):
        tars.index(path)


def test_an_empty_archive(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w"):
        pass
    assert len(tars.index(path).names) == 0
