"""Finetuning methods: what their names mean, and the one name of each.

A name is START? CUT? ("+" TUNING)?, at least one of them: `dense`, `scratch`, `filters@0.5`,
`filters@0.5+head_bn`, `dense+freeze@2`, `linear_probe` (a tuning alone is that of `dense`). The
tunings are in tunings.py.
"""

import dataclasses
import difflib
import re
from typing import Literal

from ctl_jax.errors import UserError
from ctl_jax.experiment import tunings
from ctl_jax.finetune import Phase
from ctl_jax.pruning import SCOPES

_NUMBER = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_CUT = re.compile(rf"({'|'.join(SCOPES)}) *@ *({_NUMBER})")
_STARTS = ("dense", "scratch")


@dataclasses.dataclass(frozen=True)
class Cut:
    """Which channels go before the finetuning.

    Attributes:
      scope: which groups are cut, one of `pruning.SCOPES`.
      ratio: the fraction of a group's channels that goes.
    """

    scope: str
    ratio: float

    @property
    def name(self) -> str:
        """As in a method's name: `filters@0.5`."""
        return f"{self.scope}@{self.ratio!r}"


@dataclasses.dataclass(frozen=True)
class Method:
    """How a task is learnt: a start, a cut, and a tuning that says which phases follow.

    Attributes:
      start: the weights before the cut: "pretrained" ones, or "random" ones from a trial's seed.
      cut: None where nothing is cut.
      tuning: which phases follow, with its arguments.
    """

    start: Literal["pretrained", "random"] = "pretrained"
    cut: Cut | None = None
    tuning: tunings.Tuning = tunings.FULL

    @property
    def name(self) -> str:
        """The same for equal methods, however they were written."""
        whole = "scratch" if self.start == "random" else "dense"
        parts = [self.cut.name if self.cut else whole]
        if self.tuning != tunings.FULL:
            parts.append(self.tuning.text)
        # A probe of the whole pretrained network is known by that name alone.
        return "+".join(parts).removeprefix("dense+linear_probe") or "linear_probe"

    @property
    def pretrained(self) -> bool:
        """Whether it starts from pretrained weights."""
        return self.start == "pretrained"

    def phases(self, network: tunings.Network) -> tuple[Phase, ...]:
        """The phases, first to last.

        Args:
          network: that is trained.

        Raises:
          UserError: the network has not the stages that the tuning names.
        """
        return self.tuning.phases(network)


def parse_method(name: str) -> Method:
    """Reads a method's name.

    Args:
      name: `dense` (the whole pretrained network), `scratch` (the whole network, from random
        weights), or `filters@0.5`, `channels@0.5`, `all@0.5` (half of each group's channels
        dropped, in that scope of `pruning.SCOPES`); then perhaps `+TUNING`. A ratio may be any
        decimal number: .5, 0.50 and 5e-1 are 0.5.

    Returns:
      The method.

    Raises:
      UserError: the name is none of these, or the ratio is outside (0, 1).
    """
    before, plus, tuning = (part.strip() for part in name.partition("+"))
    if not plus and before.partition("@")[0].strip() in tunings.TUNINGS:
        before, plus, tuning = "dense", "+", before
    cut = _CUT.fullmatch(before)
    if cut is None and before not in _STARTS:
        raise UserError(f"config.methods: unknown method {name.strip()!r}; {_expected(name)}")
    if cut is not None and not 0 < float(cut[2]) < 1:
        raise UserError(
            f"config.methods: {name.strip()!r} drops {float(cut[2]):g} of the channels; expected a "
            f"ratio between 0 and 1 (`dense` drops none)"
        )
    return Method(
        "random" if before == "scratch" else "pretrained",
        Cut(cut[1], float(cut[2])) if cut else None,
        tunings.parse(name.strip(), tuning) if plus else tunings.FULL,
    )


def _expected(name: str) -> str:
    forms = (*_STARTS, *tunings.SHORT, *(f"{scope}@RATIO" for scope in SCOPES))
    lower = {form.lower(): form for form in forms}
    close = [lower[each] for each in difflib.get_close_matches(name.strip().lower(), lower, n=1)]
    hint = f"; did you mean {close[0]!r}?" if close and close[0] != name.strip() else ""
    return f"expected one of {', '.join(forms)}, perhaps with +TUNING{hint}"
