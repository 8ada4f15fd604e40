"""Tunings: which parameters of a network are trained, in which phases. The one place to add one.

    @tuning("head_bn")
    def head_bn(network: Network) -> tuple[Phase, ...]:
        ...

Its name then stands behind a "+" in the names of methods: `dense+head_bn`, `filters@0.5+head_bn`.
Further parameters of the function are given behind "@": `dense+freeze@2`. Those that are
keyword-only are words, and may be left out: `probe@logistic@last`.
"""

import dataclasses
import difflib
import inspect
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from ctl_jax import heads
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
      arguments: what was given behind "@", in order.
      words: the values of its keyword-only parameters that are not their defaults, by name.
    """

    name: str
    arguments: tuple[Any, ...] = ()
    words: tuple[tuple[str, str], ...] = ()

    @property
    def text(self) -> str:
        """As in a method's name."""
        return "@".join([self.name, *map(repr, self.arguments), *(word for _, word in self.words)])

    def phases(self, network: Network) -> tuple[Phase, ...]:
        """See `Method.phases`."""
        return TUNINGS[self.name](network, *self.arguments, **dict(self.words))


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
    names = _stages(network)
    if not 0 <= count <= len(names):
        raise UserError(f"freeze@{count}: expected 0 to {len(names)} stages of this network")
    return (Phase(train=_patterns(network, names[count:])),)


@tuning("last")
def last(network: Network, count: int) -> tuple[Phase, ...]:
    """The head and the last `count` stages; the rest is computed once an image that does not vary.

    Images do not vary without crops, flips and mixtures: `finetune.crop_area=(1,1)`,
    `finetune.crop_aspect=(1,1)`, `finetune.flip=False`.

    Raises:
      UserError: the network has not so many stages.
    """
    names = _stages(network)
    if not 1 <= count <= len(names):
        raise UserError(f"last@{count}: expected 1 to {len(names)} stages of this network")
    return (Phase(train=_patterns(network, names[-count:]), cached=True),)


def _stages(network: Network) -> list[str]:
    """Names of its stages, first to last."""
    return [name for name in network.stages if name not in ("stem", "head")]


def _patterns(network: Network, names: Sequence[str]) -> tuple[str, ...]:
    """Of the parameters of some stages and of the head."""
    whole = set(network.paths)
    trained = [each for name in (*names, "head") for each in network.stages[name]]
    return tuple(each if each in whole else f"{each}/*" for each in trained)


@tuning("lora")
def lora(network: Network, rank: int) -> tuple[Phase, ...]:
    """The head, and a change of a low rank of each kernel (Hu et al. 2021, arXiv:2106.09685).

    Raises:
      UserError: a rank below 1.
    """
    if rank < 1:
        raise UserError(f"lora@{rank}: expected a rank of at least 1")
    return (Phase(train=("head/*",), batch_norm="frozen", lora=rank),)


@tuning("l2_sp")
def l2_sp(network: Network, strength: float) -> tuple[Phase, ...]:
    """Everything, with kernels pulled to where they started (Li et al. 2018, arXiv:1802.01483).

    Raises:
      UserError: a strength, the L2 coefficient, that is not positive and finite.
    """
    if not 0 < strength < math.inf:
        raise UserError(f"l2_sp@{strength!r}: expected a positive coefficient")
    return (Phase(to_start=strength),)


Solver = Annotated[str, lambda: tuple(heads.SOLVERS)]


@tuning("probe")
def probe(
    network: Network,
    *,
    solver: Solver = "ridge",
    head: Literal["taps", "last"] = "taps",
    select: Literal["", "select"] = "",
    views: Literal["", "views"] = "",
) -> tuple[Phase, ...]:
    """The head alone, in closed form or nearly, on features that are computed once an image.

    Words: how it is fitted (see `heads.SOLVERS`); what it reads; `select`, only those features
    that matter most; `views`, changed images too where the budget pays for more than the task has.
    """
    return (
        Phase(
            train=("head/*",),
            batch_norm="frozen",
            head=head,
            solver=solver,
            select=select == "select",
            views=views == "views",
        ),
    )


@tuning("lp_ft")
def lp_ft(
    network: Network,
    *,
    solver: Solver = "ridge",
    head: Literal["taps", "last"] = "taps",
    batch_norm: Literal["frozen", "batch"] = "frozen",
    ensemble: Literal["", "ensemble"] = "",
) -> tuple[Phase, ...]:
    """A probe with a share of the budget, then everything from that head, at a small rate.

    With `ensemble` the logits of both are averaged, by the weight that is best on dev.

    Kumar et al., Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution,
    2022 (arXiv:2202.10054).
    """
    (first,) = probe(network, solver=solver, head=head)
    return (
        dataclasses.replace(first, share=0.3),
        Phase(
            batch_norm=batch_norm,
            head=head,
            share=0.7,
            rate=0.1,
            # A fitted head on many features has steep logits, whose first gradients are long.
            clip=1.0,
            ensemble=ensemble == "ensemble",
        ),
    )


@tuning("adapt")
def adapt(
    network: Network,
    *,
    solver: Solver = "ridge",
    head: Literal["taps", "last"] = "taps",
) -> tuple[Phase, ...]:
    """A probe of half of the images, training of the last third of the stages, another probe.

    The training sees the other half alone: on images that a head on many features was fitted to,
    nothing is left to learn. The second probe is of all images, and has what it can use.
    """
    (fitted,) = probe(network, solver=solver, head=head)
    names = _stages(network)
    return (
        dataclasses.replace(fitted, half=1, share=0.2),
        Phase(
            train=_patterns(network, names[-max(1, len(names) // 3) :]),
            batch_norm="frozen",
            head=head,
            half=2,
            passes=2,
            vary=False,
            share=0.4,
            # As in `lp_ft`.
            clip=3.0,
            cached=True,
        ),
        dataclasses.replace(fitted, share=0.4),
    )


AUTO = "auto"


@tuning(AUTO)
def auto(network: Network) -> tuple[Phase, ...]:
    """What is best for the budget, found within it: see `experiment.auto`.

    It chooses the network, too, so it stands alone. Its phases are those of a probe, which is what
    it costs most alike.
    """
    return probe(network)


FULL = Tuning("full")
# Those that need no arguments, and so may stand alone.
SHORT = ("probe", "linear_probe", AUTO)


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
    parameters = list(inspect.signature(TUNINGS[name]).parameters.values())[1:]
    words = {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}
    wanted = [p for p in parameters if p.name not in words]
    form = "@".join([name, *(parameter.name.upper() for parameter in wanted)])
    if len(given) < len(wanted) or (len(given) > len(wanted) and not words):
        raise UserError(f"config.methods: {method!r}: expected the tuning as {form}")
    arguments = []
    for value, parameter in zip(given, wanted, strict=False):
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
    chosen = _words(method, name, words, given[len(wanted) :])
    return Tuning(name, tuple(arguments), chosen)


def _words(
    method: str, name: str, words: Mapping[str, inspect.Parameter], given: Sequence[str]
) -> tuple[tuple[str, str], ...]:
    """The values that are not the defaults, by parameter, in the function's order.

    Raises:
      UserError: a word that it does not know, or two for one parameter.
    """
    by_word = {key: choices(parameter.annotation) for key, parameter in words.items()}
    found: dict[str, str] = {}
    for word in given:
        key = next((key for key, known in by_word.items() if word in known), "")
        if not key or key in found:
            known = ", ".join(each for several in by_word.values() for each in several if each)
            twice = f" beside {found[key]!r}" if key else ""
            raise UserError(
                f"config.methods: {method!r}: {name} has the word {word!r}{twice}; expected of "
                f"each kind at most one of {known}"
            )
        found[key] = word
    return tuple(
        (key, found[key])
        for key, parameter in words.items()
        if found.get(key, parameter.default) != parameter.default
    )


def choices(annotation: Any) -> Collection[str]:
    """The words of a `Literal`, or those that the function of an `Annotated` text gives."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    known: Collection[str] = annotation.__metadata__[0]()
    return known
