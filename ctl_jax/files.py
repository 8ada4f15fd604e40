"""Files of a folder that several processes share, on a disk, on NFS or in an object store.

A reader, or the next run, never sees half of a file. Paths with a scheme (`gs://bucket/run`) lie in
an object store, where putting an object is atomic by itself; all others are local.

epath and fsspec write local files in place, so that a crash leaves half of one, and others see it:
here they are written beside, then renamed, or linked where there must be none yet.
"""

import concurrent.futures
import contextlib
import errno
import os
import pathlib
import re
import secrets
import shutil
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias, TypeVar

from etils import epath

from ctl_jax import home, object_store
from ctl_jax.errors import UserError

Path: TypeAlias = pathlib.Path | epath.Path
PathLike: TypeAlias = str | os.PathLike[str]
T = TypeVar("T")
S = TypeVar("S")

# How an address begins, also one with a slash too few, or the path of a Windows drive.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(?=[/\\\\]|$)")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://")
_TEMPORARY = re.compile(r"\..+\.\d+-[0-9a-f]{8}\.tmp(\.|$)")
# Files that are asked for at once: an object store takes some time for each.
_AT_ONCE = 16
# File systems that have no hard links say so in one of these ways.
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK}


def path(text: PathLike) -> Path:
    """A path that can be joined and asked, local or in an object store.

    Args:
      text: of a local file or folder ("~" is expanded), `file:///folder`, or an address in an
        object store, `gs://bucket/run`.

    Returns:
      A `pathlib.Path`, or an `epath.Path` in an object store.

    Raises:
      UserError: an address of another kind (also of a Windows drive), no such user as in "~user",
        or the package that reads the store is not installed.
    """
    text = home.expand(text)
    if not (address := _ADDRESS.match(text)):
        _check_current_folder(text)
        return pathlib.Path(text)
    scheme = address[1].lower()
    if scheme == "file":
        return _local(text)
    if not re.fullmatch(r"gs://[^/]+(/.*)?", text, re.DOTALL):
        what = "gs://BUCKET/FOLDER" if scheme == "gs" else "a local folder or gs://BUCKET/FOLDER"
        raise UserError(f"{text}: expected {what}, found {address[0]!r} at its beginning")
    try:
        object_store.fit(scheme)
        return epath.Path(text)
    except (ImportError, ValueError, NotImplementedError) as error:
        raise UserError(f"{text}: expected pip install 'ctl-jax[gcs]' ({error})") from None


def _check_current_folder(text: str) -> None:
    """Sees whether there is a folder that a relative path starts from."""
    if os.path.isabs(text):
        return
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UserError(
            f"{text}: the current folder is not there any more; expected an absolute path"
        ) from None


def _local(text: str) -> pathlib.Path:
    """The path of a `file:` address (RFC 8089)."""
    rest = text.partition(":")[2]
    if rest.startswith("//"):
        host, slash, below = rest[2:].partition("/")
        rest = slash + below if host in ("", "localhost") else ""
    if not rest.startswith("/"):
        raise UserError(f"{text}: expected file:///FOLDER, or the folder itself")
    return pathlib.Path(urllib.parse.unquote(rest, errors="surrogateescape"))


def is_remote(path: PathLike) -> bool:
    """Whether the path is in an object store."""
    return not isinstance(path, pathlib.Path) and _scheme(os.fspath(path)) != ""


def exists(path: PathLike) -> bool:
    """Whether a file that is not empty is there now, whichever machine made or removed it."""
    if is_remote(path):
        address = os.fspath(path)
        try:
            # One request; to ask whether there is something of that name takes three.
            object_store.ask(address, lambda store: store.cat_file(address, start=0, end=1))
        except FileNotFoundError:
            return False
        return True
    try:
        # NFS remembers for a while that a name was not there; opening its folder asks again.
        os.close(os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY))
    except (FileNotFoundError, NotADirectoryError):
        return False
    return os.path.exists(path)


def at_once(function: Callable[[S], T], items: Iterable[S]) -> list[T]:
    """What a function gives of each item, which may take its time on a network."""
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as threads:
        return list(threads.map(function, items))


def names(folder: PathLike) -> list[str]:
    """Names of what is in a folder, in any order; none where there is no such folder.

    Raises:
      UserError: there is no such bucket.
    """
    if is_remote(folder):
        return _below(folder, "/")
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def tree(folder: PathLike) -> list[str]:
    """Names of all files in a folder and in those below it, relative to it, in any order."""
    if is_remote(folder):
        return _below(folder, "")
    found = pathlib.Path(folder).rglob("*")
    return [path.relative_to(folder).as_posix() for path in found if path.is_file()]


def _below(folder: PathLike, delimiter: str) -> list[str]:
    """What begins with a folder's address, up to the delimiter: one request for a thousand."""
    scheme, _, rest = os.fspath(folder).rstrip("/").partition("://")
    bucket, _, inside = rest.partition("/")
    prefix = f"{inside}/" if inside else ""

    def request(store: Any) -> list[str]:
        # Of the bucket: of a folder that is empty it would be asked whether it is a file.
        return store.ls(f"{scheme}://{bucket}", detail=False, prefix=prefix, delimiter=delimiter)

    try:
        found = object_store.ask(os.fspath(folder), request)
    except FileNotFoundError:
        raise _no_bucket(folder) from None
    start = f"{bucket}/{prefix}"
    below = [name.removeprefix(start) for name in found if name.startswith(start)]
    if delimiter:
        return [name.rstrip("/") for name in below if name]
    # Not the empty objects that some tools make for folders.
    return [name for name in below if name and not name.endswith("/")]


def _no_bucket(path: PathLike) -> UserError:
    bucket = "/".join(os.fspath(path).split("/")[:3])
    return UserError(f"{os.fspath(path)}: there is no bucket {bucket}; expected one that there is")


def read_bytes(path: PathLike) -> bytes:
    """The content of a file."""
    if is_remote(path):
        address = os.fspath(path)
        return bytes(object_store.ask(address, lambda store: store.cat_file(address)))
    return pathlib.Path(path).read_bytes()


def read_text(path: PathLike) -> str:
    """The content of a file (UTF-8)."""
    return read_bytes(path).decode()


def write_bytes(path: PathLike, content: bytes) -> None:
    """Writes `content` to `path`: all of it appears at once, in place of what was there."""
    if is_remote(path):
        _put(path, content, "overwrite")
        return
    with _complete(path, content) as temporary:
        os.replace(temporary, path)


def write_text(path: PathLike, text: str) -> None:
    """Writes `text` (UTF-8) to `path`: all of it appears at once, in place of what was there."""
    write_bytes(path, text.encode())


def create_bytes(path: PathLike, content: bytes) -> bool:
    """Writes `content` to `path` where nothing is yet: all of it appears at once, or nothing.

    Args:
      path: of the file; its folder is made.
      content: unlike what any other process would write there, where it matters who did.

    Returns:
      Whether it was this call that made the file. Of several processes, on any machines, one does.
    """
    if is_remote(path):
        return _put(path, content, "create")
    with _complete(path, content) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            # An NFS server may have made the link and its answer been lost on the way.
            return os.stat(temporary).st_nlink == 2
        except FileNotFoundError:
            # Swept away, by one who knew that nothing is waited for any more.
            if os.path.exists(path):
                return False
            raise
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if os.path.exists(path):
                return False
            os.replace(temporary, path)
    return True


def claim(path: PathLike, content: bytes) -> bool:
    """Makes the small file `path` where nothing is yet; not durable, and cheap.

    A reader may see it without its content for a moment.

    Args:
      path: of the file; its folder must exist (in an object store there are no folders).
      content: unlike what any other process would write there.

    Returns:
      Whether it was this call that made it. Of several processes, on any machines, one does.
    """
    if is_remote(path):
        return _put(path, content, "create")
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return False
    try:
        os.write(handle, content)
    except OSError:
        os.unlink(path)
        raise
    finally:
        os.close(handle)
    return True


def overwrite(path: PathLike, content: bytes) -> None:
    """Replaces the content of a small file that `claim` made.

    In place, since that takes no room: it works on a full disk.

    Raises:
      FileNotFoundError: it is not there any more (an object store makes it again instead).
      Unreachable: an object store does not answer; it is not asked for long.
    """
    if is_remote(path):
        _put(path, content, "overwrite", patient=False)
        return
    handle = os.open(path, os.O_WRONLY)
    try:
        os.write(handle, content)
        os.ftruncate(handle, len(content))
    finally:
        os.close(handle)


def move(source: PathLike, target: PathLike) -> None:
    """Gives a file or folder another name beside its old one; an object is copied and removed.

    Raises:
      FileNotFoundError: it is not there.
    """
    if is_remote(source):
        write_bytes(target, read_bytes(source))
        remove(source)
        return
    os.rename(source, target)


def remove(path: PathLike) -> None:
    """Removes a file, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        if not is_remote(path):
            os.unlink(path)
            return
        address = os.fspath(path)
        object_store.ask(address, lambda store: store.rm_file(address))


def remove_tree(folder: PathLike) -> None:
    """Removes a folder with all that is in it, if it is there."""
    if not is_remote(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    address = os.fspath(folder)
    if found := [f"{address}/{name}" for name in tree(folder)]:
        with contextlib.suppress(FileNotFoundError):
            object_store.ask(address, lambda store: store.rm(found))


def is_temporary(name: str) -> bool:
    """Whether a file or folder of this name is one that a process has not written whole."""
    return _TEMPORARY.match(name) is not None


def sweep(folder: PathLike) -> None:
    """Removes the temporary files and folders that killed processes left, where nobody writes."""
    for name in filter(is_temporary, names(folder)):
        remove_any(f"{os.fspath(folder)}/{name}")


def remove_any(path: PathLike) -> None:
    """Removes a file, or a folder with all that is in it, if it is there."""
    # Not every system says of a folder that it is one.
    with contextlib.suppress(IsADirectoryError, PermissionError):
        remove(path)
    remove_tree(path)


def make_folder(folder: PathLike) -> None:
    """Makes a folder and those above it; an object store needs none."""
    if not is_remote(folder):
        os.makedirs(folder, exist_ok=True)


@contextlib.contextmanager
def _complete(path: PathLike, content: bytes) -> Iterator[str]:
    """Yields a temporary file beside `path` that holds `content`, on the disk; removes it."""
    folder, name = os.path.split(os.path.abspath(path))
    stem, suffix = os.path.splitext(name)
    os.makedirs(folder, exist_ok=True)
    # Unlike that of any other process or thread, also of one on another machine.
    temporary = f"{folder}/.{stem}.{os.getpid()}-{secrets.token_hex(4)}.tmp{suffix}"
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _scheme(text: str) -> str:
    found = _SCHEME.match(text)
    return found[1] if found else ""


def _put(path: PathLike, content: bytes, mode: str, *, patient: bool = True) -> bool:
    """Puts an object; whether it is now the one of this call."""
    address = os.fspath(path)

    def request(store: Any) -> bool:
        try:
            store.pipe_file(address, content, mode=mode)
        except FileExistsError:
            # The store may have kept it, its answer been lost, and the client have asked again.
            with contextlib.suppress(FileNotFoundError):
                return bool(store.cat_file(address) == content)
            return False
        return True

    try:
        return object_store.ask(address, request, patient=patient)
    except FileNotFoundError:
        raise _no_bucket(path) from None
