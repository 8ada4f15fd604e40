"""k nearest neighbours: how good features are, with nothing fitted to them."""

import numpy as np

# As scikit-learn's KNeighborsClassifier has it, which dm_nevis uses as it is.
NEIGHBOURS = 5
# Distances that are in memory at once.
_AT_ONCE = 1 << 24


def votes(
    train: np.ndarray, labels: np.ndarray, queries: np.ndarray, num_classes: int
) -> np.ndarray:
    """The share of each query's nearest neighbours that are of each class.

    Distances are Euclidean between the features as they are, not normalised, in float64; each of
    the five nearest counts the same, or each of all where there are fewer. Of equally near ones the
    earlier is nearer. The class of the largest share is the prediction, the smallest number of
    equal ones (`finetune.score`), as of scikit-learn's `KNeighborsClassifier()`.

    Args:
      train: [N, D], at least one.
      labels: int [N], or 0 and 1 [N, K] of several labels an image.
      queries: [M, D].
      num_classes: K.

    Returns:
      float64 [M, K].
    """
    train, queries = train.astype(np.float64), queries.astype(np.float64)
    centre = train.mean(axis=0)
    # Differences of large squares would lose what is between near neighbours.
    train, queries = train - centre, queries - centre
    of_class = labels if labels.ndim == 2 else np.arange(num_classes) == labels[:, None]
    squares, count = (train**2).sum(axis=1), min(NEIGHBOURS, len(train))
    shares = np.empty((len(queries), num_classes))
    rows = max(1, _AT_ONCE // len(train))
    for begin in range(0, len(queries), rows):
        part = slice(begin, begin + rows)
        # Without the query's own square, which is the same for all of them.
        distances = squares - 2 * queries[part] @ train.T
        shares[part] = of_class[_least(distances, count)].mean(axis=1)
    return shares


def _least(distances: np.ndarray, count: int) -> np.ndarray:
    """The places of the least numbers of each row, [M, count]; of equal ones the first."""
    last = np.partition(distances, count - 1, axis=1)[:, count - 1 : count]
    nearer, equal = distances < last, distances == last
    lacking = count - nearer.sum(axis=1, keepdims=True)
    chosen = nearer | (equal & (np.cumsum(equal, axis=1) <= lacking))
    return np.nonzero(chosen)[1].reshape(len(distances), count)


def flops(examples: int, queries: int, features: int) -> int:
    """Of the distances: a product of all examples with all queries."""
    return 2 * examples * queries * features
