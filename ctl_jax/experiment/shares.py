"""Which trials are whose: a worker's own share, and in which order it helps the others."""

from collections.abc import Sequence

import numpy as np

from ctl_jax.cluster import Worker


def order(costs: Sequence[float], worker: Worker) -> tuple[list[int], list[int]]:
    """In which order a worker looks at the trials.

    Shares are stretches of the trials as they are listed, so that a task's stay together, of about
    equal cost.

    Args:
      costs: of each trial, none negative.
      worker: whose order.

    Returns:
      Its own share, and then the others': the next worker's first, each from the end, where its
      owner comes last.
    """
    amounts = np.asarray(costs, np.float64)
    if not amounts.any():
        amounts = np.ones(len(amounts))
    ends = np.cumsum(amounts)
    total = ends[-1] if len(ends) else 1.0
    # A trial belongs to the share that its middle lies in.
    owners = np.minimum((ends - amounts / 2) / total * worker.count, worker.count - 1).astype(int)
    bounds = np.searchsorted(owners, np.arange(worker.count + 1)).tolist()
    others = [(worker.index + step) % worker.count for step in range(1, worker.count)]
    return (
        list(range(bounds[worker.index], bounds[worker.index + 1])),
        [index for k in others for index in reversed(range(bounds[k], bounds[k + 1]))],
    )
