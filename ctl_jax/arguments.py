"""The command line of `ctl_jax.main`: flags of the program, and values for keys of the config."""

import dataclasses
import difflib
import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from absl import flags

from ctl_jax import experiment
from ctl_jax.errors import UserError
from ctl_jax.experiment.config import KEYS, reference
from ctl_jax.values import is_truth

_TEXTS = {
    "config": "A config file, and its arguments after a colon: FILE.py[:name=value,...].",
    "workdir": "Folder of the run: results, and what is done.",
    "worker": "Which of the workers that share the workdir: i/n, i from 0, or auto.",
    "group": "Which of the processes that train each trial together: HOST:PORT,i/n or auto.",
}
_PLAN = "Print the plan (tasks, trials, FLOPs) and stop."
# --config.KEY=TEXT, --config.KEY, --noconfig.KEY
_OVERRIDE = re.compile(r"--?(no)?config\.([^=]*)(?:=(.*))?", re.DOTALL)
_HELP = ("help", "helpfull", "helpshort", "h", "?")
_KEYS = """
  --config.KEY=VALUE: A value in place of the config file's. A list is written
    a,b (or as in Python, ('a,b', 'c'), where a comma is part of a value), or
    the flag is given once a value."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What a command line says.

    Attributes:
      config: the config file, with its own arguments after a colon.
      overrides: for keys of the config, or the config file's short names of them, the texts given,
        in order.
      workdir: the run's folder.
      plan: whether to stop after the plan.
      worker: which worker this is, see `cluster`.
      group: which process of a group this is.
    """

    config: str
    overrides: dict[str, list[str]]
    workdir: str
    plan: bool
    worker: str
    group: str


def parse(argv: Sequence[str]) -> Arguments:
    """Reads a command line.

    Args:
      argv: its words, with the program's name first.

    Returns:
      What it says. Texts of the config's keys are read later, with the config.

    Raises:
      UserError: an unknown flag, key or word, a value of the wrong kind, or a required flag that
        is not there.
    """
    known = _flags()
    try:
        words = _with_flagfiles(known, argv)
        overrides, rest = _split(words, _short_names(words))
        stray = known([argv[0], *rest])[1:]
    except flags.UnrecognizedFlagError as error:
        hint = _hint(known, error.flagname, _short_names(words))
        raise UserError(f"--{error.flagname}: unknown flag; {hint}") from None
    # A ValueError of --noplan=x, which absl has no error of its own for.
    except (flags.Error, ValueError) as error:
        raise UserError(str(error)) from None
    if stray:
        raise UserError(f"unexpected argument {stray[0]!r}; expected flags only, see --help")
    files = list(dict.fromkeys(value for name, value in _assigned(rest) if name == "config"))
    if len(files) > 1:
        raise UserError(f"--config={files[1]}: expected one config file, there is {files[0]} too")
    if not known["config"].value:
        raise UserError("--config: expected a config file, e.g. configs/quickstart.py")
    if not known["workdir"].value:
        raise UserError("--workdir: expected the run's folder, e.g. runs/quickstart")
    values: dict[str, Any] = known.flag_values_dict()
    return Arguments(overrides=overrides, **values)


def help_text(argv: Sequence[str], description: str) -> str:
    """What `--help` prints; "" where the command line does not ask for it.

    Args:
      argv: the command line.
      description: what the program does.
    """
    asked = [name for name, _ in _assigned(argv[1:]) if name in _HELP]
    if not asked:
        return ""
    lines = [description.rstrip(), "\nFlags:", _flags().get_help().rstrip(), _KEYS.strip("\n")]
    lines += ["", reference.help_text("helpfull" in asked, _short_names(argv[1:]))]
    return "\n".join(lines)


def _flags() -> flags.FlagValues:
    """The program's flags, not parsed yet."""
    values = flags.FlagValues()
    for name, words in _TEXTS.items():
        flags.DEFINE_string(name, "", words, flag_values=values)
    flags.DEFINE_bool("plan", False, _PLAN, flag_values=values)
    return values


def _hint(known: flags.FlagValues, name: str, short: Collection[str]) -> str:
    """What may be meant by an unknown flag: one like it, or a key without its beginning."""
    keys = [f"config.{key}" for key in [*short, *sorted(KEYS)]]
    close = [key for key in keys if key.endswith(f".{name}")]
    close += difflib.get_close_matches(name, [*known, *keys], n=1)
    return f"did you mean --{close[0]}?" if close else "see --help"


def _with_flagfiles(known: flags.FlagValues, argv: Sequence[str]) -> list[str]:
    try:
        return known.read_flags_from_files(list(argv[1:]))
    except (flags.Error, OSError, UnicodeError) as error:
        raise UserError(
            f"--flagfile: {str(error).removeprefix('ERROR:: ')}; expected a text with a flag a line"
        ) from None


def _short_names(words: Sequence[str]) -> dict[str, str]:
    """The names that the config file of a command line has for keys of its own."""
    files = [value for name, value in _assigned(words) if name == "config"]
    return experiment.short_names_of(files[0]) if files else {}


def _split(
    words: Sequence[str], short: Mapping[str, str]
) -> tuple[dict[str, list[str]], list[str]]:
    """The texts given for keys of the config, and the other words."""
    overrides: dict[str, list[str]] = {}
    rest: list[str] = []
    words = list(words)
    while words:
        word = words.pop(0)
        if word == "--":
            return overrides, [*rest, word, *words]
        flag = _OVERRIDE.fullmatch(word)
        if flag is None:
            rest.append(word)
            continue
        off, key, text = flag.groups()
        experiment.check_key(key, short)
        is_switch = experiment.is_switch(short.get(key, key))
        if off:
            if text is not None or not is_switch:
                raise UserError(f"{word}: expected --config.{key}=VALUE")
            text = "false"
        if text is None:
            text = _value_of(key, words, is_switch=is_switch)
        overrides.setdefault(key, []).append(text)
    return overrides, rest


def _value_of(key: str, words: list[str], *, is_switch: bool) -> str:
    """Takes the value that is a word of its own, `--config.KEY VALUE`."""
    if is_switch and not (words and is_truth(words[0])):
        return "true"
    if not words or words[0].startswith("--"):
        raise UserError(f"--config.{key}: expected a value, --config.{key}=VALUE")
    return words.pop(0)


def _assigned(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(name, value) of each `--name=value` and `--name value`, up to `--`."""
    for word, following in itertools.zip_longest(words, words[1:], fillvalue=""):
        if word == "--":
            return
        if word.startswith("-"):
            name, equals, value = word.removeprefix("-").removeprefix("-").partition("=")
            yield name, value if equals else following
