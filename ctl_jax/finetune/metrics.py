"""Mean average precision, and how far a score may be from the true one."""

import math
import statistics

import numpy as np

_LEVEL = 0.95
_RESAMPLES = 500


def average_precision(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Average precision of each class, as scikit-learn defines it.

    AP = sum over thresholds of (R_n - R_(n-1)) P_n, with the precision P_n and the recall R_n of
    calling every example positive that scores at least the n-th highest score; examples of equal
    score share a threshold. There is no interpolation. A class without a positive example has 0.

    scikit-learn's own takes one class after the other, which of 80 classes takes 12 times as long:
    twenty seconds for the 500 resamples of an interval.

    Args:
      labels: [N, K] of 0 and 1, N at least 1.
      scores: [N, K], the higher the more likely; probabilities or logits give the same. NaN counts
        as lower than any number.

    Returns:
      float64 [K], each in 0 .. 1.
    """
    scores = np.where(np.isnan(scores), -np.inf, scores)
    order = np.argsort(-scores, axis=0, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=0)
    hits = np.take_along_axis(np.asarray(labels, bool), order, axis=0)
    found = np.cumsum(hits, axis=0)
    # For each rank, the last rank of the same score: where the threshold of its score lies.
    ranks = np.arange(len(scores))[:, None]
    is_last = np.ones(scores.shape, bool)
    is_last[:-1] = ranked[:-1] != ranked[1:]
    last = np.where(is_last, ranks, len(scores))
    last = np.minimum.accumulate(last[::-1], axis=0)[::-1]
    precision = np.take_along_axis(found, last, axis=0) / (last + 1)
    return np.sum(precision, axis=0, where=hits) / np.maximum(found[-1], 1)


def mean_average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """The unweighted mean of `average_precision` over all classes, those without a positive too.

    The same as `sklearn.metrics.average_precision_score` with its default, "macro".
    """
    return float(np.mean(average_precision(labels, scores)))


def accuracy_interval(correct: int, examples: int) -> tuple[float, float]:
    """Wilson's 95% confidence interval of an accuracy.

    Wilson, Probable inference, the law of succession, and statistical inference, 1927.

    Args:
      correct: how many examples were right.
      examples: how many there were, at least 1.

    Returns:
      Both ends, in 0 .. 1.
    """
    z = statistics.NormalDist().inv_cdf((1 + _LEVEL) / 2)
    total = examples + z**2
    centre = (correct + z**2 / 2) / total
    half = z / total * math.sqrt(correct * (examples - correct) / examples + z**2 / 4)
    found = correct / examples
    # Where none or all are right, an end is the accuracy itself, but for rounding.
    return max(min(centre - half, found), 0.0), min(max(centre + half, found), 1.0)


def mean_average_precision_interval(labels: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """A 95% confidence interval of `mean_average_precision`: bootstrap percentiles over examples.

    Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13; 500 resamples, always
    the same ones.
    """
    rng = np.random.default_rng(0)
    drawn = (rng.integers(0, len(labels), len(labels)) for _ in range(_RESAMPLES))
    found = [mean_average_precision(labels[index], scores[index]) for index in drawn]
    low, high = np.quantile(found, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)
