"""Requests to an object store, made again for as long as it may be away for a while.

No network, names that are not resolved, time-outs and answers such as 503 pass mostly: a run goes
on then, and loses nothing. The client (gcsfs) makes a request again for half a minute by itself.
"""

import logging
import math
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import fsspec

from ctl_jax import interrupts
from ctl_jax.errors import UserError, causes

# How long one request is made again, and the pauses between, which double from the first on.
PATIENCE_S = 300.0
_FIRST_S, _LONGEST_S = 1.0, 16.0

T = TypeVar("T")

# Classes of errors that may pass, by their names, of Python, aiohttp, requests and google.auth:
# not all of these are installed.
_PASSING = {
    *("ConnectionError", "TimeoutError", "gaierror", "FSTimeoutError"),
    *("ClientConnectionError", "ClientPayloadError"),
    *("Timeout", "ChunkedEncodingError", "ContentDecodingError", "ChecksumError"),
    *("TransportError",),
}
_STATUSES = {408, 429, 500, 502, 503, 504}
# What TensorStore, which reads and writes checkpoints, says instead.
_WORDS = re.compile(r"\b(UNAVAILABLE|DEADLINE_EXCEEDED)\b")

# Since when there was no answer, None while there are answers; and since when there are.
_lock = threading.Lock()
_silent_since: float | None = None
_answers_since = -math.inf


class Unreachable(Exception):
    """An object store, or another place, that did not answer for so long that this gives up.

    It is no OSError, since the error of a file that a user named is mostly the user's.
    """


class Refused(OSError):
    """An answer that it may not be: no credentials, or no permission."""


def fit(scheme: str) -> None:
    """Makes the client of a store fit for use.

    Args:
      scheme: of its addresses.

    Raises:
      ImportError: its package is not installed.
      ValueError: there is no such store.
    """
    # Else gcsfs asks before each request of what kind the bucket is, by another service that wants
    # credentials and a permission of its own, and warns each time that it did not hear. Only zonal
    # buckets need it.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    fsspec.get_filesystem_class(scheme)
    log = logging.getLogger("gcsfs")
    if log.level == logging.NOTSET:
        # What it logs, with a traceback of some pages, it raises as well.
        log.setLevel(logging.CRITICAL)


def ask(address: str, request: Callable[[Any], T], *, patient: bool = True) -> T:
    """What an object store answers to a request.

    Args:
      address: such as `gs://bucket/folder`.
      request: called with the store, an fsspec file system; again where that fails in a way that
        may pass. So it has to come to the same when it is made twice.
      patient: whether to make it again here, besides what the client does.

    Raises:
      FileNotFoundError: there is no such object, or bucket.
      FileExistsError: there is one already.
      Refused: whatever else went wrong in the store.
      Unreachable: there was no answer.
    """
    scheme, _, rest = address.partition("://")
    bucket = f"{scheme}://{rest.partition('/')[0]}"
    began, pause = time.monotonic(), _FIRST_S
    while True:
        try:
            # Without its memory of listings: other machines write there too.
            answer = request(fsspec.filesystem(scheme, use_listings_cache=False))
        except Exception as error:
            if not may_pass(error):
                _tell_of_answer(bucket)
                if isinstance(error, FileNotFoundError | FileExistsError | UserError | MemoryError):
                    raise
                # Each store's client has errors of its own.
                raise Refused(f"{address}: {reason(error)}") from error
            _tell_of_silence(bucket, error)
            waited = time.monotonic() - began
            if not patient or waited + pause > PATIENCE_S or interrupts.requested():
                raise Unreachable(f"{address}: no answer ({reason(error)})") from error
        else:
            _tell_of_answer(bucket)
            return answer
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_S)


def may_pass(error: BaseException) -> bool:
    """Whether a request that failed so may be answered later: the store is away for a while."""
    if isinstance(error, FileNotFoundError | FileExistsError | PermissionError | UserError):
        return False
    for each in causes(error):
        names = {cls.__name__ for cls in type(each).__mro__}
        if names & _PASSING or getattr(each, "code", None) in _STATUSES or _WORDS.search(str(each)):
            return True
    return False


def reason(error: BaseException) -> str:
    """What went wrong, one line of no more than 200 characters."""
    text = " ".join(str(error).split()).strip(", ")
    name = type(error).__name__
    return f"{name}: {text}"[:200] if text else name


def answers_since() -> float:
    """Since when (`time.monotonic`) requests are answered; now, while they are not.

    Before, silence means nothing.
    """
    with _lock:
        return _answers_since if _silent_since is None else time.monotonic()


def _tell_of_silence(bucket: str, error: BaseException) -> None:
    global _silent_since
    with _lock:
        news = _silent_since is None
        if news:
            _silent_since = time.monotonic()
    if news:
        print(f"ctl_jax: {bucket}: no answer ({reason(error)}); asking again", file=sys.stderr)


def _tell_of_answer(bucket: str) -> None:
    global _silent_since, _answers_since
    with _lock:
        since, _silent_since = _silent_since, None
        if since is not None:
            _answers_since = time.monotonic()
    if since is not None:
        waited = time.monotonic() - since
        print(f"ctl_jax: {bucket}: answers again, after {waited:.0f} s", file=sys.stderr)
