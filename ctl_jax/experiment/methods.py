"""Finetuning methods: what their names mean, and the one name of each.

A name is (LEARNER ":")? NETWORK ("@" COUNT "stages")? ("@" SIZE "px")? ("+" TUNING)?, at least one
of the three capitalised: `dense`, `scratch`, `filters@0.5`, `dense@48px`, `dense@2stages+probe`,
`filters@0.5+head_bn`, `dense+freeze@2`, `probe` (a tuning alone is that of `dense`). A cut may name
a criterion, an allocation and corrections, in any order, `filters@0.5:taylor:isomorphic:lsq:bn`;
`scratch:filters@0.5` has the widths of a cut and random weights. The tunings are in tunings.py.

A learner says from which earlier task of the stream each task starts, see learners/: `previous`,
`dynamic:filters@0.5`, `previous:auto`. Without one each task starts from what it would without the
others: `pretrained:filters@0.5` is `filters@0.5`, and `independent:filters@0.5` is
`scratch:filters@0.5`.
"""

import dataclasses
import difflib
import functools
import re
from typing import Any, Literal

from ctl_jax.errors import UserError
from ctl_jax.experiment import tunings
from ctl_jax.finetune import Phase
from ctl_jax.pruning import ALLOCATIONS, CRITERIA, SCOPES

_NUMBER = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_CUT = re.compile(rf"({'|'.join(SCOPES)}) *@ *({_NUMBER})((?: *: *\w+)*)")
_SIZE = re.compile(r"(.*?) *@ *([0-9]+) *px")
_STAGES = re.compile(r"(.*?) *@ *([0-9]+) *stages?")
_STARTS = ("dense", "scratch")
Start = Literal["pretrained", "random"]
# What stands where a learner's name does, of methods whose tasks have nothing to do with another.
_ALONE: dict[str, Start] = {"pretrained": "pretrained", "independent": "random"}
_UNIFORM, _LSQ, _STATISTICS = "uniform", "lsq", "bn"

# Learners by name; filled by experiment.learners, which rests on this module.
LEARNERS: dict[str, Any] = {}


@dataclasses.dataclass(frozen=True)
class Cut:
    """Which channels go before the finetuning.

    Attributes:
      scope: which groups are cut, one of `pruning.SCOPES`.
      ratio: the fraction of a group's channels that goes.
      criterion: one of `pruning.CRITERIA`; "" is that of the config.
      allocation: one of `pruning.ALLOCATIONS`.
      lsq: whether what read the channels that are gone is corrected by least squares.
      statistics: whether BatchNorm's statistics are estimated again, from images of the task.
    """

    scope: str
    ratio: float
    criterion: str = ""
    allocation: str = _UNIFORM
    lsq: bool = False
    statistics: bool = False

    @property
    def name(self) -> str:
        """As in a method's name: `filters@0.5`, `filters@0.5:taylor`."""
        allocation = self.allocation if self.allocation != _UNIFORM else ""
        repairs = (_LSQ if self.lsq else "", _STATISTICS if self.statistics else "")
        words = (self.criterion, allocation, *repairs)
        return ":".join([f"{self.scope}@{self.ratio!r}", *filter(None, words)])


@dataclasses.dataclass(frozen=True)
class Method:
    """How a task is learnt: a start, a cut, and a tuning that says which phases follow.

    Attributes:
      start: the weights before the cut: "pretrained" ones, or "random" ones from a trial's seed.
      cut: None where nothing is cut.
      tuning: which phases follow, with its arguments.
      image_size: side of the images in pixels; 0 is that of the config.
      stages: the first ones of the network, which alone are used; 0 is all.
      learner: a key of `LEARNERS`: from which earlier task each one starts; "" is from none.
    """

    start: Start = "pretrained"
    cut: Cut | None = None
    tuning: tunings.Tuning = tunings.FULL
    image_size: int = 0
    stages: int = 0
    learner: str = ""

    @property
    def name(self) -> str:
        """The same for equal methods, however they were written."""
        if self.learner:
            alone = self.alone.name
            return self.learner if alone == _STARTS[0] else f"{self.learner}:{alone}"
        whole = "scratch" if self.start == "random" else "dense"
        network = whole
        if self.cut:
            network = f"scratch:{self.cut.name}" if self.start == "random" else self.cut.name
        if self.stages:
            network += f"@{self.stages}stages"
        if self.image_size:
            network += f"@{self.image_size}px"
        if self.tuning == tunings.FULL:
            return network
        # A probe of the whole pretrained network is known by that name alone.
        if network == "dense" and self.tuning.name in tunings.SHORT:
            return self.tuning.text
        return f"{network}+{self.tuning.text}"

    @property
    def alone(self) -> "Method":
        """The same without its learner."""
        return dataclasses.replace(self, learner="")

    @property
    def is_auto(self) -> bool:
        """Whether the budget decides which of other methods it is, see `experiment.auto`."""
        return self.tuning.name == tunings.AUTO

    @property
    def is_open(self) -> bool:
        """Whether the widths of its network are known only when its cut is done."""
        return self.cut is not None and self.cut.allocation != "uniform"

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


@functools.cache
def parse_method(name: str) -> Method:
    """Reads a method's name.

    Args:
      name: `dense` (the whole pretrained network), `scratch` (the whole network, from random
        weights), or `filters@0.5`, `channels@0.5`, `all@0.5` (half of each group's channels
        dropped, in that scope of `pruning.SCOPES`, see above for more); then perhaps
        `@2stages`, the first of the network's stages alone, `@48px`, the size of the images, and
        `+TUNING`. A ratio may be any decimal number: .5, 0.50 and 5e-1 are
        0.5. In front of all that a learner, `previous:`, which may also stand alone.

    Returns:
      The method.

    Raises:
      UserError: the name is not one of these, or the ratio is outside (0, 1).
    """
    learner, _, rest = (part.strip() for part in name.partition(":"))
    if learner in LEARNERS or learner in _ALONE:
        return _learnt(name.strip(), learner, parse_method(rest or _STARTS[0]))
    before, plus, tuning = (part.strip() for part in name.partition("+"))
    if not plus and before.partition("@")[0].strip() in tunings.TUNINGS:
        before, plus, tuning = "dense", "+", before
    size = _SIZE.fullmatch(before)
    network = size[1] if size else before
    stages = _STAGES.fullmatch(network)
    network = stages[1] if stages else network
    start, colon, rest = (part.strip() for part in network.partition(":"))
    of_scratch = start == "scratch" and colon
    cut = _CUT.fullmatch(rest if of_scratch else network)
    if cut is None and (network not in _STARTS):
        raise UserError(f"config.methods: unknown method {name.strip()!r}; {_expected(name)}")
    if size and not 8 <= int(size[2]) <= 1024:
        raise UserError(
            f"config.methods: {name.strip()!r}: images of {int(size[2])} pixels; expected 8 to 1024"
        )
    if plus and tuning == tunings.AUTO and before != "dense":
        raise UserError(
            f"config.methods: {name.strip()!r}: auto chooses the network itself; expected it alone"
        )
    if stages and int(stages[2]) < 1:
        raise UserError(f"config.methods: {name.strip()!r}: no stages; expected at least one")
    return Method(
        "random" if start == "scratch" else "pretrained",
        _read_cut(name.strip(), cut) if cut else None,
        tunings.parse(name.strip(), tuning) if plus else tunings.FULL,
        int(size[2]) if size else 0,
        int(stages[2]) if stages else 0,
    )


def _learnt(name: str, learner: str, method: Method) -> Method:
    """A method with a learner.

    Raises:
      UserError: it has one already, or it is of another start than the learner.
    """
    start: Start = _ALONE.get(learner, method.start)
    if method.learner or (method.start != start and method.start == "random"):
        raise UserError(
            f"config.methods: {name!r}: two that say what a task starts from; expected one"
        )
    if method.is_auto and start == "random":
        raise UserError(f"config.methods: {name!r}: auto starts from pretrained weights")
    alone = dataclasses.replace(method, start=start)
    return alone if learner in _ALONE else dataclasses.replace(alone, learner=learner)


def _read_cut(name: str, match: re.Match[str]) -> Cut:
    """The cut of a name.

    Raises:
      UserError: a ratio outside (0, 1), or a word that is unknown or one too many.
    """
    if not 0 < float(match[2]) < 1:
        raise UserError(
            f"config.methods: {name!r} drops {float(match[2]):g} of the channels; expected a "
            f"ratio between 0 and 1 (`dense` drops none)"
        )
    kinds = {
        "criterion": CRITERIA,
        "allocation": ALLOCATIONS,
        _LSQ: (_LSQ,),
        _STATISTICS: (_STATISTICS,),
    }
    found: dict[str, str] = {}
    for word in map(str.strip, match[3].split(":")[1:]):
        kind = next((kind for kind, known in kinds.items() if word in known), "")
        if not kind or kind in found:
            known = ", ".join(each for several in kinds.values() for each in several)
            raise UserError(
                f"config.methods: {name!r}: a cut has the word {word!r}; expected at most one "
                f"criterion, one allocation and each correction once, of {known}"
            )
        found[kind] = word
    return Cut(
        match[1],
        float(match[2]),
        found.get("criterion", ""),
        found.get("allocation", _UNIFORM),
        _LSQ in found,
        _STATISTICS in found,
    )


def _expected(name: str) -> str:
    forms = (*_STARTS, *tunings.SHORT, *(f"{scope}@RATIO" for scope in SCOPES), *LEARNERS)
    lower = {form.lower(): form for form in forms}
    close = [lower[each] for each in difflib.get_close_matches(name.strip().lower(), lower, n=1)]
    hint = f"; did you mean {close[0]!r}?" if close and close[0] != name.strip() else ""
    return (
        f"expected one of {', '.join(forms)}, perhaps with @COUNTstages, @SIZEpx and +TUNING{hint}"
    )
