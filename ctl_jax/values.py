"""Values as a command line writes them: one of them, a list, or the name of a Python object."""

import ast
import decimal
import importlib
import re
import warnings
from typing import Any

from ctl_jax.errors import UserError

_TRUTHS = {
    **dict.fromkeys(("true", "t", "yes", "y", "on", "1"), True),
    **dict.fromkeys(("false", "f", "no", "n", "off", "0"), False),
}
# A number of more digits is a slip, and 1e999999999 would fill the memory.
_MOST_DIGITS = 30
_EXPECTED = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
}
# An element of a list: in quotes, or up to the next comma.
_ELEMENT = re.compile(r"""\s*(?:'([^']*)'|"([^"]*)"|([^,]*?))\s*,""")


def imported(name: str) -> Any:
    """What PACKAGE.MODULE:NAME names; raises whatever importing the module raises."""
    where, _, what = name.partition(":")
    found: Any = importlib.import_module(where)
    for part in what.split("."):
        found = getattr(found, part)
    return found


def is_truth(text: str) -> bool:
    """Whether a text is one of the words for true and false."""
    return text.strip().lower() in _TRUTHS


def read_scalar(name: str, text: str, kind: type) -> Any:
    """Reads one value.

    Args:
      name: how a complaint begins, e.g. "config.finetune.batch_size".
      text: what the user wrote. An int may be written as 1_000 or 1e3, a bool as true, yes, on or
        1; a str is taken as it is.
      kind: bool, int, float or str.

    Returns:
      The value. Whether it makes sense is for others to say: a float may be infinite.

    Raises:
      UserError: the text is no such value.
    """
    if kind is str:
        return text
    try:
        if kind is bool:
            return _TRUTHS[text.strip().lower()]
        if not text.isascii():
            raise ValueError
        return float(text) if kind is float else _integer(text)
    except (KeyError, ValueError, ArithmeticError):
        raise UserError(f"{name}={text}: expected {_EXPECTED[kind]}") from None


def read_option(text: str) -> tuple[str, Any]:
    """Reads NAME=VALUE; the value is a number, True, False, a tuple or, as it is, a text.

    Raises:
      UserError: no name, or no value.

    Example:
      >>> read_option("heads=6")
      ('heads', 6)
    """
    name, equals, value = (part.strip() for part in text.partition("="))
    if not (name.isidentifier() and equals and value):
        raise UserError(f"{text!r}: expected NAME=VALUE")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return name, value


def read_list(name: str, text: str, kind: type) -> tuple[Any, ...]:
    """Reads several values: `a,b`, `a, b`, `(a, b)`, `[a]`, `('a', 'b')`, `a` or nothing at all.

    Args:
      name: how a complaint begins.
      text: what the user wrote. Texts may be in quotes; one that holds a comma, or begins with a
        bracket or a space, has to be.
      kind: of each value, as in `read_scalar`.

    Returns:
      The values.

    Raises:
      UserError: the text is no such list, or has an empty value between two commas.
    """
    text = text.strip()
    if kind is str and (literal := _literal(text)) is not None:
        return literal
    if text[:1] + text[-1:] in ("()", "[]"):
        text = text[1:-1]
    # As in Python, one comma may stand at the end.
    text = text.strip().removesuffix(",").rstrip()
    if not text:
        return ()
    elements: list[Any] = []
    for match in _ELEMENT.finditer(f"{text},"):
        element = next(group for group in match.groups() if group is not None)
        if not element:
            raise UserError(f"{name}={text}: expected a value before and after each comma")
        elements.append(read_scalar(f"{name}[{len(elements)}]", element, kind))
    return tuple(elements)


def as_text(value: Any) -> str:
    """Writes a value, or a tuple of values, as `read_scalar` and `read_list` read it."""
    if isinstance(value, tuple):
        texts = [as_text(each) for each in value]
        # Quotes, brackets, commas, spaces and empty texts need Python's quotes.
        plain = all(re.fullmatch(r"[\w./~@:+-]+", text) for text in texts)
        return ",".join(texts) if plain else repr(value)
    if isinstance(value, bool):
        return str(value).lower()
    short = f"{value:g}" if isinstance(value, float) else ""
    return short if short and float(short) == value else str(value)


def _integer(text: str) -> int:
    number = decimal.Decimal(text.strip())
    if not number.is_finite() or number.adjusted() > _MOST_DIGITS or number != int(number):
        raise ValueError
    return int(number)


def _literal(text: str) -> tuple[str, ...] | None:
    """The texts of a Python literal, e.g. `('a,b', 'c')` or `'a'`; None if it is something else."""
    if not text.startswith(("(", "[", "'", '"')):
        return None
    try:
        with warnings.catch_warnings():
            # Of a backslash that begins no escape.
            warnings.simplefilter("ignore", SyntaxWarning)
            value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    values = list(value) if isinstance(value, tuple | list) else [value]
    return tuple(values) if all(isinstance(each, str) for each in values) else None
