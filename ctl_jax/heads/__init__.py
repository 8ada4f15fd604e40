"""Classifiers on features that are computed once, in closed form and otherwise.

    shards = [Shard(features, labels), ...]  # float16 or float32 [n, D], perhaps memory-mapped
    head = fit("ridge", shards, num_classes=10).head
    logits = features @ head["kernel"] + head["bias"]

Each way to fit is one file of `solvers/`. Needs numpy, scipy and jax only.
"""

from ctl_jax.heads._fitting import SOLVERS, fit, flops, shapes
from ctl_jax.heads.shards import Shard
from ctl_jax.heads.solver import Fitted

__all__ = ["SOLVERS", "Fitted", "Shard", "fit", "flops", "shapes"]
