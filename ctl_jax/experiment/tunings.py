"""Tunings: which parameters of a network are trained, in which phases. The one place to add one.

    @tuning("head_bn")
    def head_bn(network: Network) -> tuple[Phase, ...]:
        ...

Its name then stands behind a "+" in the names of methods: `dense+head_bn`, `filters@0.5+head_bn`.
Further parameters of the function are given behind "@": `dense+freeze@2`.
"""

import dataclasses
import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ctl_jax.errors import UserError
from ctl_jax.finetune import Phase


class Network(NamedTuple):
    """What a tuning may need to know of a network.

    Attributes:
      stages: from `models.stages`: "stem", "stage1", ..., "head", and the first parts of the paths
        of their parameters.
      paths: of all parameters, e.g. "stage1_block1/conv1/kernel".
    """

    stages: Mapping[str, Sequence[str]]
    paths: Sequence[str]


TUNINGS: dict[str, Callable[..., tuple[Phase, ...]]] = {}


@dataclasses.dataclass(frozen=True)
class Tuning:
    """A tuning by name, with its arguments.

    Attributes:
      name: a key of `TUNINGS`.
      arguments: what was given behind "@".
    """

    name: str
    arguments: tuple[Any, ...] = ()

    @property
    def text(self) -> str:
        """As in a method's name."""
        return "@".join([self.name, *map(repr, self.arguments)])

    def phases(self, network: Network) -> tuple[Phase, ...]:
        """See `Method.phases`."""
        return TUNINGS[self.name](network, *self.arguments)


def tuning(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Makes a function of a `Network` a tuning.

    Args:
      name: by which methods name it.

    Raises:
      UserError: there is a tuning of this name.
    """

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        if name in TUNINGS:
            raise UserError(f"tuning {name!r}: there is one of this name; expected a new name")
        TUNINGS[name] = function
        return function

    return add


@tuning("full")
def full(network: Network) -> tuple[Phase, ...]:
    """Everything is trained."""
    return (Phase(),)


@tuning("linear_probe")
def linear_probe(network: Network) -> tuple[Phase, ...]:
    """The head alone, on features that do not change."""
    return (Phase(train=("head/*",), batch_norm="frozen"),)


@tuning("head_bn")
def head_bn(network: Network) -> tuple[Phase, ...]:
    """The head, and scale and bias of every normalisation."""
    norms = [path.removesuffix("/scale") for path in network.paths if path.endswith("/scale")]
    return (Phase(train=("head/*", *(f"{norm}/*" for norm in norms))),)


@tuning("freeze")
def freeze(network: Network, count: int) -> tuple[Phase, ...]:
    """All but the stem and the first `count` stages.

    Raises:
      UserError: the network has not so many stages.
    """
    names = [name for name in network.stages if name not in ("stem", "head")]
    if not 0 <= count <= len(names):
        raise UserError(f"freeze@{count}: expected 0 to {len(names)} stages of this network")
    trained = [each for name in (*names[count:], "head") for each in network.stages[name]]
    whole = set(network.paths)
    return (Phase(train=tuple(each if each in whole else f"{each}/*" for each in trained)),)


@tuning("lp_ft")
def lp_ft(network: Network) -> tuple[Phase, ...]:
    """A linear probe with a fifth of the budget, then everything at a tenth of the rate.

    Kumar et al., Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution,
    2022 (arXiv:2202.10054).
    """
    probe, everything = linear_probe(network)[0], full(network)[0]
    return (
        dataclasses.replace(probe, share=0.2),
        dataclasses.replace(everything, share=0.8, rate=0.1),
    )


FULL = Tuning("full")
# Those that need no arguments, and so may stand alone.
SHORT = ("linear_probe",)


def parse(method: str, text: str) -> Tuning:
    """Reads what stands behind the "+" of a method's name.

    Args:
      method: the whole name, for messages.
      text: NAME, or NAME@ARGUMENT.

    Raises:
      UserError: there is no such tuning, or its arguments are others.
    """
    name, *given = (part.strip() for part in text.split("@"))
    if name not in TUNINGS:
        close = difflib.get_close_matches(name, TUNINGS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise UserError(
            f"config.methods: {method!r} has the unknown tuning {name!r}; expected one of "
            f"{', '.join(TUNINGS)}{hint}"
        )
    wanted = list(inspect.signature(TUNINGS[name]).parameters.values())[1:]
    form = "@".join([name, *(parameter.name.upper() for parameter in wanted)])
    if len(given) != len(wanted):
        raise UserError(f"config.methods: {method!r}: expected the tuning as {form}")
    arguments = []
    for value, parameter in zip(given, wanted, strict=True):
        try:
            arguments.append(parameter.annotation(value))
        except ValueError:
            kind = {"int": "a whole number", "float": "a number"}.get(
                parameter.annotation.__name__, parameter.annotation.__name__
            )
            raise UserError(
                f"config.methods: {method!r}: {parameter.name} of {form} is {value!r}; expected "
                f"{kind}"
            ) from None
    return Tuning(name, tuple(arguments))
