"""Compiled programs on disk, so that a second process need not compile them again.

A quickstart-like run of 129 programs (ResNet (1, 1), 32 px, digits; two CPU cores) spent 20 to 28 s
in the compiler, and 0.9 s in this cache with all of them in it (1.3 MB). With only those that took
0.1 s to compile (10 of them) it was 2.2 s, with JAX's own limit of 1 s more; so all are kept.

JAX's own bound (`jax_compilation_cache_max_size`) holds for one version alone, reads the times of
all entries at each new one, and adds none any more once an entry lacks its time: not used here.
"""

import contextlib
import errno
import hashlib
import importlib
import json
import logging
import os
import pathlib
import platform
import sys
import uuid
import warnings
import zlib

import jax
import jaxlib

from ctl_jax import home
from ctl_jax.errors import UserError

# The folder's size at which the programs that were not used for longest are removed.
MAX_BYTES = 2 << 30

# JAX's name of an entry, and ours of the file whose time says which entries were checked.
_ENTRIES = "*-cache"
_CHECKED = ".checked"
# What decides a program in /proc/cpuinfo, on x86 and ARM.
_PROCESSOR = (
    *("vendor_id", "cpu family", "model", "model name", "stepping", "flags"),
    *("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "Features"),
)
_ANOTHER = "the environment variable CTL_JAX_CACHE names another folder for them"
_MIN_COMPILE_TIME = "jax_persistent_cache_min_compile_time_secs"

# How JAX begins to say that an entry is damaged.
_UNREADABLE = "Error reading persistent compilation cache entry"

_log = logging.getLogger(__name__)


def cache_dir() -> pathlib.Path:
    """Where compiled programs are: $CTL_JAX_CACHE/xla, else ctl_jax/xla in the user's cache."""
    return (home.from_variable("CTL_JAX_CACHE") or home.cache()) / "xla"


def enable_cache(max_bytes: int = MAX_BYTES) -> pathlib.Path | None:
    """Turns JAX's persistent compilation cache on, unless the user has chosen another or none.

    Called before the first compilation. Any number of processes may share the cache. Where its
    folder cannot be written a warning is logged, and programs that are there already are used.

    Args:
      max_bytes: about how much the programs of all versions and machines may take.

    Returns:
      The folder, or None where this function turned nothing on.
    """
    names = ("jax_compilation_cache_dir", "jax_enable_compilation_cache")
    chosen, enabled = (getattr(jax.config, name) for name in names)
    if chosen or not enabled:
        return None
    folder = None
    try:
        root = cache_dir()
        root.mkdir(parents=True, exist_ok=True)
        folder = home.in_utf8(root) / _machine()
        # Programs are machine code: nobody else may add one.
        folder.mkdir(mode=0o700, exist_ok=True)
        if not _is_trusted(folder):
            raise PermissionError(errno.EPERM, f"another user can write to {str(folder)!r}")
        _check_writable(folder)
    except (OSError, UserError) as error:  # UserError: there is no home, nor anything for it.
        reason = getattr(error, "strerror", None) or str(error)
        if folder is None or not folder.is_dir() or not _is_trusted(folder):
            _log.warning("compiled programs are not kept: %s; %s", reason, _ANOTHER)
            return None
        _log.warning("programs in %r are used, none is added: %s", str(folder), reason)
        # Longer than anything takes: JAX would warn of each program that it cannot write.
        jax.config.update(_MIN_COMPILE_TIME, 1e9)
    else:
        _remove_damaged(folder)
        _remove_oldest(root, max_bytes)
        if _MIN_COMPILE_TIME.upper() not in os.environ:
            jax.config.update(_MIN_COMPILE_TIME, 0.0)
    # What another process is writing at this moment is only compiled here as well.
    warnings.filterwarnings("ignore", f"{_UNREADABLE}.*", UserWarning)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder


def _machine() -> str:
    """The folder of programs that this machine can run.

    A program for the CPU is compiled for its instructions, and split for its cores. JAX tells
    machines apart by less, and XLA complains at length of a program of another one, or crashes.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    about = [platform.machine(), platform.processor(), str(cores)]
    with contextlib.suppress(OSError):
        # The first core's lines.
        first = pathlib.Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
        about += [line for line in first.splitlines() if line.split(":")[0].strip() in _PROCESSOR]
    digest = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:12]
    return f"jax-{jax.__version__}-{jaxlib.__version__}-{platform.machine()}-{digest}"


def _check_writable(folder: pathlib.Path) -> None:
    probe = folder / f".{uuid.uuid4().hex}.tmp"
    try:
        probe.write_bytes(b"1")
    finally:
        probe.unlink(missing_ok=True)


def _is_trusted(folder: pathlib.Path) -> bool:
    """Whether only this user, or the administrator, can put a program there."""
    if not hasattr(os, "getuid"):
        return True
    about = folder.stat()
    return about.st_uid in (os.getuid(), 0) and not about.st_mode & 0o022


def _remove_damaged(folder: pathlib.Path) -> None:
    """Removes entries that a killed process, or a full disk, left unfinished.

    JAX writes an entry under its final name, warns of a damaged one in each process that reads it,
    and never replaces it. Each is checked once: those that were written since the last check.
    """
    checked = folder / _CHECKED
    with contextlib.suppress(OSError):
        # Those of the last minutes again: clocks of file servers differ.
        since = checked.stat().st_mtime - 300 if checked.exists() else 0.0
        for path in folder.glob(_ENTRIES):
            # Another process may remove it first, or be writing it: it is only compiled again.
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime >= since and not _is_whole(path.read_bytes()):
                    path.unlink()
        checked.touch()


def _is_whole(entry: bytes) -> bool:
    """Whether an entry can be decompressed, by zstandard or else zlib, as JAX has chosen."""
    try:
        if entry.startswith(b"\x28\xb5\x2f\xfd"):
            name = "compression.zstd" if sys.version_info >= (3, 14) else "zstandard"
            importlib.import_module(name).decompress(entry)
        else:
            zlib.decompress(entry)
    except Exception:  # Each library has its own, and a missing one reads nothing either.
        return False
    return True


def _remove_oldest(root: pathlib.Path, max_bytes: int) -> None:
    """Removes what was not used for longest, down to 3/4 of the size, if there is too much."""
    files = []
    for path in root.rglob("*"):
        with contextlib.suppress(OSError):
            about = path.stat()
            if path.is_file() and path.name != _CHECKED:
                files.append((max(about.st_atime, about.st_mtime), about.st_size, path))
    excess = sum(size for _, size, _ in files) - max_bytes
    if excess <= 0:
        return
    excess += max_bytes // 4
    for _, size, path in sorted(files):
        if excess <= 0:
            break
        with contextlib.suppress(OSError):
            path.unlink()
            excess -= size
