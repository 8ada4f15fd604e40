"""Writing files so that a reader, or the next run, never sees half of one."""

import contextlib
import os
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path`; what was written there takes its name at the end.

    Nothing is left behind when the body raises.
    """
    final = pathlib.Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    # The process id keeps two processes that share a folder out of each other's way; the suffix
    # stays last because writers such as matplotlib choose the format by it.
    temporary = final.with_name(f".{final.stem}.{os.getpid()}.tmp{final.suffix}")
    try:
        yield temporary
        os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes `content` to `path` under a temporary name and renames it."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes `text` (UTF-8) to `path` under a temporary name and renames it."""
    write_bytes(path, text.encode())
