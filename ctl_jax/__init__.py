"""ctl_jax: the most accuracy per FLOP from a pretrained network.

The rooms are imported by name (`from ctl_jax import pruning`), so that `ctl_jax.pruning` and
`ctl_jax.compute` need nothing but jax.
"""

__version__ = "0.1.0"
