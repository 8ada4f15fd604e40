"""Batches on the device: from images that are kept there, or from ones that are too many for it.

Either way the same seed gives the same batches, so that a trial's numbers do not depend on how
much fits where.
"""

import mmap
import threading
from collections.abc import Generator

import jax
import numpy as np

from ctl_jax.data.decoding import cores

# Images that are kept on the device whole; more are streamed.
DEVICE_BYTES = 1 << 30
# Batches that are read ahead take no more than this, or two batches.
_BUFFER_BYTES = 128 << 20
_BUFFER_BATCHES = 16


class Order:
    """The order in which training sees the examples: `order[k]` are those of batch k.

    Epoch after epoch, each shuffled anew, none cut short: a batch that an epoch's end leaves
    unfilled goes on with the next epoch, so that a task smaller than the batch works too, and every
    example is seen equally often. May be asked from several threads, in any order.
    """

    def __init__(self, examples: int, batch_size: int, seed: int) -> None:
        """Draws nothing yet.

        Args:
          examples: how many there are.
          batch_size: how many indices a batch has.
          seed: the same seed gives the same batches.
        """
        self._examples, self._batch_size, self._seed = examples, batch_size, seed
        self._lock = threading.Lock()
        self._restart()

    def __getitem__(self, batch: int) -> np.ndarray:
        """The indices of a batch, int32 [batch_size]."""
        first = batch * self._batch_size
        last = first + self._batch_size - 1
        epochs = range(first // self._examples, last // self._examples + 1)
        with self._lock:
            drawn = [self._epoch(epoch) for epoch in epochs]
        start = first - epochs[0] * self._examples
        return np.concatenate(drawn)[start : start + self._batch_size]

    def _restart(self) -> None:
        self._generator = np.random.default_rng(self._seed)
        self._drawn: dict[int, np.ndarray] = {}
        self._next = 0

    def _epoch(self, epoch: int) -> np.ndarray:
        """One permutation; the last two are kept, since threads do not ask quite in order."""
        if epoch not in self._drawn:
            if epoch < self._next:
                self._restart()
            while self._next <= epoch:
                drawn = self._generator.permutation(self._examples).astype(np.int32)
                self._drawn[self._next] = drawn
                self._drawn.pop(self._next - 2, None)
                self._next += 1
        return self._drawn[epoch]


def batches(
    images: jax.Array | np.ndarray,
    labels: jax.Array | np.ndarray,
    *,
    batch_size: int,
    seed: int,
    stop: int,
    start: int = 0,
    device_bytes: int = DEVICE_BYTES,
) -> Generator[tuple[jax.Array, jax.Array], None, None]:
    """Batches `start` to `stop` (exclusive) of a training.

    Args:
      images: uint8 [examples, height, width, 3]; may be memory-mapped and larger than memory.
      labels: [examples] or [examples, outputs].
      batch_size: examples a batch.
      seed: of their order, see `Order`.
      stop: how many batches the whole training has.
      start: how many of them were taken before: a training that was interrupted goes on with the
        batch that it would have had.
      device_bytes: images that take no more are put on the device at once; of others grain reads
        some batches ahead in threads.

    Yields:
      Images and labels of a batch, on the device.
    """
    order = Order(len(images), batch_size, seed)
    if isinstance(images, np.ndarray) and images.nbytes > device_bytes:
        yield from _streamed(images, np.asarray(labels), order, batch_size, start, stop)
        return
    images, labels = jax.device_put((images, labels))
    for batch in range(start, stop):
        yield _take(images, labels, order[batch])


@jax.jit
def _take(
    images: jax.Array, labels: jax.Array, index: jax.typing.ArrayLike
) -> tuple[jax.Array, jax.Array]:
    # Apart from the step, whose program would otherwise depend on the number of examples.
    return images[index], labels[index]


def _streamed(
    images: np.ndarray, labels: np.ndarray, order: Order, batch_size: int, start: int, stop: int
) -> Generator[tuple[jax.Array, jax.Array], None, None]:
    import grain  # Takes a second.

    batch_bytes = batch_size * (images.nbytes // len(images))
    ahead = max(2, min(_BUFFER_BATCHES, _BUFFER_BYTES // batch_bytes))
    options = grain.ReadOptions(num_threads=min(4, cores()), prefetch_buffer_size=ahead)
    source = grain.MapDataset.source(_Source(images, labels, order, stop))
    iterator = iter(source.to_iter_dataset(options))
    iterator.set_state({"next_index": start})
    try:
        for batch in iterator:
            yield jax.device_put(batch)
    finally:
        iterator.close()


class _Source:
    """The batches of a training by their number, as grain wants its sources."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, order: Order, stop: int) -> None:
        self._images, self._labels, self._order, self._stop = images, labels, order, stop

    def __len__(self) -> int:
        return self._stop

    def __getitem__(self, batch: int) -> tuple[np.ndarray, np.ndarray]:
        index = self._order[batch]
        # An ndarray of its own also where the images are mapped.
        result = np.asarray(self._images)[index], self._labels[index]
        release(self._images)
        return result


def release(array: np.ndarray) -> None:
    """Gives back the memory of an array's pages, if it is memory-mapped and only read.

    What was read of a mapped file counts as memory of the process until the system needs it for
    something else; so a large set would seem to fill the memory. The file's pages stay in the
    system's cache, and reading them again costs little.

    Args:
      array: mapped or not, or a view of such an array. Its content does not change.
    """
    base: object = array
    while isinstance(base, np.ndarray):
        # Of a mapping that may be written to, pages could hold what is not in the file.
        if isinstance(base.base, mmap.mmap) and not base.flags.writeable:
            if hasattr(mmap, "MADV_DONTNEED"):
                base.base.madvise(mmap.MADV_DONTNEED)
            return
        base = base.base
