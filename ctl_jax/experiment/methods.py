"""Finetuning methods: what their names mean, and the one name of each."""

import dataclasses
import difflib
import re

from ctl_jax.errors import UserError
from ctl_jax.pruning import SCOPES

_PLAIN = ("dense", "scratch", "linear_probe")
_CUT = re.compile(rf"({'|'.join(SCOPES)}) *@ *((?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)")


@dataclasses.dataclass(frozen=True)
class Method:
    """A way from the pretrained network to the one that is finetuned.

    Attributes:
      name: the same for equal methods, however they were written.
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
        frozen features). A ratio may be any decimal number: .5, 0.50 and 5e-1 are 0.5.

    Returns:
      The method.

    Raises:
      UserError: the name is none of these, or the ratio is outside (0, 1).
    """
    name = name.strip()
    if name in _PLAIN:
        return Method(name, pretrained=name != "scratch", train_backbone=name != "linear_probe")
    match = _CUT.fullmatch(name)
    if match is None:
        forms = (*_PLAIN, *(f"{scope}@RATIO" for scope in SCOPES))
        lower = {form.lower(): form for form in forms}
        close = [lower[each] for each in difflib.get_close_matches(name.lower(), lower, n=1)]
        hint = f"; did you mean {close[0]!r}?" if close and close[0] != name else ""
        raise UserError(
            f"config.methods: unknown method {name!r}; expected one of {', '.join(forms)}{hint}"
        )
    scope, ratio = match[1], float(match[2])
    if not 0 < ratio < 1:
        raise UserError(
            f"config.methods: {name!r} drops {ratio:g} of the channels; expected a ratio between "
            f"0 and 1 (`dense` drops none)"
        )
    return Method(f"{scope}@{ratio!r}", scope=scope, ratio=ratio)
