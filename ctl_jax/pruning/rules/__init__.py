"""The rules that are built in; importing this fills the table (see `interp.register_rule`)."""

from ctl_jax.pruning.rules import (  # noqa: F401
    control,
    elementwise,
    indexing,
    products,
    reductions,
    shapes,
)
