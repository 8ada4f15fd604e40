"""Decoding of encoded examples to arrays, on all cores and with bounded memory."""

import collections
import hashlib
import os
from collections.abc import Generator, Sequence
from concurrent import futures
from typing import NamedTuple

import numpy as np

from ctl_jax.data import images
from ctl_jax.data.dataset import Example, Records
from ctl_jax.errors import UserError

# What a thread takes at a time: so many bytes, encoded or decoded, and no more examples than this.
_CHUNK_BYTES = 4 << 20
_CHUNK_EXAMPLES = 256
# Examples of the first chunks, from which the size of the others is guessed.
_FIRST_EXAMPLES = 8


class Chunk(NamedTuple):
    """Neighbouring examples of a split, decoded.

    Attributes:
      images: uint8 [N, S, S, 3].
      labels: int32 [N], or uint8 [N, num_classes] of 0 and 1.
      corrupt: those of its examples that are left out: a line for each, which names its file and
        position and what is wrong.
      encoded_bytes: what its examples took encoded.
      contents: int64 [N], a hash of each example's encoded image.
    """

    images: np.ndarray
    labels: np.ndarray
    corrupt: tuple[str, ...]
    encoded_bytes: int
    contents: np.ndarray


def decode(
    records: Records, image_size: int, num_classes: int, multi_label: bool, threads: int
) -> Generator[Chunk, None, None]:
    """Decodes a split on several threads; Pillow lets go of the interpreter's lock meanwhile.

    Args:
      records: the split.
      image_size: S.
      num_classes: labels are checked against it.
      multi_label: whether a label is a vector of 0 and 1.
      threads: how many.

    Yields:
      Chunks, in the order of the examples. At most twice as many as there are threads are in
      memory, of some megabytes each.

    Raises:
      UserError: a label does not fit `num_classes`, or a file cannot be opened.
    """
    total, submitted, done, largest = len(records), 0, 0, image_size**2 * 3
    pending: collections.deque[futures.Future[Chunk]] = collections.deque()
    pool = futures.ThreadPoolExecutor(threads, "decode")
    try:
        while done < total:
            while submitted < total and len(pending) < 2 * threads:
                count = max(1, min(_CHUNK_EXAMPLES, _CHUNK_BYTES // largest))
                stop = min(submitted + (count if done else _FIRST_EXAMPLES), total)
                args = records, submitted, stop, image_size, num_classes, multi_label
                pending.append(pool.submit(_decode_range, *args))
                submitted = stop
            chunk = pending.popleft().result()
            seen = len(chunk.labels) + len(chunk.corrupt)
            largest = max(largest, chunk.encoded_bytes // seen)
            done += seen
            yield chunk
    finally:
        pool.shutdown(cancel_futures=True)


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _decode_range(
    records: Records, start: int, stop: int, size: int, num_classes: int, multi_label: bool
) -> Chunk:
    examples, corrupt = _read(records, start, stop)
    labels = _labels(examples, num_classes, multi_label)
    pixels = np.empty((len(examples), size, size, 3), np.uint8)
    good: list[int] = []
    for index, example in enumerate(examples):
        try:
            pixels[len(good)] = images.decode(example.content, size)
            good.append(index)
        except OSError as error:
            corrupt.append(f"{example.where}: {_line(error)}")
    encoded_bytes = sum(len(example.content) for example in examples)
    contents = np.asarray([_hash(examples[index].content) for index in good], np.int64)
    return Chunk(pixels[: len(good)], labels[good], tuple(corrupt), encoded_bytes, contents)


def _hash(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little", signed=True)


def _read(records: Records, start: int, stop: int) -> tuple[Sequence[Example], list[str]]:
    """Examples `start` to `stop`: one by one where they cannot be read together."""
    try:
        return records.read(start, stop), []
    except OSError as error:
        # Not an example's fault: a file that is gone, a disk that fails.
        raise UserError(_line(error)) from error
    except UserError:
        pass
    examples: list[Example] = []
    corrupt: list[str] = []
    for index in range(start, stop):
        try:
            examples += records.read(index, index + 1)
        except UserError as error:
            corrupt.append(_line(error))
    return examples, corrupt


def _labels(examples: Sequence[Example], num_classes: int, multi_label: bool) -> np.ndarray:
    shape, limit = ((num_classes,), 2) if multi_label else ((), num_classes)
    wanted = f"{num_classes} of 0 and 1" if multi_label else f"0 to {num_classes - 1}"
    for example in examples:
        if np.shape(example.label) != shape:
            raise UserError(f"{example.where}: label {example.label!r}; expected {wanted}")
    labels = np.asarray([example.label for example in examples], np.int64)
    labels = labels.reshape(len(examples), *shape)
    outside = np.flatnonzero((labels < 0) | (labels >= limit))
    if outside.size:
        example = examples[outside[0] // labels[0].size]
        raise UserError(f"{example.where}: label {example.label!r}; expected {wanted}")
    return labels.astype(np.uint8 if multi_label else np.int32)


def _line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
