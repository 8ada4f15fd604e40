"""FLOPs and latency of a JAX function, budgets, and the ledger of what was spent. Needs jax only.

Example:
  >>> def step(params, batch): ...  # forward, backward, optimiser
  >>> ledger = Ledger().add("train", steps * flops(step, params, batch))

Every primitive of JAX is counted, known to cost nothing, or an error that names it;
`register_flops` tells the cost of another, such as one's own or a Pallas kernel.
"""

from ctl_jax.compute._flops import (
    Count,
    count,
    equation_flops,
    flops,
    flops_along,
    product_flops,
    register_flops,
)
from ctl_jax.compute._latency import latency
from ctl_jax.compute._ledger import Ledger
from ctl_jax.compute.budgets import Budget, Pace

__all__ = [
    "Budget",
    "Count",
    "Ledger",
    "Pace",
    "count",
    "equation_flops",
    "flops",
    "flops_along",
    "latency",
    "product_flops",
    "register_flops",
]
