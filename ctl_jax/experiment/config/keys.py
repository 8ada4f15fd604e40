"""Keys of a config: each a field of a dataclass, with its default, its sentence and its check."""

import dataclasses
import typing
from collections.abc import Callable
from typing import Any, NamedTuple


class Check(NamedTuple):
    """Whether a value makes sense, and the words for what does.

    Attributes:
      holds: whether a value of the key's type makes sense.
      words: what is expected; a function where that may still change, as names do that are added.
    """

    holds: Callable[[Any], bool]
    words: str | Callable[[], str]

    @property
    def expected(self) -> str:
        """What is expected, now."""
        return self.words if isinstance(self.words, str) else self.words()


@dataclasses.dataclass(frozen=True)
class Key:
    """A key of the config.

    Attributes:
      name: with its section, "finetune.batch_size".
      kind: bool, int, float or str: the type of its value, or of each element of a list.
      is_list: whether its value is a tuple.
      default: its value where the config file says nothing.
      sentence: what it is.
      check: whether a value of its type makes sense; None where each does.
      canonical: the one form of a list's equal values; raises a `UserError` of what has none. No
        element of such a list holds a comma, so that they may be joined by one.
    """

    name: str
    kind: type
    is_list: bool
    default: Any
    sentence: str
    check: Check | None
    canonical: Callable[[tuple[Any, ...]], tuple[Any, ...]] | None


def key(
    default: Any,
    sentence: str,
    check: Check | None = None,
    *,
    canonical: Callable[[tuple[Any, ...]], tuple[Any, ...]] | None = None,
) -> Any:
    """A field of a section: see `Key`, whose type is the field's annotation."""
    given = {"sentence": sentence, "check": check, "canonical": canonical}
    return dataclasses.field(default=default, metadata=given)


def keys_of(section: type, prefix: str = "") -> dict[str, Key]:
    """The keys of a dataclass by name; fields that are dataclasses are its sections."""
    found: dict[str, Key] = {}
    types = typing.get_type_hints(section)
    for field in dataclasses.fields(section):
        name, wanted = f"{prefix}{field.name}", types[field.name]
        if isinstance(wanted, type) and dataclasses.is_dataclass(wanted):
            found |= keys_of(wanted, f"{name}.")
            continue
        is_list = typing.get_origin(wanted) is tuple
        kind = typing.get_args(wanted)[0] if is_list else wanted
        found[name] = Key(name, kind, is_list, field.default, **field.metadata)
    return found
