"""Orders of a task's images in which every beginning is balanced, and halves of each class."""

import numpy as np


def order(labels: np.ndarray, seed: int, half: int = 0) -> np.ndarray:
    """Images in an order whose beginnings have as many of each class as there can be.

    Each round has one image of every class that has one left; which, and in which order, is random.

    Args:
      labels: int [N], or [N, K] of 0 and 1: an image counts for the rarest of its classes.
      seed: of the order, and of the halves.
      half: 1 or 2: those of one half alone, which has every other image of each class; the other
        half has the rest. 0: all.

    Returns:
      int64 [`size(N, half)`], each image once.
    """
    labels = _one_each(labels)
    if half:
        drawn = np.random.default_rng([seed, 2]).permutation(len(labels))
        chosen = drawn[np.argsort(labels[drawn], kind="stable")][half - 1 :: 2]
        return chosen[order(labels[chosen], seed)]
    drawn = np.random.default_rng(seed).permutation(len(labels))
    by_class = np.argsort(labels[drawn], kind="stable")
    sizes = np.unique(labels, return_counts=True)[1]
    firsts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    rounds = np.empty(len(labels), np.int64)
    rounds[by_class] = np.arange(len(labels)) - firsts
    # Stable: within a round the order is that of the draw.
    return drawn[np.argsort(rounds, kind="stable")]


def size(examples: int, half: int) -> int:
    """How many of some images a half has, 1 or 2; 0 stands for all."""
    return (examples + 2 - half) // 2 if half else examples


def _one_each(labels: np.ndarray) -> np.ndarray:
    """One class an image: of several the rarest, and a class of their own for those of none."""
    if labels.ndim == 1:
        return labels
    counts = labels.sum(axis=0)
    rarest = np.where(labels > 0, counts, counts.max(initial=0) + 1).argmin(axis=1)
    return np.where(labels.any(axis=1), rarest, labels.shape[1])
