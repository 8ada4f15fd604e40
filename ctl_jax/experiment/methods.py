"""How the model that is finetuned comes about."""

import dataclasses
import re

from ctl_jax.errors import UserError
from ctl_jax.pruning import SCOPES

_PLAIN = ("dense", "scratch", "linear_probe")


@dataclasses.dataclass(frozen=True)
class Method:
    """A way from the pretrained network to the one that is finetuned.

    Attributes:
      name: as the config and the results give it.
      scope: which groups are cut; None where nothing is.
      ratio: the fraction of a group's channels that goes; None where nothing is cut.
      pretrained: whether it starts from pretrained weights.
      train_backbone: whether more than the head is trained.
    """

    name: str
    scope: str | None = None
    ratio: float | None = None
    pretrained: bool = True
    train_backbone: bool = True


def parse_method(name: str) -> Method:
    """Reads a method's name.

    Args:
      name: `dense` (the whole pretrained network), `filters@0.5`, `channels@0.5` or `all@0.5` (half
        of each group's channels dropped, in that scope of `pruning.SCOPES`), `scratch` (the whole
        network, from random weights), or `linear_probe` (a linear classifier on the whole network's
        frozen features).

    Returns:
      The method.

    Raises:
      UserError: the name is none of these, or the ratio is outside (0, 1).
    """
    if name in _PLAIN:
        return Method(name, pretrained=name != "scratch", train_backbone=name != "linear_probe")
    match = re.fullmatch(rf"({'|'.join(SCOPES)})@(\d*\.?\d+)", name)
    if match is None:
        known = ", ".join((*_PLAIN, *(f"{scope}@RATIO" for scope in SCOPES)))
        raise UserError(f"config.methods: unknown method {name!r}; expected one of {known}")
    scope, ratio = match[1], float(match[2])
    if not 0 < ratio < 1:
        raise UserError(
            f"config.methods: {name!r} drops {ratio:g} of the channels; expected a ratio between "
            f"0 and 1 (`dense` drops none)"
        )
    return Method(name, scope=scope, ratio=ratio)
