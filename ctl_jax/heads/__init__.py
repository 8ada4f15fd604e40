"""Heads that are fitted on features, in closed form or nearly."""

from typing import Any

SOLVERS: dict[str, Any] = dict.fromkeys(("ridge", "logistic", "kernel", "mlp"))
