"""The scale on which a classifier's scores are logits: cross-entropy starts well from them."""

import numpy as np
import scipy.optimize
import scipy.special

# Scores at most: of more images times classes, a part of the images is enough.
_SCORES = 2**20
# Of the factor.
_MOST = 1000.0
# Steps of Newton's method, and how far one may go: offsets by so much, the factor so many times.
_STEPS, _FAR = 15, 3.0


def temperature(
    scores: np.ndarray, labels: np.ndarray, least: float = 1.0
) -> tuple[float, np.ndarray, float]:
    """Factor and offsets that make scores of images that were not fitted to logits.

    Of a single-label task the factor alone is fitted (Guo et al., On Calibration of Modern Neural
    Networks, 2017), so no decision changes; of a multi-label one an offset for each class too,
    which changes no class's order of images. Targets keep away from 0 and 1 by about one example
    (Platt, Probabilistic Outputs for Support Vector Machines, 1999), so that the factor stays
    finite where every score is right.

    Args:
      scores: [n, K].
      labels: int [n], or 0 and 1 [n, K].
      least: of the factor. Scores of least squares are mostly of 0 .. 1: below 1 it would only say
        that few images were right.

    Returns:
      Factor, offsets [K] and the mean cross-entropy in nats that they leave.
    """
    every = max(1, scores.size // _SCORES)
    scores, labels = scores[::every].astype(np.float64), labels[::every]
    if labels.ndim == 2:
        return _sigmoid(scores, labels, least)
    return _softmax(scores, labels, least)


def _softmax(
    scores: np.ndarray, labels: np.ndarray, least: float
) -> tuple[float, np.ndarray, float]:
    off = 1 / (len(labels) + 1)
    # The targets' mean score: of the label, and a little of all classes alike.
    target = (1 - off) * np.take_along_axis(scores, labels[:, None], 1)[:, 0]
    target += off * scores.mean(1)

    def entropy(log_factor: float) -> float:
        factor = np.exp(log_factor)
        return float(np.mean(scipy.special.logsumexp(factor * scores, axis=1) - factor * target))

    found = scipy.optimize.minimize_scalar(
        entropy, bounds=(np.log(least), np.log(_MOST)), method="bounded", options={"xatol": 1e-2}
    )
    return float(np.exp(found.x)), np.zeros(scores.shape[1]), float(found.fun)


def _sigmoid(
    scores: np.ndarray, labels: np.ndarray, least: float
) -> tuple[float, np.ndarray, float]:
    positives = labels.sum(0, dtype=np.int64)
    negatives = len(labels) - positives
    targets = np.where(labels, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    factor = max(least, 1.0)
    offsets = scipy.special.logit((positives + 1) / (len(labels) + 2)) - scores.mean(0)
    for _ in range(_STEPS):
        chances = scipy.special.expit(factor * scores + offsets)
        errors, weights = chances - targets, np.maximum(chances * (1 - chances), 1e-9)
        # Newton's step; of the Hessian all is diagonal but the factor's row.
        each, mixed, diagonal = errors.sum(0), (weights * scores).sum(0), weights.sum(0)
        slope = (errors * scores).sum() - (mixed * each / diagonal).sum()
        curvature = (weights * scores**2).sum() - (mixed**2 / diagonal).sum()
        new = factor - slope / curvature if curvature > 0 else factor
        new = np.clip(new, max(factor / _FAR, least), min(factor * _FAR, _MOST))
        offsets = offsets - np.clip((each + mixed * (new - factor)) / diagonal, -_FAR, _FAR)
        factor = new
    logits = factor * scores + offsets
    return float(factor), offsets, float(np.mean(np.logaddexp(0, logits) - targets * logits))
