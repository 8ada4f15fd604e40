"""Standard output and error that last: whatever becomes of their reader, the program goes on.

A terminal is closed, a pipe's reader has seen enough (`| head`), the disk of a log is full: work
that takes hours must not end for that. Nor for a name that a terminal cannot show: it is escaped.
This module imports no library, so that it can be in force while the others are imported.
"""

import errno
import io
import os
import select
import sys
from typing import Any


class _Lasting(io.RawIOBase):
    """An open file that is written to until it fails, and then to nowhere.

    Attributes:
      error: what it failed with; None as long as it did not.
      label: what each line begins with.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._begun = False
        self.error: OSError | None = None
        self.label = b""

    def write(self, content: Any, /) -> int:
        """Writes some of the content, and says how much."""
        if not self.label:
            return self._write(content)
        lines = bytes(content).splitlines(keepends=True)
        labelled = b"".join(
            line if self._begun and not number else self.label + line
            for number, line in enumerate(lines)
        )
        self._begun = not labelled.endswith(b"\n")
        while labelled:
            labelled = labelled[self._write(labelled) :]
        return len(content)

    def _write(self, content: Any) -> int:
        while self.error is None:
            try:
                return os.write(self._descriptor, content)
            except BlockingIOError:
                # Another program has made the terminal or pipe one that does not wait.
                select.select([], [self._descriptor], [])
            except OSError as error:
                self.error = error
        return len(content)

    def writable(self) -> bool:
        """It is written to."""
        return True

    def fileno(self) -> int:
        """The open file's number."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether it is a terminal of this process's own, with nobody else's lines in it."""
        return not self.label and os.isatty(self._descriptor)


_files: dict[str, _Lasting] = {}


def install() -> None:
    """Puts lasting streams in place of `sys.stdout` and `sys.stderr`."""
    _open_closed()
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        before = getattr(sys, name)
        _files[name] = _Lasting(descriptor)
        stream = io.TextIOWrapper(
            io.BufferedWriter(_files[name]),
            encoding=before.encoding if before else "utf-8",
            errors="backslashreplace",
            # Also with PYTHONUNBUFFERED, as containers have it.
            line_buffering=before is not None and (before.line_buffering or before.write_through),
        )
        setattr(sys, name, stream)


def label(text: str) -> None:
    """Begins each line from now on with the text, where `install` was called; "" changes nothing.

    For one of many processes. Their lines come whole and at once, and are plain ones: Open MPI
    gives each of its processes a terminal, and writes all that they print there to one place.
    """
    for name, file in _files.items() if text else ():
        getattr(sys, name).flush()
        file.label = text.encode()
        getattr(sys, name).reconfigure(line_buffering=True)


def settle(status: int, *, printing: bool) -> int:
    """The status that the program ends with, once all that it printed is written.

    Args:
      status: what it would end with.
      printing: whether what it printed is all that it did.

    Returns:
      `status`; 1 instead of 0 where all that it did is lost. A reader who went away wanted no more.
    """
    sys.stdout.flush()
    error = _files["stdout"].error if "stdout" in _files else None
    if error is None or error.errno == errno.EPIPE:
        return status
    print(f"ctl_jax: standard output: {error.strerror}; some of it is lost", file=sys.stderr)
    return status or int(printing)


def _open_closed() -> None:
    """Opens what is closed of descriptors 0, 1 and 2: a file must not get one of these numbers."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free number, so this one.
            os.open(os.devnull, os.O_RDWR)
