"""Zip archives of images, read at any place, without trust: nothing is extracted to disk."""

import builtins
import contextlib
import dataclasses
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Sequence

import numpy as np

from ctl_jax.errors import UserError

# No data set of this benchmark has an encoded image of more bytes.
_MOST_BYTES = 1 << 28
# Encoded images hardly shrink, blank bitmaps do, and bombs shrink a thousandfold. More than this is
# for entries of few bytes, in archives of few bytes, when unpacked.
_MOST_RATIO = 100
_SMALL_ENTRY = 1 << 24
_SMALL_ARCHIVE = 1 << 30
# What DEFLATE can reach at most.
_DEFLATE_RATIO = 1032

# What the standard library lets through of broken archives.
_ODDITIES = (EOFError, IndexError, OverflowError, struct.error)

_UTF8 = 0x800  # A bit of an entry's flags: its name is UTF-8.
_UNICODE_PATH = 0x7075
_LOCAL_HEADER = struct.Struct("<4s22xHH")
# Bytes for name and extra fields that are read along with an entry.
_MARGIN = 512
_ENTRY = np.dtype(
    [("start", "<i8"), ("packed", "<i8"), ("size", "<i8"), ("crc", "<u4"), ("method", "<u2")]
)


@dataclasses.dataclass(frozen=True)
class Entries:
    """Attributes:
    path: the archive.
    names: of the entries, with "/"; bytes that are no UTF-8 are surrogates, as in names of files.
    table: [N] with the fields start (of the local header), packed and size (in bytes), crc
      (CRC-32 of the content) and method.
    folders: names of folders that have entries of their own, which empty ones have too.
    """

    path: str
    names: tuple[str, ...]
    table: np.ndarray
    folders: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def take(self, places: np.ndarray) -> "Entries":
        """Some of them, in this order."""
        return Entries(self.path, tuple(self.names[i] for i in places), self.table[places])

    def where(self, place: int) -> str:
        """Archive and entry, for people."""
        return f"{self.path!r}, entry {self.names[place]!r}"


def index(path: str | os.PathLike[str]) -> Entries:
    """Lists the files of an archive, once it is known to be safe to read.

    Raises:
      UserError: it is no whole zip archive; or an entry has an absolute name, one with "..", or
        one that comes twice; is a link or device; is encrypted; is packed in another way than
        stored or deflated; or would unpack to more than an image can be.
    """
    name = os.fspath(path)
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            size = os.path.getsize(path)
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError, *_ODDITIES) as error:
        raise UserError(f"{name!r} is not a whole zip archive: {error}") from error
    seen: set[str] = set()
    files: list[zipfile.ZipInfo] = []
    names: list[str] = []
    folders: list[str] = []
    slashes = any("/" in info.orig_filename for info in infos)
    for info in infos:
        try:
            inner = _name(info, slashes)
        except ValueError as error:
            raise UserError(f"{name!r}: entry {info.orig_filename!r} {error}") from None
        problem = _problem(info, inner, size)
        if inner in seen:
            problem = "comes twice"
        if problem is not None:
            raise UserError(f"{name!r}: entry {info.orig_filename!r} {problem}")
        if inner.endswith("/"):
            folders.append(inner)
        else:
            seen.add(inner)
            files.append(info)
            names.append(inner)
    _check_sizes(name, files, size)
    rows = [
        (info.header_offset, info.compress_size, info.file_size, info.CRC, info.compress_type)
        for info in files
    ]
    return Entries(name, tuple(names), np.asarray(rows, _ENTRY), tuple(folders))


def read(entries: Entries, places: Iterable[int]) -> list[bytes]:
    """The contents of entries, in this order. May be called from several threads at once.

    Raises:
      UserError: the archive cannot be read, or an entry is not what the archive's list says.
    """
    try:
        with builtins.open(entries.path, "rb", buffering=0) as file:
            return [_read(file.fileno(), entries, place) for place in places]
    except OSError as error:
        raise UserError(f"{entries.path!r} cannot be read: {error.strerror}") from error


def _name(info: zipfile.ZipInfo, slashes: bool) -> str:
    """The name of an entry with "/", read as UTF-8 whatever the archive says.

    Names that are not marked as UTF-8 are in the code page of some machine, which is not known.
    Many are UTF-8 all the same. The bytes of others are kept: they tell classes apart, and a guess
    may not, as a byte 5C, or that of a letter's case, may be the second half of another letter.

    Args:
      info: the entry.
      slashes: whether any entry has "/".

    Raises:
      ValueError: bytes 5C may be separators or halves of letters.
    """
    name = info.orig_filename
    if not info.flag_bits & _UTF8:
        raw = name.encode("cp437")  # As the standard library has read it.
        name = _unicode_path(info.extra, raw) or raw.decode(errors="surrogateescape")
    # Some write "\" for a separator, and then no "/"; elsewhere it is part of a name.
    if "/" in name or "\\" not in name:
        return name
    if re.search("[\udc80-\udcff]", name) and re.search(r"[^\x00-\x7f]\\", name):
        if slashes:
            return name
        raise ValueError(
            "has a name in an unknown encoding, where \\ may be half a letter; expected UTF-8 or /"
        )
    return name.replace("\\", "/")


def _unicode_path(extra: bytes, raw: bytes) -> str | None:
    """The name in Info-ZIP's Unicode Path field (APPNOTE.TXT 4.6.9), if it is of this name."""
    place = 0
    while place + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, place)
        field = extra[place + 4 : place + 4 + length]
        # Version, checksum of the name that it is of, and the name.
        head = struct.pack("<BI", 1, zlib.crc32(raw))
        if kind == _UNICODE_PATH and field.startswith(head):
            with contextlib.suppress(UnicodeDecodeError):
                return field[len(head) :].decode() or None
        place += 4 + length
    return None


def _problem(info: zipfile.ZipInfo, name: str, size: int) -> str | None:
    """Why an entry of an archive of `size` bytes cannot be trusted, if so."""
    mode = stat.S_IFMT(info.external_attr >> 16)
    # Whatever "\" is here, to others it separates.
    parts = name.replace("\\", "/").split("/")
    if (not parts[0] and len(parts) > 1) or (name[:1].isalpha() and name[1:2] == ":"):
        return "has an absolute path; expected one within the archive"
    if ".." in parts:
        return "has a path with '..'; expected one within the archive"
    if not name or "\0" in name:
        return "has an empty name, or one with a zero byte; expected a path within the archive"
    if stat.S_ISLNK(mode):
        return "is a symbolic link; expected files"
    if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a special file; expected files"
    # Bit 0: encrypted; 6: strongly so; 13: the list too.
    if info.flag_bits & 0x2041:
        return "is encrypted; expected an archive without a password"
    if not 0 <= info.header_offset < size:
        return f"begins at byte {info.header_offset}; the archive has {size}"
    if name.endswith("/"):
        return None
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"is packed with method {info.compress_type}; expected stored or deflated"
    if info.file_size > _MOST_BYTES:
        return f"has {info.file_size} bytes unpacked; expected {_MOST_BYTES} at most"
    limit = _DEFLATE_RATIO if info.compress_type == zipfile.ZIP_DEFLATED else 1
    if info.file_size > limit * info.compress_size:
        return f"says that {info.compress_size} bytes unpack to {info.file_size}, which they cannot"
    if info.file_size > max(_SMALL_ENTRY, _MOST_RATIO * info.compress_size):
        return (
            f"would unpack from {info.compress_size} to {info.file_size} bytes; "
            f"expected {_MOST_RATIO} times as many at most"
        )
    return None


def _check_sizes(name: str, files: Sequence[zipfile.ZipInfo], size: int) -> None:
    """Guards against bombs: entries that share their bytes, or that unpack to far too much."""
    packed = sum(info.compress_size for info in files)
    if packed > size:
        raise UserError(
            f"{name!r} has {size} bytes, its entries say {packed} before unpacking: they overlap"
        )
    unpacked = sum(info.file_size for info in files)
    if unpacked > max(_SMALL_ARCHIVE, _MOST_RATIO * size):
        raise UserError(
            f"{name!r} would unpack from {size} to {unpacked} bytes; "
            f"expected {_MOST_RATIO} times as many at most"
        )


def _read(descriptor: int, entries: Entries, place: int) -> bytes:
    start, packed, size, crc, method = entries.table[place].tolist()
    block = os.pread(descriptor, _LOCAL_HEADER.size + _MARGIN + packed, start)
    if len(block) < _LOCAL_HEADER.size or block[:4] != b"PK\3\4":
        raise UserError(f"{entries.where(place)}: there is no entry at byte {start}")
    _, name_length, extra_length = _LOCAL_HEADER.unpack_from(block)
    first = _LOCAL_HEADER.size + name_length + extra_length
    if first + packed > len(block):
        block = os.pread(descriptor, first + packed, start)
    content = block[first : first + packed]
    if len(content) < packed:
        raise UserError(f"{entries.where(place)}: the archive ends within it")
    if method == zipfile.ZIP_DEFLATED:
        unpack = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            # One byte more than there should be tells a lie from the truth.
            content = unpack.decompress(content, size + 1)
        except zlib.error as error:
            raise UserError(f"{entries.where(place)}: it cannot be unpacked: {error}") from error
    if len(content) != size:
        least = "at least " if len(content) > size else ""
        raise UserError(
            f"{entries.where(place)}: it has {least}{len(content)} bytes; the list says {size}"
        )
    if zlib.crc32(content) != crc:
        raise UserError(f"{entries.where(place)}: the checksum is wrong")
    return content
