"""The `metadata` file of dm_nevis, which is a pickle (base64), read without unpickling it.

A pickle is a program. Here its opcodes move plain values about on a stack of our own; what would
import, call or build something leaves a mere note of the name. Nothing that the file names is ever
imported or called, so a hostile one can at most lie about a few numbers.
"""

import base64
import binascii
import builtins
import dataclasses
import itertools
import logging
import pathlib
import pickletools
from collections.abc import Mapping, Sequence
from typing import Any

_log = logging.getLogger(__name__)

# The largest that dm_nevis writes (AWA2, with its attribute tables) is about 100 kB.
_MOST_BYTES = 1 << 22
MOST_CLASSES = 1_000_000
_MOST_TABLES = 100
# What the descriptions of dm_nevis are made of. A file that names anything else is refused.
_KNOWN_PACKAGES = {
    *("dm_nevis", "tensorflow_datasets", "tensorflow", "etils", "google"),
    *("numpy", "collections", "dill", "copyreg"),
}
# Opcodes that only put their argument on the stack.
_CONSTANTS = frozenset(
    opcode.name
    for opcode in pickletools.opcodes
    if opcode.arg is not None and opcode.stack_after not in ([], [pickletools.anyobject])
)
_MARK = object()


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What could be learnt; everything may be missing.

    Attributes:
      num_classes: number of classes, or of labels that an image may have.
      class_names: their names, in the order of the classes.
      counts: number of examples by split, as dm_nevis names the splits.
    """

    num_classes: int | None = None
    class_names: tuple[str, ...] = ()
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)


def read(path: pathlib.Path) -> Metadata:
    """Reads a `metadata` file; an empty answer where it is missing or not what dm_nevis writes."""
    try:
        with open(path, "rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES} bytes")
        return parse(base64.b64decode(content))
    except FileNotFoundError:
        return Metadata()
    except (OSError, ValueError, binascii.Error) as error:
        _log.warning("%r is not used: %s", str(path), error)
        return Metadata()


def parse(content: bytes) -> Metadata:
    """What a pickled `DatasetMetaData` says.

    Raises:
      ValueError: it is no such pickle, or one that is out of the ordinary.
    """
    try:
        top = _run(content)
    except ValueError:
        raise
    except Exception as error:  # Whatever pickletools and the stack raise of broken programs.
        raise ValueError(f"it is not a whole pickle: {error!r}") from error
    if not isinstance(top, _Thing) or not top.name.endswith(".DatasetMetaData"):
        raise ValueError("it does not hold a DatasetMetaData of dm_nevis")
    num_classes = top.content.get("num_classes")
    if type(num_classes) is not int or not 0 < num_classes <= MOST_CLASSES:
        num_classes = None
    more = _content(top.content.get("additional_metadata"))
    counts = _content(more.get("num_data_points_per_split"))
    return Metadata(
        num_classes,
        _class_names(more, num_classes),
        {name: count for name, count in counts.items() if type(count) is int and count >= 0},
    )


def _class_names(more: Mapping[str, Any], num_classes: int | None) -> tuple[str, ...]:
    """Names from the first table that gives every class one; handlers call it differently."""
    for table in map(_content, itertools.islice(more.values(), _MOST_TABLES)):
        if num_classes is None or len(table) != num_classes:
            continue
        names = {number: name for name, number in table.items() if type(number) is int}
        if names.keys() == set(range(num_classes)):
            return tuple(names[number] for number in range(num_classes))
    return ()


class _Thing:
    """Stands for whatever a pickle would import or make: its name, and its entries by string."""

    __slots__ = ("content", "name")

    def __init__(self, name: str):
        self.name = name
        self.content: dict[str, Any] = {}


def _content(value: Any) -> Mapping[str, Any]:
    return value.content if isinstance(value, _Thing) else {}


def _run(content: bytes) -> Any:
    """Runs a pickle's opcodes on notes instead of objects; what is on top of the stack at the end.

    Dictionaries are notes too, of their entries under strings alone: hashing nested tuples would
    let a hostile file overflow the C stack.
    """
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    for opcode, argument, _ in pickletools.genops(content):
        name = opcode.name
        if name == "STOP":
            return stack.pop()
        if name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in _CONSTANTS:
            stack.append(argument)
        else:
            stack += _results(name, argument, _operands(stack, opcode))
    raise AssertionError("pickletools ends with STOP or raises")


def _operands(stack: list[Any], opcode: pickletools.OpcodeInfo) -> list[Any]:
    """Takes from the stack what an opcode takes, the lowest first; no mark is among it."""
    marked: list[Any] = []
    count = len(opcode.stack_before)
    if pickletools.markobject in opcode.stack_before:
        while (value := stack.pop()) is not _MARK:
            marked.append(value)
        count -= 2  # The mark and what is above it.
    place = len(stack) - count
    below = stack[max(place, 0) :]
    if place < 0 or any(value is _MARK for value in below):
        raise ValueError("it takes more from its stack than there is")
    del stack[place:]
    return below + marked[::-1]


def _results(name: str, argument: Any, values: list[Any]) -> Sequence[Any]:
    """What an opcode puts on the stack, from its argument and what it has taken from there."""
    match name:
        case "PROTO" | "FRAME" | "POP" | "POP_MARK":
            return ()
        case "MARK":
            return (_MARK,)
        case "NONE":
            return (None,)
        case "NEWTRUE" | "NEWFALSE":
            return (name == "NEWTRUE",)
        case "DUP":
            return values * 2
        case "EMPTY_TUPLE" | "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
            return (tuple(values),)
        case "EMPTY_LIST" | "LIST":
            return (values,)
        case "APPEND" | "APPENDS":
            if isinstance(values[0], list):
                values[0].extend(values[1:])
            return values[:1]
        case "EMPTY_DICT" | "DICT":
            return (_set_items(_Thing("dict"), values),)
        case "SETITEM" | "SETITEMS":
            return (_set_items(values[0], values[1:]),)
        case "EMPTY_SET" | "FROZENSET":
            return (_Thing("set"),)
        case "ADDITEMS":
            return values[:1]
        case "GLOBAL":
            return (_load(*argument.split(" ", 1)),)
        case "STACK_GLOBAL":
            return (_load(*values),)
        case "REDUCE" | "NEWOBJ" | "NEWOBJ_EX":
            # Calls a function or makes an object: the note keeps the callee's name.
            return (_Thing(values[0].name if isinstance(values[0], _Thing) else "unknown"),)
        case "BUILD":
            return (_build(*values),)
    raise ValueError(f"it has the opcode {name}, which dm_nevis's files have not")


def _set_items(target: Any, values: Sequence[Any]) -> Any:
    if isinstance(target, _Thing):
        pairs = zip(values[::2], values[1::2], strict=True)
        target.content.update((key, value) for key, value in pairs if type(key) is str)
    return target


def _load(module: Any, name: Any) -> _Thing:
    if type(module) is not str or type(name) is not str:
        raise ValueError("it names something to import by other than strings")
    package = module.split(".")[0]
    plain = package in ("builtins", "__builtin__") and isinstance(vars(builtins).get(name), type)
    if package not in _KNOWN_PACKAGES and not plain:
        raise ValueError(f"it names {f'{module}.{name}'!r}, which dm_nevis's files do not")
    return _Thing(f"{module}.{name}")


def _build(target: Any, state: Any) -> Any:
    """Sets an object's state: its attributes, or these and those of its slots."""
    for part in state[:2] if type(state) is tuple else (state,):
        # Shared, not copied: a hostile file could ask for many copies of a large one.
        if isinstance(target, _Thing) and isinstance(part, _Thing) and not target.content:
            target.content = part.content
    return target
