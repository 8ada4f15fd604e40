"""Config files: run, asked for their config, and that changed as the command line says.

Whatever is wrong with a file is said in one line, with the line of the file where it went wrong.
"""

import functools
import inspect
import os
import pathlib
import re
import sys
import traceback
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections

from ctl_jax import home
from ctl_jax.errors import UserError
from ctl_jax.experiment.config.checking import check_key, flatten, read_value
from ctl_jax.experiment.config.sections import KEYS, Config
from ctl_jax.experiment.config.short import short_names

_EXPECTED = "expected a Python file with get_config(), e.g. configs/quickstart.py"
# The module that a file is while it runs.
_MODULE = "ctl_jax_config_file"
_MOST_CHARACTERS = 400


class _File(NamedTuple):
    given: str
    path: str
    arguments: str


def load_config(
    given: str, overrides: Mapping[str, Sequence[str]] | None = None
) -> ml_collections.ConfigDict:
    """Loads a config file.

    Args:
      given: `FILE.py`, or `FILE.py:ARGUMENTS` for what its `get_config` is called with.
      overrides: texts for keys such as "finetune.batch_size", or for the file's own short names
        (see `short_names`), as `read_value` takes them.

    Returns:
      The config, not validated.

    Raises:
      UserError: there is no such file, it fails, or it returns no config; or an override has no
        such key or is no value of its kind.
    """
    file = _split(given)
    values = _read(overrides or {}, short_names(file.path))
    config = _call(file, _get_config(file))
    _check_keys(file, config)
    _run(file, lambda: _override(config, values))
    return config


def short_names_of(given: str) -> dict[str, str]:
    """The short names of keys that the config file of a command line has; see `short_names`.

    Args:
      given: as for `load_config`; where that raises, there are none.
    """
    try:
        path = _split(given).path
    except UserError:
        return {}
    return short_names(path)


def config_arguments(text: str, **defaults: str) -> ml_collections.ConfigDict:
    """Reads a config file's own arguments, `FILE.py:name=value,name=value`.

    Args:
      text: what stands behind the colon; may be empty.
      **defaults: the arguments there are, and their values where not given.

    Returns:
      The values, as attributes.

    Raises:
      UserError: an argument of another name, or without a value.

    Example:
      >>> config_arguments("variant=SHORT", variant="FULL").variant
      'SHORT'
    """
    values = dict(defaults)
    for argument in filter(None, text.split(",")):
        name, _, value = argument.partition("=")
        if name not in defaults or not value:
            known = ", ".join(f"{name}=..." for name in defaults)
            raise UserError(f"--config=FILE:{text}: {argument!r}: expected {known}")
        values[name] = value
    return ml_collections.ConfigDict(values)


def following(
    config: ml_collections.ConfigDict, key: str, function: Callable[[Any], Any]
) -> ml_collections.FieldReference:
    """A value for a config that follows from another key, also where a command line gives that.

    Args:
      config: that both keys are of.
      key: the other one, such as "weights" or "stream.variant".
      function: of its value.

    Example:
      >>> config.data.image_size = following(config, "weights", lambda file: 64 if file else 32)
    """
    *sections, name = key.split(".")
    section = functools.reduce(lambda inside, each: inside[each], sections, config)
    now = function(section[name])
    # Not of the reference itself, whose type may be another.
    follow = _Operation(lambda now, other: function(other), (section.get_ref(name),))
    return ml_collections.FieldReference(now, type(now), follow)


class _Operation(NamedTuple):
    """As ml_collections calls it: `fn(value, *args)`, with the values of references."""

    fn: Callable[..., Any]
    args: tuple[Any, ...]


def _read(overrides: Mapping[str, Sequence[str]], short: Mapping[str, str]) -> dict[str, Any]:
    """The values of keys that a command line gives, by the keys' own names."""
    values: dict[str, Any] = {}
    typed: dict[str, str] = {}
    for name, texts in overrides.items():
        key = short.get(name, name)
        value = read_value(name, texts, short)
        if (other := typed.setdefault(key, name)) != name:
            raise UserError(f"--config.{name}: the same key as --config.{other}; expected one")
        values[key] = value
    return values


def _split(given: str) -> _File:
    """The path, and what stands behind the first colon that ends the name of a file."""
    path, arguments = given, ""
    if not os.path.isfile(home.expand(path)):
        ends = [i for i, character in enumerate(given) if character == ":"]
        files = [i for i in ends if os.path.isfile(home.expand(given[:i]))]
        # Where none is a file: what was meant to be one.
        end = next(iter(files or [i for i in ends if given[:i].endswith(".py")] or ends), None)
        if end is not None:
            path, arguments = given[:end], given[end + 1 :]
    expanded = home.expand(path)
    if os.path.isdir(expanded):
        raise UserError(f"--config={given}: {path!r} is a folder; {_EXPECTED}")
    if not os.path.exists(expanded):
        raise UserError(f"--config={given}: there is no {path!r}; {_EXPECTED}")
    return _File(given, expanded, arguments)


def _get_config(file: _File) -> Callable[..., Any]:
    """Runs the file, and finds its function."""
    try:
        source = pathlib.Path(file.path).read_bytes()
    except OSError as error:
        raise UserError(f"--config={file.given}: {error.strerror}; {_EXPECTED}") from None
    module = types.ModuleType(_MODULE)
    module.__file__, module.__package__ = os.path.abspath(file.path), ""
    # Where dataclasses and pickles look for the module of what it defines.
    sys.modules[_MODULE] = module
    _run(file, lambda: exec(compile(source, file.path, "exec"), vars(module)))
    function = getattr(module, "get_config", None)
    if not callable(function):
        found = "no get_config" if function is None else f"get_config = {function!r}"
        raise UserError(f"{file.path}: {found}; {_EXPECTED}")
    return function


def _call(file: _File, function: Callable[..., Any]) -> ml_collections.ConfigDict:
    arguments = [file.arguments] if file.arguments else []
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        signature = inspect.signature(function)
        wrong = (
            f"takes no arguments; expected --config={file.path}"
            if arguments and not signature.parameters
            else f"cannot be called with {'one text' if arguments else 'nothing'}; expected a "
            f"function of nothing, or of what stands after the colon of --config=FILE:ARGUMENTS"
        )
        raise UserError(f"--config={file.given}: get_config{signature} {wrong}") from None
    except ValueError:
        pass  # It has no signature to be asked.
    found = _run(file, lambda: function(*arguments))
    if inspect.iscoroutine(found):
        # Python would say that nothing waits for it.
        found.close()
    # As `validate` returns it, or frozen, it takes no values of the command line.
    if isinstance(found, Config):
        found = found.to_dict()
    if isinstance(found, Mapping | ml_collections.FrozenConfigDict):
        found = _run(file, lambda: ml_collections.ConfigDict(dict(found)))
    if not isinstance(found, ml_collections.ConfigDict):
        forgotten = " (is `return config` missing?)" if found is None else ""
        raise UserError(
            f"{file.path}: get_config() returned {type(found).__name__}{forgotten}; expected "
            f"ctl_jax.experiment.default_config(), changed as needed"
        )
    return found


def _check_keys(file: _File, config: ml_collections.ConfigDict) -> None:
    given = _run(file, lambda: dict(flatten(config)))
    try:
        for key in given:
            check_key(key)
    except UserError as error:
        raise UserError(f"{file.path}: {error}") from None
    for key in KEYS:
        if key not in given:
            raise UserError(
                f"{file.path}: get_config() returned a config without {key}; expected "
                f"ctl_jax.experiment.default_config(), changed as needed"
            )


def _override(config: ml_collections.ConfigDict, values: Mapping[str, Any]) -> None:
    """Puts the values into the config; what follows from them by reference follows."""
    with config.ignore_type(), config.unlocked():
        config.update_from_flattened_dict(dict(values))
    # References that cannot be followed fail now.
    dict(flatten(config))


def _run(file: _File, function: Callable[[], Any]) -> Any:
    """Does what runs the file's code; what is wrong there becomes one line."""
    try:
        return function()
    except (UserError, KeyboardInterrupt):
        raise
    # SystemExit is one, too.
    except BaseException as error:
        raise UserError(_explain(file, error)) from None


def _explain(file: _File, error: BaseException) -> str:
    """Where an error happened in the file, and what."""
    kind, line = type(error).__name__, None
    if isinstance(error, SyntaxError) and error.filename == file.path:
        line, message = error.lineno, str(error.msg)
    else:
        for frame in traceback.extract_tb(error.__traceback__):
            if frame.filename == file.path:
                line = frame.lineno
        message = _message(error)
    where = f"{file.path}, line {line}" if line else file.path
    return f"{where}: {kind}: {message}" if message else f"{where}: {kind}"


def _message(error: BaseException) -> str:
    """The error's text in one line, without the whole config that ml_collections adds to it."""
    inner = error
    while inner.args and isinstance(inner.args[0], BaseException):
        inner = inner.args[0]
    # The text of a KeyError is its key, in quotes.
    text = str(inner.args[0]) if isinstance(inner, KeyError) and inner.args else str(inner)
    text = re.sub(r' Other fields present: ".*?"(?=\nDid you mean|$)', "", text, flags=re.DOTALL)
    if isinstance(getattr(error, "obj", None), ml_collections.ConfigDict):
        text = f"the config has no {text}"
    text = " ".join(text.split())
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]} ..."
