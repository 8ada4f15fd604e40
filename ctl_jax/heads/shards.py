"""Features of images in shards, and standardised views of them that are read block by block."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ctl_jax.errors import UserError

# Rows that are turned to floats at a time: what matrix products run well on, and little memory.
BLOCK = 2048
# Bytes of standardised features that are kept for another reading.
_HELD = 2**31
# A feature that varies less than this beside its size is constant, but for rounding.
_CONSTANT = 1e-6


class Shard(NamedTuple):
    """Features of some images.

    Attributes:
      features: float16 or float32 [n, D], perhaps memory-mapped.
      labels: int32 [n], in 0 .. K - 1; of a multi-label task uint8 [n, K] of 0 and 1.
    """

    features: np.ndarray
    labels: np.ndarray


class Moments(NamedTuple):
    """Of each feature over all images.

    Attributes:
      mean: float64 [D].
      scale: float64 [D], its standard deviation (over n, not n - 1); 1 of a constant feature.
    """

    mean: np.ndarray
    scale: np.ndarray


class Features:
    """Standardised features of shards; nothing is held but a block at a time.

    Attributes:
      shape: (n, D), D counting the chosen columns alone.
    """

    def __init__(
        self, shards: Sequence[Shard], moments: Moments, columns: np.ndarray | None = None
    ) -> None:
        """Args:
        shards: at least one.
        moments: of all columns.
        columns: which features count, in this order; all by default.
        """
        self._shards, self._moments, self._columns = shards, moments, columns
        chosen = slice(None) if columns is None else columns
        self._mean, self._scale = moments.mean[chosen], moments.scale[chosen]
        self.shape = sum(len(shard.labels) for shard in shards), len(self._mean)

    def select(self, columns: np.ndarray) -> "Features":
        """Those of some columns alone; of all, as indices."""
        return Features(self._shards, self._moments, columns)

    def scaled(self, moments: Moments) -> "Features":
        """The same features, standardised by other moments."""
        return Features(self._shards, moments, self._columns)

    def only(self, indices: np.ndarray) -> "Features":
        """Those of some images alone, which are copied.

        Args:
          indices: ascending.
        """
        return Features([_some(self._shards, indices)], self._moments, self._columns)

    def blocks(self, dtype: type = np.float32) -> Iterator[np.ndarray]:
        """All rows in order, [BLOCK, D] at a time, the last fewer."""
        for raw in _blocks(self._shards):
            yield self._standardise(raw, dtype)

    def matrix(self, dtype: type = np.float32) -> np.ndarray:
        """All rows at once, [n, D]."""
        whole: np.ndarray = np.empty(self.shape, dtype)
        start = 0
        for block in self.blocks(dtype):
            whole[start : start + len(block)] = block
            start += len(block)
        return whole

    def readings(self, dtype: type = np.float32) -> Callable[[], Iterable[np.ndarray]]:
        """`blocks` that are to be read again and again: kept in memory where they are small."""
        if math.prod(self.shape) * np.dtype(dtype).itemsize > _HELD:
            return lambda: self.blocks(dtype)
        held = list(self.blocks(dtype))
        return lambda: held

    def rows(self, indices: np.ndarray, dtype: type = np.float32) -> np.ndarray:
        """Some rows, [len(indices), D].

        Args:
          indices: ascending.
        """
        return self._standardise(_some(self._shards, indices).features, dtype)

    def _standardise(self, raw: np.ndarray, dtype: type) -> np.ndarray:
        if self._columns is not None:
            raw = raw[:, self._columns]
        block: np.ndarray = raw.astype(dtype)
        block -= self._mean.astype(dtype)
        block /= self._scale.astype(dtype)
        return block


def _blocks(shards: Sequence[Shard]) -> Iterator[np.ndarray]:
    """Raw rows, [BLOCK, D] at a time whatever the shards are, on which no sum depends so."""
    parts: list[np.ndarray] = []
    lacking = BLOCK
    for features, _ in shards:
        start = 0
        while start < len(features):
            parts.append(features[start : start + lacking])
            start += len(parts[-1])
            lacking -= len(parts[-1])
            if not lacking:
                yield _joined(parts)
                parts, lacking = [], BLOCK
    if parts:
        yield _joined(parts)


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def labels(shards: Sequence[Shard]) -> np.ndarray:
    """Of all images, int32 [n] or uint8 [n, K]."""
    return np.concatenate([np.asarray(shard.labels) for shard in shards])


def _some(shards: Sequence[Shard], indices: np.ndarray) -> Shard:
    """Some of the images.

    Args:
      shards: of all.
      indices: ascending.
    """
    found, start = [], 0
    for shard in shards:
        end = start + len(shard.labels)
        low, high = np.searchsorted(indices, [start, end])
        found.append(Shard(*(part[indices[low:high] - start] for part in shard)))
        start = end
    return Shard(*map(np.concatenate, zip(*found, strict=True)))


def moments(shards: Sequence[Shard]) -> Moments:
    """Mean and standard deviation of each feature, in one reading.

    Sums are of differences from the first image, in float64 over blocks, so that a constant
    feature has a deviation of exactly 0 and a large mean costs no digits.

    Raises:
      UserError: features that are NaN or infinite.
    """
    first = np.asarray(next(_blocks(shards))[0], np.float32)
    total, squares, count = np.zeros(len(first)), np.zeros(len(first)), 0
    for raw in _blocks(shards):
        with np.errstate(invalid="ignore", over="ignore"):
            block = raw.astype(np.float32) - first
            total += block.sum(0, dtype=np.float64)
        squares += np.einsum("ij,ij->j", block, block, dtype=np.float64)
        count += len(block)
    if not np.isfinite(total).all():
        check_finite(shards)
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    mean += first
    constant = deviation <= _CONSTANT * np.abs(mean)
    return Moments(mean, np.where(constant, 1.0, deviation))


def check_finite(shards: Sequence[Shard]) -> None:
    """Raises where features are NaN or infinite.

    Raises:
      UserError: with how many of how many images.
    """
    bad = images = rows = 0
    for raw in _blocks(shards):
        wrong = ~np.isfinite(raw)
        bad, images = bad + int(wrong.sum()), images + int(wrong.any(1).sum())
        rows += len(raw)
    if bad:
        raise UserError(
            f"features: {bad} numbers of {images} of {rows} images are NaN or infinite; "
            "expected finite numbers"
        )


def check(shards: Sequence[Shard], num_classes: int, multi_label: bool) -> None:
    """Raises where shards do not fit together or the labels are of other classes.

    Raises:
      UserError: no image, or features or labels of another shape, type or range.
    """
    if not sum(len(shard.labels) for shard in shards):
        raise UserError("features: no image; expected at least 1")
    width = shards[0].features.shape[-1]
    for shard in shards:
        features, classes = shard
        if features.ndim != 2 or features.shape != (len(classes), width) or not width:
            raise UserError(
                f"features: shape {list(features.shape)}; expected [{len(classes)}, {width}], a "
                "row for each label and as many columns as the first shard"
            )
        if features.dtype not in (np.float16, np.float32):
            raise UserError(f"features: {features.dtype}; expected float16 or float32")
        expected = (len(classes), num_classes) if multi_label else (len(classes),)
        if classes.shape != expected:
            raise UserError(
                f"labels: shape {list(classes.shape)}; expected {list(expected)} for "
                f"{num_classes} classes"
            )
        low, high = (0, 1) if multi_label else (0, num_classes - 1)
        if len(classes) and not (low <= classes.min() and classes.max() <= high):
            raise UserError(f"labels: {classes.min()} to {classes.max()}; expected {low} to {high}")
