"""A training's batches on the device: from images that are kept there, or streamed to it.

Either way the same seed gives the same batches, so that a trial's numbers do not depend on how
much fits where.
"""

import dataclasses
import functools
import weakref
from collections.abc import Callable, Generator
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from ctl_jax.data import streaming
from ctl_jax.finetune import sharding

# Images that are kept on each device whole; more are streamed.
DEVICE_BYTES = 1 << 30
# The images of a chunk take no more than this, or those of one batch.
CHUNK_BYTES = 256 << 20


class Chunk(NamedTuple):
    """Some batches, on the devices of a mesh.

    Attributes:
      updates: how many of them count; the others fill the arrays up, so that all of a training
        have one shape.
      images: uint8 [length, batch, height, width, 3]; each batch is split among the devices.
      labels: [length, batch] or [length, batch, outputs].
    """

    updates: int
    images: jax.Array
    labels: jax.Array


@dataclasses.dataclass(frozen=True)
class ChunkEnds:
    """Where a training's chunks end: at multiples of `every` and at its end, and between these.

    A sequence of numbers of updates, growing, the last of which is `stop`; empty if nothing is left
    to do. Each is computed when it is asked for: a training may have a billion.

    Attributes:
      start: updates made before.
      stop: updates in all.
      every: so that something is done every so many updates, also after an interruption.
      length: the most updates of a chunk.
    """

    start: int
    stop: int
    every: int
    length: int

    @property
    def _first(self) -> int:
        """The first multiple of `every` after the start."""
        return self.start - self.start % self.every + self.every

    def __len__(self) -> int:
        if self.stop <= self._first:
            return max(0, _ceil(self.stop - self.start, self.length))
        whole, rest = divmod(self.stop - self._first, self.every)
        before = _ceil(self._first - self.start, self.length)
        return before + whole * _ceil(self.every, self.length) + _ceil(rest, self.length)

    def __getitem__(self, chunk: int) -> int:
        if not 0 <= chunk < len(self):
            raise IndexError(chunk)
        begin, end = self.start, self._first
        if (later := chunk - _ceil(end - begin, self.length)) >= 0:
            looks, chunk = divmod(later, _ceil(self.every, self.length))
            begin = end + looks * self.every
            end = begin + self.every
        return min(begin + (chunk + 1) * self.length, end, self.stop)


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def chunks(
    images: jax.Array | np.ndarray,
    labels: jax.Array | np.ndarray,
    *,
    mesh: Mesh,
    batch_size: int,
    seed: int,
    ends: ChunkEnds,
    before: int = 0,
    device_bytes: int = DEVICE_BYTES,
    among: np.ndarray | None = None,
) -> Generator[Chunk, None, None]:
    """The chunks of a training.

    Args:
      images: uint8 [examples, height, width, 3]; may be memory-mapped and larger than memory. In a
        group of processes each has all of them, and reads its own part.
      labels: [examples] or [examples, outputs].
      mesh: the devices.
      batch_size: examples a batch, a multiple of the number of devices.
      seed: of their order, see `streaming.Order`.
      ends: of the chunks. Each has as many batches as the longest, those that do not count among
        them. A training that was interrupted goes on with the batch that it would have had.
      before: updates that `ends` counts and that other data was for: the first batch comes after.
      device_bytes: images that take no more are put on each device at once; of others, threads read
        some chunks ahead.
      among: the examples that are seen, see `streaming.Order`.

    Yields:
      Each chunk. What is asked for early is on its way while the device works.
    """
    order = streaming.Order(len(images), batch_size, seed, among)
    rows = sharding.rows(mesh, batch_size)

    def begin(chunk: int) -> int:
        return ends[chunk - 1] if chunk else ends.start

    def index_of(chunk: int) -> np.ndarray:
        # The last batch fills the chunk up.
        batches = np.minimum(begin(chunk) + np.arange(ends.length), ends[chunk] - 1)
        return np.stack([order[int(batch) - before][rows] for batch in batches])

    counts = (ends[chunk] - begin(chunk) for chunk in range(len(ends)))
    if isinstance(images, np.ndarray) and images.nbytes > device_bytes:
        read = streaming.read_ahead(images, np.asarray(labels), index_of, len(ends))
        try:
            for count, examples in zip(counts, read, strict=True):
                yield Chunk(count, *sharding.shard(mesh, examples, axis=1))
        finally:
            read.close()
        return
    kept = _resident(mesh, images), sharding.replicate(mesh, labels)
    for chunk, count in enumerate(counts):
        index = sharding.shard(mesh, index_of(chunk), axis=1)
        yield Chunk(count, *_gather(mesh)(*kept, index))


@functools.cache
def _gather(mesh: Mesh) -> Callable[..., tuple[jax.Array, jax.Array]]:
    # Apart from the step, whose program would otherwise depend on the number of examples.
    return jax.jit(
        lambda images, labels, index: (images[index], labels[index]),
        out_shardings=sharding.split(mesh, axis=1),
    )


class _Kept(NamedTuple):
    """The images of the task that was trained on last, for its next trial."""

    host: weakref.ref[np.ndarray]
    mesh: Mesh
    placed: jax.Array


_kept: _Kept | None = None


def _resident(mesh: Mesh, images: jax.Array | np.ndarray) -> jax.Array:
    """Images on every device; of arrays that can not be written to, the last are found there."""
    global _kept
    if not isinstance(images, np.ndarray) or images.flags.writeable:
        return sharding.replicate(mesh, images)
    if _kept is None or _kept.host() is not images or _kept.mesh != mesh:
        _kept = None  # There may be no room for both.
        _kept = _Kept(weakref.ref(images, _forget), mesh, sharding.replicate(mesh, images))
    return _kept.placed


def _forget(host: weakref.ref[np.ndarray]) -> None:
    global _kept
    if _kept is not None and _kept.host is host:
        _kept = None
