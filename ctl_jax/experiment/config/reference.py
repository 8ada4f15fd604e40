"""The keys of the config as the command line's help and docs/config.md show them.

python -m ctl_jax.experiment.config.reference > docs/config.md
"""

import dataclasses
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from ctl_jax.compute.budgets import UNITS
from ctl_jax.experiment.config.keys import Key
from ctl_jax.experiment.config.sections import KEYS, Config
from ctl_jax.experiment.tunings import TUNINGS, choices
from ctl_jax.values import as_text

_WIDTH = 80
_HEAD = """# Config keys

<!-- Made by `python -m ctl_jax.experiment.config.reference`, of ctl_jax/experiment/config/. -->

Each key is set in a config file, `config.SECTION.KEY = VALUE`, or on the command line,
`--config.SECTION.KEY=VALUE`. Defaults stand here as the command line writes them; of a list that is
its values with commas between them.
"""
_TUNINGS = """
## Tunings

A tuning stands behind a `+` in the name of a method, `filters@0.5+head_bn`, and its arguments
behind `@`, `dense+freeze@2`. What is in brackets may be left out, and then is the default, if
there is one; in any order: `probe@logistic`, `filters@0.5+lp_ft@last`.

| tuning | what is trained | words |
|---|---|---|
"""
_UNITS = """
## Units of budgets

A value of `budgets.amounts` is an amount and a unit, such as `0.5epochs`; without a unit it is
FLOPs.

| unit | what one is | measured on the device |
|---|---|---|
"""


def help_text(full: bool, short: Mapping[str, str] = MappingProxyType({})) -> str:
    """The config's sections and what they are; if `full` each key, as a flag, too.

    Args:
      full: whether each key is explained.
      short: a config file's own names of keys, with those that they stand for.
    """
    lines = []
    if short:
        lines.append("Short names that this config file has for keys:")
        for name, whole in short.items():
            lines.append(f"    --config.{name}")
            lines += _wrapped(f"{KEYS[whole].sentence} The same as --config.{whole}.", 8)
        lines.append("")
    lines += [
        f"Keys of the config{', at their defaults' if full else '; --helpfull explains each'}:"
    ]
    for section, sentence, keys in _sections():
        lines += ["", *_wrapped(f"{section or 'config'}: {sentence}", 2)]
        if not full:
            lines += _wrapped(", ".join(key.name for key in keys), 4)
        for key in keys if full else ():
            allowed = f" Expected: {key.check.expected}." if key.check else ""
            lines += [f"    --config.{key.name}={as_text(key.default)}"]
            lines += _wrapped(key.sentence + allowed, 8)
    return "\n".join(lines)


def markdown() -> str:
    """docs/config.md."""
    text = _HEAD
    for section, sentence, keys in _sections():
        text += f"\n## {f'`{section}`' if section else 'Keys of no section'}\n\n{sentence}\n\n"
        text += "| key | type | default | what it is | expected |\n|---|---|---|---|---|\n"
        for key in keys:
            kind = f"list of {key.kind.__name__}" if key.is_list else key.kind.__name__
            default = f"`{shown}`" if (shown := as_text(key.default)) else ""
            allowed = key.check.expected if key.check else ""
            text += f"| `{key.name}` | {kind} | {default} | {key.sentence} | {allowed} |\n"
    text += _TUNINGS
    for name, function in TUNINGS.items():
        form, words = name, []
        for parameter in list(inspect.signature(function).parameters.values())[1:]:
            argument = parameter.name.upper()
            if parameter.kind is parameter.KEYWORD_ONLY:
                form += f"[@{argument}]"
                known = (
                    f"`{word}`{' (default)' if word == parameter.default else ''}"
                    for word in choices(parameter.annotation)
                    if word
                )
                words.append(f"{argument}: {', '.join(known)}")
            else:
                form += f"@{argument}"
        sentence = (function.__doc__ or "").splitlines()[0]
        text += f"| `{form}` | {sentence} | {'; '.join(words)} |\n"
    text += _UNITS
    for name, unit in UNITS.items():
        text += f"| `{name}` | {unit.sentence} | {'yes' if unit.measured else 'no'} |\n"
    return text


def _sections() -> Iterator[tuple[str, str, list[Key]]]:
    """(name, sentence, keys) of each section; first of the keys that are in none, with name ""."""
    fields = {field.name: type(field.default) for field in dataclasses.fields(Config)}
    inner = {name: kind for name, kind in fields.items() if dataclasses.is_dataclass(kind)}
    sections: dict[str, type] = {"": Config} | inner
    for name, section in sections.items():
        keys = [key for key in KEYS.values() if key.name.rpartition(".")[0] == name]
        yield name, " ".join((section.__doc__ or "").split()), keys


def _wrapped(text: str, indent: int) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=" " * indent,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


if __name__ == "__main__":
    print(markdown(), end="")
