"""Configs as they are written, and what is checked of them before any work.

A config file's `get_config` starts from `default_config()`, changes what it needs, and returns it;
`validate` makes the run's `Config` of it.
"""

import contextlib
import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import ml_collections
import numpy as np

from ctl_jax.compute import Budget
from ctl_jax.errors import UserError
from ctl_jax.experiment.config.keys import Key
from ctl_jax.experiment.config.sections import KEYS, Budgets, Config
from ctl_jax.experiment.methods import parse_method
from ctl_jax.values import read_list, read_scalar

_Section = TypeVar("_Section")
EMPTY: Mapping[str, str] = types.MappingProxyType({})
# Characters that a message shows of a value.
_SHOWN = 200


def default_config() -> ml_collections.ConfigDict:
    """Every key there is, at its default. Locked: setting another key is an error."""
    return ml_collections.ConfigDict(Config().to_dict()).lock()


def validate(config: ml_collections.ConfigDict) -> Config:
    """Checks every key, type and value.

    Args:
      config: what a config file gave, with the command line's overrides.

    Returns:
      The run's config.

    Raises:
      UserError: names the key, its value and what was expected.
    """
    given = dict(flatten(config))
    for name in given:
        check_key(name)
    for name, key in KEYS.items():
        if name not in given:
            raise UserError(f"config.{name}: missing; start the config from default_config()")
        given[name] = _typed(key, given[name])
    for name, key in KEYS.items():
        if key.check is not None and not key.check.holds(given[name]):
            raise UserError(f"config.{name}={_shown(given[name])}: expected {key.check.expected}")
        if key.canonical is not None:
            given[name] = key.canonical(given[name])
    checked = _section(Config, given)
    rules = (_check_tasks, _check_crops, _check_search, _check_evaluations, _check_weights)
    for rule in (*rules, _check_learner):
        rule(checked)
    budgets(checked.budgets)
    return checked


def budgets(section: Budgets) -> tuple[Budget, ...]:
    """The run's budgets: those that are listed, or the range, log-spaced, in whole FLOPs.

    Raises:
      UserError: the range is empty, or two budgets are equal.
    """
    if section.amounts:
        listed = tuple(map(Budget.parse, section.amounts))
        if twice := next((b for i, b in enumerate(listed) if b in listed[:i]), None):
            raise UserError(f"config.budgets.amounts: '{twice}' twice; expected each once")
        return listed
    least, most, num = section.min_flops, section.max_flops, section.num
    if most < least:
        raise UserError(
            f"config.budgets.max_flops={most!r}: expected at least "
            f"config.budgets.min_flops={least!r}"
        )
    if num > 1 and most == least:
        raise UserError(
            f"config.budgets.num={num!r}: expected 1 where the least budget is the most"
        )
    amounts = tuple(round(float(b)) for b in np.geomspace(least, most, num))
    if (different := len(set(amounts))) < num:
        raise UserError(
            f"config.budgets.num={num}: expected as many different budgets, but in whole FLOPs "
            f"config.budgets.min_flops={least!r} to config.budgets.max_flops={most!r} give "
            f"{different}"
        )
    return tuple(map(Budget, amounts))


def check_key(name: str, short: Collection[str] = ()) -> None:
    """Raises a `UserError` where there is no such key, e.g. "finetune.batch_sizes".

    Args:
      name: of a key, or one of `short`.
      short: the config file's own names of keys.
    """
    if name in KEYS or name in short:
        return
    if inside := [key for key in KEYS if key.startswith(f"{name}.")]:
        raise UserError(
            f"config.{name}: a section; expected one of its keys, e.g. config.{inside[0]}"
        )
    close = difflib.get_close_matches(name, [*short, *KEYS], n=1)
    hint = f"did you mean config.{close[0]}?" if close else "--helpfull has all keys"
    raise UserError(f"config.{name}: unknown key; {hint}")


def read_value(name: str, texts: Sequence[str], short: Mapping[str, str] = EMPTY) -> Any:
    """Reads what a command line gives for a key: `--config.KEY=TEXT`, perhaps repeatedly.

    Args:
      name: e.g. "seeds", or one of `short`.
      texts: in order. Of a key of one value the last counts; a list has the values of all.
      short: the config file's own names of keys, with those that they stand for.

    Returns:
      A value of the key's type. Whether it makes sense is for `validate` to say.

    Raises:
      UserError: no such key, or a text that is no value of its type.
    """
    check_key(name, short)
    key = KEYS[short.get(name, name)]
    if key.is_list:
        lists = [read_list(f"--config.{name}", text, key.kind) for text in texts]
        return tuple(value for values in lists for value in values)
    return read_scalar(f"--config.{name}", texts[-1], key.kind)


def is_switch(name: str) -> bool:
    """Whether a key is true or false, so that a command line may give it without a value."""
    return name in KEYS and KEYS[name].kind is bool


def flatten(
    config: ml_collections.ConfigDict | Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Yields ("section.key", value) for each value of a nested config or dict."""
    for name, value in config.items():
        if hasattr(value, "items"):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _section(kind: type[_Section], values: Mapping[str, Any], prefix: str = "") -> _Section:
    """A section, or the whole config, of the keys' values."""
    given: dict[str, Any] = {}
    for name, wanted in typing.get_type_hints(kind).items():
        inner = dataclasses.is_dataclass(wanted)
        path = f"{prefix}{name}"
        given[name] = _section(wanted, values, f"{path}.") if inner else values[path]
    return kind(**given)


def _typed(key: Key, value: Any) -> Any:
    if not key.is_list:
        return _scalar(key.name, value, key.kind)
    if isinstance(value, str):
        return read_list(f"config.{key.name}", value, key.kind)
    values = list(value) if isinstance(value, tuple | list) else [value]
    elements = [_scalar(f"{key.name}[{i}]", v, key.kind) for i, v in enumerate(values)]
    if key.canonical is not None:
        elements = [element for joined in elements for element in joined.split(",")]
    return tuple(elements)


def _scalar(key: str, value: Any, wanted: type) -> Any:
    # An int is a fine float; a bool is no int, although Python says so.
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            return float(value)
        return math.inf
    if type(value) is not wanted:
        found = type(value).__name__
        raise UserError(f"config.{key}={_shown(value)}: expected {wanted.__name__}, found {found}")
    if isinstance(value, str) and "\0" in value:
        raise UserError(f"config.{key}={_shown(value)}: expected a text without a null character")
    return value


def _shown(value: Any) -> str:
    """A value as Python writes it, or what of it fits into a message."""
    try:
        text = repr(value)
    # Of an integer of more digits than Python writes, or of an object of the config file's own.
    except Exception:
        return f"<{type(value).__name__}>"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _check_tasks(config: Config) -> None:
    stream = config.stream
    is_random = stream.ablation == "random"
    if is_random != (stream.num_tasks > 0):
        raise UserError(
            f"config.stream.num_tasks={stream.num_tasks!r}: expected "
            f"{'at least 1' if is_random else '0'} where config.stream.ablation="
            f"{stream.ablation!r}"
        )


def _check_crops(config: Config) -> None:
    """Sees whether the narrowest crop has a pixel: less of an image is no image."""
    size, areas = config.data.image_size, config.finetune.crop_area
    aspects = config.finetune.crop_aspect
    pixels = size * math.sqrt(areas[0] * min(aspects[0], 1 / aspects[1]))
    if pixels < 1:
        raise UserError(
            f"config.finetune.crop_aspect={aspects!r}: the narrowest crop would have {pixels:.2g} "
            f"pixels; expected at least 1 of an image of config.data.image_size={size} with "
            f"config.finetune.crop_area={areas!r}"
        )
    pixels = size * math.sqrt(config.pretrain.crop_area[0])
    if pixels < 1:
        raise UserError(
            f"config.pretrain.crop_area={config.pretrain.crop_area!r}: the smallest crop would "
            f"have {pixels:.2g} pixels; expected at least 1 of config.data.image_size={size}"
        )


# What a search chooses itself.
_CHOSEN = {
    "rule": ("batch_sizes", "mixup", "label_smoothings"),
    "random": ("batch_sizes", "label_smoothing", "label_smoothings"),
}


def _check_search(config: Config) -> None:
    settings = config.finetune
    for name in _CHOSEN.get(settings.search, ()):
        if value := getattr(settings, name):
            nothing = type(value)()
            raise UserError(
                f"config.finetune.{name}={value!r}: expected {nothing!r} where "
                f"config.finetune.search={settings.search!r} chooses it"
            )


def _check_evaluations(config: Config) -> None:
    settings = config.finetune
    if settings.evaluate_every % settings.log_every:
        raise UserError(
            f"config.finetune.evaluate_every={settings.evaluate_every!r}: expected a "
            f"multiple of config.finetune.log_every={settings.log_every!r}"
        )
    if settings.report == "best" and not settings.evaluate_every:
        raise UserError(
            "config.finetune.report='best': expected 'last' where config.finetune.evaluate_every=0 "
            "evaluates only the last weights"
        )


def _check_weights(config: Config) -> None:
    if config.weights and config.pretrain.task:
        raise UserError(
            f"config.weights={config.weights!r}: expected '' where config.pretrain.task="
            f"{config.pretrain.task!r} makes the weights"
        )
    needing = [name for name in config.methods if parse_method(name).pretrained]
    if needing and not config.weights and not config.pretrain.task:
        raise UserError(
            f"config.weights='': expected a file or folder (or a config.pretrain.task), since "
            f"{needing[0]!r} starts from pretrained weights"
        )


def _check_learner(config: Config) -> None:
    """Sees whether learners can do as the config says."""
    learning = [method for method in map(parse_method, config.methods) if method.learner]
    if not config.learner.restore:
        return
    if config.learner.cut != "every":
        raise UserError(
            "config.learner.restore=True: expected config.learner.cut='every', since channels come "
            "back before the next cut"
        )
    for method in learning:
        if method.cut and (not method.pretrained or method.cut.lsq):
            reason = "corrects for them" if method.pretrained else "has no pretrained network"
            raise UserError(
                f"config.learner.restore=True: {method.name!r} {reason}; expected methods whose "
                f"channels can come back from a pretrained network"
            )
