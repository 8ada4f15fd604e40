"""Zip archives: honest ones against the standard library, and every kind of trick."""

import pathlib
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from ctl_jax.data.formats import zips
from ctl_jax.errors import UserError

CONTENTS = {"a/1.png": b"first" * 100, "b/ü.png": b"second", "a/2.png": b""}


def write(
    path: pathlib.Path, contents: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED
) -> pathlib.Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def patch(path: pathlib.Path, entry: int, offset: int, value: bytes) -> None:
    """Changes bytes of an entry of the central directory."""
    content = bytearray(path.read_bytes())
    place = content.rindex(b"PK\5\6")
    (place,) = struct.unpack_from("<I", content, place + 16)
    for _ in range(entry):
        place += 46 + sum(struct.unpack_from("<HHH", content, place + 28))
    content[place + offset : place + offset + len(value)] = value
    path.write_bytes(content)


def everything(entries: zips.Entries) -> dict[str, bytes]:
    return dict(zip(entries.names, zips.read(entries, range(len(entries))), strict=True))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_contents(tmp_path: pathlib.Path, method: int) -> None:
    path = write(tmp_path / "x.zip", {**CONTENTS, "a/": b""}, method)
    entries = zips.index(path)
    assert everything(entries) == CONTENTS
    chosen = entries.take(np.asarray([2, 0]))
    assert chosen.names == ("a/2.png", "a/1.png")
    assert zips.read(chosen, [1, 0, 1]) == [CONTENTS["a/1.png"], b"", CONTENTS["a/1.png"]]
    assert chosen.where(1) == f"{str(path)!r}, entry 'a/1.png'"


@hypothesis.given(
    contents=st.dictionaries(st.text("abc/ü_.", min_size=1, max_size=8), st.binary(max_size=3000)),
    junk=st.binary(max_size=50),
)
@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
def test_as_the_standard_library(
    tmp_path: pathlib.Path, contents: dict[str, bytes], junk: bytes
) -> None:
    contents = {
        name: content
        for name, content in contents.items()
        if not name.startswith("/") and not name.endswith("/") and ".." not in name.split("/")
    }
    path = tmp_path / "x.zip"
    # What comes first, as in self-extracting archives, moves all offsets.
    path.write_bytes(junk)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            # Extra fields move the data.
            info = zipfile.ZipInfo(name)
            info.extra = struct.pack("<HH", 0x7777, len(content) % 900) + bytes(len(content) % 900)
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    assert everything(zips.index(path)) == contents


def test_threads_read_the_same(tmp_path: pathlib.Path) -> None:
    contents = {f"{i}.png": bytes([i]) * 5000 for i in range(50)}
    entries = zips.index(write(tmp_path / "x.zip", contents))
    with futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: everything(entries), range(20)))
    assert all(answer == contents for answer in answers)


def test_names_from_windows(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "x.zip", {"train\\a\\1.png": b"x"})
    assert zips.index(path).names == ("train/a/1.png",)


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("../evil.png", "path with '..'"),
        ("train/../../evil.png", "path with '..'"),
        ("train\\..\\..\\evil.png", "path with '..'"),
        ("__MACOSX/../../evil.png", "path with '..'"),
        ("../evil/", "path with '..'"),
        ("/etc/evil.png", "absolute path"),
        ("\\evil.png", "absolute path"),
        ("C:/evil.png", "absolute path"),
        ("C:evil.png", "absolute path"),
    ],
)
def test_paths_that_lead_out(tmp_path: pathlib.Path, name: str, named: str) -> None:
    (tmp_path / "inside").mkdir()
    path = write(tmp_path / "inside" / "x.zip", {**CONTENTS, name: b"evil"})
    with pytest.raises(UserError, match=named) as caught:
        zips.index(path)
    assert repr(name) in str(caught.value)
    assert [found.name for found in tmp_path.iterdir()] == ["inside"]


def test_names_with_an_end_in_them(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "x.zip", {"a_b.png": b"x"})
    path.write_bytes(path.read_bytes().replace(b"a_b.png", b"a\0b.png"))
    with pytest.raises(UserError, match="an empty name, or one with a zero byte; expected a path"):
        zips.index(path)


@pytest.mark.parametrize(
    ("kind", "named"),
    [(stat.S_IFLNK, "symbolic link"), (stat.S_IFIFO, "special"), (stat.S_IFCHR, "special")],
)
def test_what_is_no_file(tmp_path: pathlib.Path, kind: int, named: str) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("train/a/1.png")
        info.create_system = 3
        info.external_attr = (kind | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(UserError, match=f"entry 'train/a/1.png' is a {named}"):
        zips.index(path)


@pytest.mark.parametrize("flag", [0x1, 0x40, 0x2000])
def test_encrypted(tmp_path: pathlib.Path, flag: int) -> None:
    path = write(tmp_path / "x.zip", CONTENTS)
    patch(path, 0, 8, struct.pack("<H", flag))
    with pytest.raises(UserError, match=r"entry 'a/1.png' is encrypted|not a whole zip archive"):
        zips.index(path)


def test_names_that_come_twice(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/", b"")
        archive.writestr("a/1.png", b"x")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a/", b"")
        archive.writestr("a\\1.png", b"y")
    with pytest.raises(UserError, match="comes twice"):
        zips.index(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_packings(tmp_path: pathlib.Path, method: int) -> None:
    path = write(tmp_path / "x.zip", CONTENTS, method)
    with pytest.raises(UserError, match=f"method {method}; expected stored or deflated"):
        zips.index(path)


def test_bombs(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "x.zip"
    size = struct.Struct("<I").pack
    write(path, CONTENTS)
    patch(path, 0, 24, size(300 << 20))
    with pytest.raises(UserError, match=f"has {300 << 20} bytes unpacked; expected"):
        zips.index(path)
    write(path, CONTENTS)
    patch(path, 0, 24, size(200 << 20))
    with pytest.raises(UserError, match="bytes unpack to 209715200, which they cannot"):
        zips.index(path)
    # Entries that share what is packed.
    write(path, {"1": bytes(1000) + bytes(range(256)) * 9, "2": b""})
    patch(path, 1, 20, size(300) + size(3000))
    patch(path, 0, 20, size(300) + size(3000))
    with pytest.raises(UserError, match="they overlap"):
        zips.index(path)
    # Zeros shrink a thousandfold.
    write(path, {"1": bytes(17 << 20)})
    with pytest.raises(UserError, match=f"entry '1' would unpack from .* to {17 << 20} bytes"):
        zips.index(path)
    # Files that are not too large by themselves.
    noise = np.random.default_rng(0).bytes(17_000)
    write(path, {str(number): noise for number in range(70)})
    for number in range(70):
        patch(path, number, 24, size(16 << 20))
    with pytest.raises(UserError, match=f"x.zip' would unpack from .* to {1120 << 20} bytes"):
        zips.index(path)


def test_lies_about_sizes(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "x.zip", {"1": bytes(5000)})
    patch(path, 0, 24, struct.pack("<I", 100))
    with pytest.raises(UserError, match="entry '1': it has at least 101 bytes; the list says 100"):
        zips.read(zips.index(path), [0])
    path = write(tmp_path / "x.zip", {"1": bytes(5000)})
    patch(path, 0, 24, struct.pack("<I", 6000))
    with pytest.raises(UserError, match="entry '1': it has 5000 bytes; the list says 6000"):
        zips.read(zips.index(path), [0])


def test_damaged_entries(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "x.zip", {"1": b"some content", "2": b"more"}, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"some content", b"same content"))
    entries = zips.index(path)
    with pytest.raises(UserError, match=f"{str(path)!r}, entry '1': the checksum is wrong"):
        zips.read(entries, [0])
    assert zips.read(entries, [1]) == [b"more"]
    path = write(tmp_path / "y.zip", {"1": bytes(range(256))})
    entries = zips.index(path)
    content = bytearray(path.read_bytes())
    content[31:60] = b"\xff" * 29
    path.write_bytes(content)
    with pytest.raises(UserError, match="entry '1': it cannot be unpacked"):
        zips.read(entries, [0])
    path.write_bytes(b"x" + path.read_bytes())
    with pytest.raises(UserError, match="entry '1': there is no entry at byte 0"):
        zips.read(entries, [0])
    path.write_bytes(path.read_bytes()[1:100])
    with pytest.raises(UserError, match="entry '1': the archive ends within it"):
        zips.read(entries, [0])
    path.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        zips.read(entries, [0])


@hypothesis.given(data=st.data())
@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
def test_any_damage_is_an_error_or_harmless(tmp_path: pathlib.Path, data: st.DataObject) -> None:
    path = write(tmp_path / "x.zip", CONTENTS)
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        found = everything(zips.index(path))
    except UserError:
        return
    # A name may be another, but what is read has its checksum.
    assert set(found.values()) <= set(CONTENTS.values())


def test_no_archive(tmp_path: pathlib.Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"no archive")
    with pytest.raises(UserError, match="not a whole zip archive"):
        zips.index(tmp_path / "x.zip")
    with pytest.raises(UserError, match="not a whole zip archive"):
        zips.index(tmp_path / "nowhere.zip")


@pytest.fixture
def write_raw(
    tmp_path: pathlib.Path, raw_info: Callable[[bytes, bool], zipfile.ZipInfo]
) -> Callable[..., pathlib.Path]:
    """Writes an archive with names of any bytes."""

    def write(names: Sequence[bytes], marked: bool = False, extra: bytes = b"") -> pathlib.Path:
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            for name in names:
                info = raw_info(name, marked)
                info.extra = extra
                archive.writestr(info, b"x")
        return tmp_path / "x.zip"

    return write


def escaped(name: bytes) -> str:
    return name.decode(errors="surrogateescape")


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        # UTF-8, as macOS and Linux write it without saying so.
        (["train/é/1.png".encode(), "train/猫/1.png".encode()], None),
        # Shift JIS: 5C is the second half of a letter, and 41 and 61 are no capital and small A.
        ([b"train/\x95\\/1.png", b"train/\x95\\\x8ew\\.png"], None),
        ([b"train/\x83A/1.png", b"train/\x83a/1.png"], None),
        # GBK, Latin-1 and the code page of DOS.
        ([b"train/\xc3\xa8\xc9\\/1.png"], None),
        ([b"train/caf\xe9/1.png", b"train/caf\x82/1.png"], None),
        # Beside others with "/", a file of the root.
        ([b"train/a/1.png", b"\x95\\.txt"], None),
        # "\\" of Windows.
        ([b"train\\a\\1.png", b"train\\b\\1.png"], ["train/a/1.png", "train/b/1.png"]),
        (["train\\é\\1.png".encode()], ["train/é/1.png"]),
        ([b"train\\\x83A\\1.png"], ["train/\udc83A/1.png"]),
        # "\\" of a name, where "/" separates.
        ([b"train/a\\b/1.png"], ["train/a\\b/1.png"]),
    ],
)
def test_names_in_any_encoding(
    write_raw: Callable[..., pathlib.Path], names: list[bytes], wanted: list[str] | None
) -> None:
    found = zips.index(write_raw(names))
    assert list(found.names) == (wanted or [escaped(name) for name in names])


def test_names_in_utf8_by_their_flag(write_raw: Callable[..., pathlib.Path]) -> None:
    path = write_raw(["train\\表\\1.png".encode()], marked=True)
    assert zips.index(path).names == ("train/表/1.png",)


def test_a_backslash_that_may_be_half_a_letter(write_raw: Callable[..., pathlib.Path]) -> None:
    path = write_raw([b"train\\\x95\\\\1.png"])
    with pytest.raises(UserError, match=r"may be half a letter; expected UTF-8 or /") as caught:
        zips.index(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("of", "wanted"), [(b"train/\x95\\/1.png", "train/表/1.png"), (b"another", None)]
)
def test_names_beside_the_name(
    write_raw: Callable[..., pathlib.Path], of: bytes, wanted: str | None
) -> None:
    raw = b"train/\x95\\/1.png"
    field = struct.pack("<BI", 1, zlib.crc32(of)) + "train/表/1.png".encode()
    extra = struct.pack("<HH", 0x5455, 1) + b"x" + struct.pack("<HH", 0x7075, len(field)) + field
    path = write_raw([raw], extra=extra)
    assert zips.index(path).names == (wanted or escaped(raw),)


def test_folders_are_listed(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "x.zip", {"train/": b"", "train/a/": b"", "train/a/1.png": b"x"})
    assert zips.index(path).folders == ("train/", "train/a/")
