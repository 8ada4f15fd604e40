"""A trained model in the forms that other programs run."""

from ctl_jax.export import primitives  # noqa: F401  (fills the table of operations)
from ctl_jax.export.graph import trace

__all__ = ["trace"]
