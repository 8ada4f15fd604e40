"""Budgets in money: what the method's own training does on this device for a cent."""

from ctl_jax.compute import Pace
from ctl_jax.compute.budgets import unit

# Of this machine.
_CENTS_PER_HOUR = 4


@unit("cents", "What the method's own training does on this device for a cent.", measured=True)
def cents(amount: float, pace: Pace) -> float:
    return amount / _CENTS_PER_HOUR * 3600 * pace.flops_per_second()
