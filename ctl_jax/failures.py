"""Errors that are the machine's: a full disk, a folder that cannot be written, too little memory.

They can come from anywhere in this program and the libraries below it, each with words of its own.
"""

import errno
import os
import re

import jax

from ctl_jax.errors import causes
from ctl_jax.object_store import Refused, Unreachable

_AGAIN = "then the same command goes on, and nothing done is lost"
_FULL = f"free some space or choose another --workdir; {_AGAIN}"
_OTHER_KIND = f"expected a file where a folder is, or the reverse: move it away; {_AGAIN}"
_ALLOWED = f"expected a place that this user may read and write; {_AGAIN}"

# What to do about an error of the system.
_SYSTEM = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: f"raise the limit on the size of files (ulimit -f); {_AGAIN}",
    errno.EROFS: _ALLOWED,
    errno.EACCES: _ALLOWED,
    errno.EPERM: _ALLOWED,
    errno.EIO: f"see to the disk; {_AGAIN}",
    errno.ESTALE: f"see to the network file system; {_AGAIN}",
    errno.EMFILE: f"raise the limit on open files (ulimit -n); {_AGAIN}",
}
_KINDS = dict.fromkeys((errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY), _OTHER_KIND)
_SMALLER = (
    "a smaller config.finetune.batch_size (config.pretrain.batch_size while it pretrains), "
    "config.data.image_size or config.model"
)
_BYTES = re.compile(r"allocat\w+ (?:of )?([\d.]+ ?(?:[KMGT]i?B|bytes)?)")


def explain(error: BaseException) -> str | None:
    """One line about an error of the machine: what happened, where, and what to do.

    Args:
      error: as it was caught, with what caused it.

    Returns:
      The line; None where the error is of another kind and its traceback is needed.
    """
    for each in causes(error):
        text = str(each)
        if isinstance(each, Unreachable):
            return f"{text}; see to the network, or wait; {_AGAIN}"
        if isinstance(each, Refused):
            return f"{text}; {_ALLOWED}"
        advised = _SYSTEM | _KINDS
        if isinstance(each, OSError) and each.errno in advised:
            # Of two names the first is a temporary file's.
            name = each.filename if each.filename2 is None else each.filename2
            where = f"{name}: " if name is not None else ""
            return f"{where}{os.strerror(each.errno)}; {advised[each.errno]}"
        # The libraries that write checkpoints have the system's words, but not its exceptions.
        for number, advice in _SYSTEM.items():
            if not isinstance(each, OSError) and os.strerror(number) in text:
                return f"{os.strerror(number)} while saving a checkpoint; {advice}"
        if isinstance(each, MemoryError):
            what = f" ({_first_line(text)})" if text else ""
            return f"the machine is out of memory{what}; expected more of it, or {_SMALLER}"
        if isinstance(each, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in text:
            size = _BYTES.search(text)
            asked = f" (it was asked for {size[1].strip()})" if size else ""
            return f"{_device()} is out of memory{asked}; expected a larger one, or {_SMALLER}"
    return None


def _first_line(text: str) -> str:
    return text.splitlines()[0][:200]


def _device() -> str:
    return f"the device {jax.devices()[0].device_kind}"
