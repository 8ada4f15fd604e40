"""Records as JSON objects and back: what a field must hold is what its annotation says."""

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

from ctl_jax.errors import UserError, naming


class IsRecord(Protocol):
    """A frozen dataclass whose JSON object has this `type`."""

    type: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]


T = TypeVar("T")
# Takes a value and what it is called, for errors within it; raises TypeError where it is of
# another kind.
_Convert = Callable[[Any, str], Any]


class Kind(NamedTuple):
    """What a value is.

    Attributes:
        words: For people: "number or null".
        convert: Makes it of what JSON gave: `convert(value, where)`.
    """

    words: str
    convert: _Convert


class _Field(NamedTuple):
    name: str
    words: str
    convert: _Convert
    required: bool


def positive() -> Any:
    """A field whose integer is at least 1."""
    return dataclasses.field(metadata={"positive": True})


def to_json(record: IsRecord) -> dict[str, Any]:
    """Returns a record as a JSON object of plain values, its type first."""
    return {"type": record.type, **_plain(record)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {
            field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def read_fields(cls: Callable[..., T], given: Mapping[str, Any], where: str) -> T:
    """Makes a dataclass of a JSON object, as its annotations say.

    Whole numbers become int where int is expected, others float; what is not finite becomes None
    where that is allowed; lists become tuples. Fields that the class does not know are left out.

    Args:
        cls: The dataclass; a field without a default must be there.
        given: The JSON object.
        where: What it is called, for errors.

    Raises:
        UserError: A field is missing or of another kind.
    """
    values = {}
    for field in _fields_of(cls):
        if field.name in given:
            value = given[field.name]
            try:
                values[field.name] = field.convert(value, f"{where} {field.name}")
            # A whole number in JSON may be too large for a float.
            except (TypeError, OverflowError):
                raise UserError(
                    f"{where}: {field.name} is {value!r}, expected {field.words}"
                ) from None
        elif field.required:
            raise UserError(f"{where}: no field {field.name!r}, expected {field.words}")
    with naming(where):
        return cls(**values)


@functools.cache
def _fields_of(cls: Any) -> tuple[_Field, ...]:
    hints = typing.get_type_hints(cls)
    found = []
    for field in dataclasses.fields(cls):
        kind = kind_of(hints[field.name], field.metadata)
        required = (
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        )
        found.append(_Field(field.name, kind.words, kind.convert, required))
    return tuple(found)


def kind_of(hint: Any, metadata: Mapping[str, Any] = MappingProxyType({})) -> Kind:
    """Returns what a value of this annotation is: in words, and how it is read.

    Args:
        hint: A scalar, dataclass, `tuple[X, ...]`, `Mapping[str, X]`, or one of them `| None`.
        metadata: Of the field, which may say `positive`.
    """
    args = typing.get_args(hint)
    origin = typing.get_origin(hint)
    if origin is types.UnionType:
        return _optional(kind_of(next(arg for arg in args if arg is not type(None)), metadata))
    if origin is tuple:
        return _several(kind_of(args[0], metadata))
    if origin is Mapping:
        return _object(args[1])
    if dataclasses.is_dataclass(hint):
        return Kind("object", functools.partial(_nested, hint))
    if metadata.get("positive"):
        return Kind("positive integer", functools.partial(_integer, least=1))
    return _SCALARS[hint]


def _optional(kind: Kind) -> Kind:
    def convert(value: Any, where: str) -> Any:
        not_finite = isinstance(value, float) and not math.isfinite(value)
        return None if value is None or not_finite else kind.convert(value, where)

    return Kind(f"{kind.words} or null", convert)


def _several(kind: Kind) -> Kind:
    def convert(value: Any, where: str) -> tuple[Any, ...]:
        _expect(isinstance(value, list | tuple))
        return tuple(kind.convert(item, f"{where}[{index}]") for index, item in enumerate(value))

    return Kind(f"{kind.words}s", convert)


def _object(hint: Any) -> Kind:
    kind = Kind("", lambda value, where: value) if hint is Any else kind_of(hint)

    def convert(value: Any, where: str) -> dict[str, Any]:
        _expect(isinstance(value, Mapping))
        return {key: kind.convert(item, f"{where} {key}") for key, item in value.items()}

    return Kind(f"object of {kind.words}s" if kind.words else "object", convert)


def _nested(cls: Any, value: Any, where: str) -> Any:
    _expect(isinstance(value, Mapping))
    return read_fields(cls, value, where)


def _text(value: Any, where: str) -> str:
    _expect(isinstance(value, str))
    return value


def _boolean(value: Any, where: str) -> bool:
    _expect(isinstance(value, bool))
    return value


def _number(value: Any, where: str) -> float:
    _expect(_is_number(value))
    return float(value)


def _integer(value: Any, where: str, least: float = -math.inf) -> int:
    _expect(_is_number(value) and value == int(value) and value >= least)
    return int(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _expect(is_so: bool) -> None:
    if not is_so:
        raise TypeError


_SCALARS: Mapping[Any, Kind] = {
    str: Kind("text", _text),
    bool: Kind("boolean", _boolean),
    int: Kind("integer", _integer),
    float: Kind("number", _number),
}


def check_unique(values: Sequence[Any], where: str) -> None:
    """Raises a UserError where a value is there more than once."""
    for value in values:
        if values.count(value) > 1:
            raise UserError(f"{where}: {value!r} is there more than once, expected once")
