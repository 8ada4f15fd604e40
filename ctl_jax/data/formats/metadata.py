"""The `metadata` file of dm_nevis, which is a pickle (base64), read without unpickling it.

A pickle is a program. Here its opcodes move plain values about on a stack of our own; what would
import, call or build something leaves a mere note of the name. Nothing that the file names is ever
imported or called, so a hostile one can at most lie about a few numbers.
"""

import base64
import binascii
import dataclasses
import itertools
import logging
import pathlib
import pickletools
from collections.abc import Callable, Mapping
from typing import Any

_log = logging.getLogger(__name__)

# The largest that dm_nevis writes (AWA2, with its attribute tables) is about 100 kB.
_MOST_BYTES = 1 << 22
MOST_CLASSES = 1_000_000
_MOST_TABLES = 100
# What the descriptions of dm_nevis are made of. A file that names anything else is none of its.
_KNOWN_PACKAGES = frozenset(
    [
        "dm_nevis",
        "tensorflow_datasets",
        "tensorflow",
        "numpy",
        "collections",
        "dill",
        "copyreg",
        "etils",
        "google",
    ]
)
_KNOWN_BUILTINS = frozenset(
    [
        "int",
        "float",
        "complex",
        "str",
        "bytes",
        "bool",
        "list",
        "tuple",
        "dict",
        "set",
        "frozenset",
        "object",
        "range",
        "slice",
        "type",
    ]
)


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
        top = _Machine().run(content)
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


class _Machine:
    """Runs a pickle's opcodes on notes instead of objects.

    Dictionaries are notes too, of their entries under strings alone: hashing nested tuples would
    let a hostile file overflow the C stack.
    """

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, content: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(content):
            name = opcode.name
            if name == "STOP":
                return self.stack.pop()
            if name in _CONSTANTS:
                self.stack.append(argument)
            elif name in _ACTIONS:
                _ACTIONS[name](self, argument)
            else:
                raise ValueError(f"it has the opcode {name}, which dm_nevis's files have not")
        raise AssertionError("pickletools ends with STOP or raises")

    def since_mark(self) -> list[Any]:
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def pop(self, count: int) -> list[Any]:
        if count > len(self.stack) - (self.marks[-1] if self.marks else 0):
            raise ValueError("it takes more from its stack than there is")
        values = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return values

    def pack(self, count: int) -> None:
        self.stack.append(tuple(self.pop(count)))

    def new_list(self, values: list[Any]) -> None:
        self.stack.append(values)

    def append(self, values: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(values)

    def new_dict(self, values: list[Any]) -> None:
        self.stack.append(_Thing("dict"))
        self.set_items(values)

    def set_items(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, _Thing):
            pairs = zip(values[::2], values[1::2], strict=True)
            target.content.update((key, value) for key, value in pairs if type(key) is str)

    def frozen_set(self) -> None:
        self.since_mark()
        self.stack.append(_Thing("frozenset"))

    def load(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise ValueError("it names something to import by other than strings")
        package = module.split(".")[0]
        builtin = package in ("builtins", "__builtin__") and name in _KNOWN_BUILTINS
        if package not in _KNOWN_PACKAGES and not builtin:
            raise ValueError(f"it names {f'{module}.{name}'!r}, which dm_nevis's files do not")
        self.stack.append(_Thing(f"{module}.{name}"))

    def make(self, count: int) -> None:
        """What calls a function or makes an object: the note keeps the callee's name."""
        callee = self.pop(count)[0]
        self.stack.append(_Thing(callee.name if isinstance(callee, _Thing) else "unknown"))

    def build(self) -> None:
        """Sets an object's state: its attributes, or these and those of its slots."""
        (state,) = self.pop(1)
        target = self.stack[-1]
        for part in state[:2] if type(state) is tuple else (state,):
            # Shared, not copied: a hostile file could ask for many copies of a large one.
            if isinstance(target, _Thing) and isinstance(part, _Thing) and not target.content:
                target.content = part.content


_CONSTANTS = frozenset(
    [
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "LONG4",
        "FLOAT",
        "BINFLOAT",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "UNICODE",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE8",
        "BINBYTES",
        "SHORT_BINBYTES",
        "BINBYTES8",
        "BYTEARRAY8",
    ]
)
_ACTIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    "PROTO": lambda m, x: None,
    "FRAME": lambda m, x: None,
    "NONE": lambda m, x: m.stack.append(None),
    "NEWTRUE": lambda m, x: m.stack.append(True),
    "NEWFALSE": lambda m, x: m.stack.append(False),
    "MARK": lambda m, x: m.marks.append(len(m.stack)),
    "POP": lambda m, x: m.pop(1),
    "POP_MARK": lambda m, x: m.since_mark(),
    "DUP": lambda m, x: m.stack.append(m.stack[-1]),
    "EMPTY_TUPLE": lambda m, x: m.pack(0),
    "TUPLE1": lambda m, x: m.pack(1),
    "TUPLE2": lambda m, x: m.pack(2),
    "TUPLE3": lambda m, x: m.pack(3),
    "TUPLE": lambda m, x: m.stack.append(tuple(m.since_mark())),
    "EMPTY_LIST": lambda m, x: m.new_list([]),
    "LIST": lambda m, x: m.new_list(m.since_mark()),
    "APPEND": lambda m, x: m.append(m.pop(1)),
    "APPENDS": lambda m, x: m.append(m.since_mark()),
    "EMPTY_DICT": lambda m, x: m.new_dict([]),
    "DICT": lambda m, x: m.new_dict(m.since_mark()),
    "SETITEM": lambda m, x: m.set_items(m.pop(2)),
    "SETITEMS": lambda m, x: m.set_items(m.since_mark()),
    "EMPTY_SET": lambda m, x: m.stack.append(_Thing("set")),
    "ADDITEMS": lambda m, x: m.since_mark(),
    "FROZENSET": lambda m, x: m.frozen_set(),
    "MEMOIZE": lambda m, x: m.memo.__setitem__(len(m.memo), m.stack[-1]),
    "PUT": lambda m, x: m.memo.__setitem__(x, m.stack[-1]),
    "BINPUT": lambda m, x: m.memo.__setitem__(x, m.stack[-1]),
    "LONG_BINPUT": lambda m, x: m.memo.__setitem__(x, m.stack[-1]),
    "GET": lambda m, x: m.stack.append(m.memo[x]),
    "BINGET": lambda m, x: m.stack.append(m.memo[x]),
    "LONG_BINGET": lambda m, x: m.stack.append(m.memo[x]),
    "GLOBAL": lambda m, x: m.load(*x.split(" ", 1)),
    "STACK_GLOBAL": lambda m, x: m.load(*m.pop(2)),
    "REDUCE": lambda m, x: m.make(2),
    "NEWOBJ": lambda m, x: m.make(2),
    "NEWOBJ_EX": lambda m, x: m.make(3),
    "BUILD": lambda m, x: m.build(),
}
