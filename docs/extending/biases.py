"""Bias-only finetuning: Ben Zaken et al., BitFit, 2021 (arXiv:2106.10199)."""

from ctl_jax.experiment.tunings import Network, tuning
from ctl_jax.finetune import Phase


@tuning("biases")
def biases(network: Network) -> tuple[Phase, ...]:
    """The head, and every bias."""
    return (Phase(train=("head/*", *(path for path in network.paths if path.endswith("/bias")))),)
