"""The order of a training's examples, and reading them ahead where they are too many for memory.

grain reads ahead; the order is NumPy's. grain's (`shuffle`, `repeat`, `batch`) would be another, so
that all runs' numbers changed, and takes 450 us for a batch of 64 instead of 4.
"""

import mmap
import threading
from collections.abc import Callable, Generator

import numpy as np

from ctl_jax.data.decoding import cores

# Items that are read ahead take no more than this, or two items.
_BUFFER_BYTES = 128 << 20
_BUFFER_ITEMS = 16


class Order:
    """The order in which training sees the examples: `order[k]` are those of batch k.

    Epoch after epoch, each shuffled again, none cut short: a batch that an epoch's end leaves
    unfilled goes on with the next epoch, so that a task smaller than the batch works too, and every
    example is seen equally often. May be asked from several threads, in any order.
    """

    def __init__(
        self, examples: int, batch_size: int, seed: int, among: np.ndarray | None = None
    ) -> None:
        """Draws nothing yet.

        Args:
          examples: how many there are.
          batch_size: how many indices a batch has.
          seed: the same seed gives the same batches.
          among: the indices of those that are seen, each once; all without it.
        """
        self._examples = examples if among is None else len(among)
        self._batch_size, self._seed, self._among = batch_size, seed, among
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
                drawn = self._generator.permutation(self._examples)
                if self._among is not None:
                    drawn = self._among[drawn]
                drawn = drawn.astype(np.int32)
                self._drawn[self._next] = drawn
                self._drawn.pop(self._next - 2, None)
                self._next += 1
        return self._drawn[epoch]


def read_ahead(
    images: np.ndarray, labels: np.ndarray, index_of: Callable[[int], np.ndarray], items: int
) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
    """Examples by their numbers, some items ahead in threads.

    Args:
      images: [examples, ...]; may be memory-mapped and larger than the memory.
      labels: [examples, ...].
      index_of: which examples an item has, an integer array of any shape, the same for all items.
        Called from several threads, not quite in order.
      items: how many there are.

    Yields:
      `images[index], labels[index]` of each item.
    """
    if not items:
        return
    import grain  # Takes a second.

    item_bytes = index_of(0).size * (images.nbytes // len(images))
    ahead = max(2, min(_BUFFER_ITEMS, _BUFFER_BYTES // item_bytes))
    options = grain.ReadOptions(num_threads=min(4, cores()), prefetch_buffer_size=ahead)
    source = grain.MapDataset.source(_Source(images, labels, index_of, items))
    iterator = iter(source.to_iter_dataset(options))
    try:
        yield from iterator
    finally:
        iterator.close()


class _Source:
    """Items by their number, as grain wants its sources."""

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        index_of: Callable[[int], np.ndarray],
        items: int,
    ) -> None:
        self._images, self._labels, self._index_of, self._items = images, labels, index_of, items

    def __len__(self) -> int:
        return self._items

    def __getitem__(self, item: int) -> tuple[np.ndarray, np.ndarray]:
        index = self._index_of(item)
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
