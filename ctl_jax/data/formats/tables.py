"""Tables of images: csv, tsv, jsonl and parquet files, and Arrow ones, as columns by name."""

import csv
import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, BinaryIO, TypeAlias

import numpy as np

from ctl_jax.data.formats import remembered
from ctl_jax.data.formats.encoded import Places, Whole, is_picture
from ctl_jax.data.formats.file_state import file_state
from ctl_jax.data.sources.tfds.record_files import first_line
from ctl_jax.errors import UserError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_DELIMITERS = ",;\t|"
_BATCH = 256
# Reads a column of images: arrays of pyarrow's, of bytes.
Column: TypeAlias = Callable[[], Sequence[Any]]


@dataclasses.dataclass(frozen=True)
class Table:
    """Attributes:
    path: its file; paths in it are relative to the folder of that.
    rows: how many it has.
    values: columns of texts, numbers or lists of them.
    encoded: columns of encoded images, unread.
    class_names: of columns of class numbers, where the file says what they mean.
    """

    path: pathlib.Path
    rows: int
    values: Mapping[str, Sequence[Any]]
    encoded: Mapping[str, Column] = dataclasses.field(default_factory=dict)
    class_names: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """Names of all columns."""
        return [*self.encoded, *self.values]


def read(path: pathlib.Path) -> Table:
    """Reads a table, but for columns of images.

    Raises:
      UserError: it is no such table, or has no row.
    """
    try:
        suffix = path.suffix.casefold()
        if suffix == ".parquet":
            table = _parquet(path)
        elif suffix in (".jsonl", ".ndjson"):
            table = _json_lines(path)
        else:
            table = _delimited(path, "\t" if suffix == ".tsv" else "")
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
    if not table.rows:
        raise UserError(f"{str(path)!r} has no row; expected one for each image")
    return table


def _delimited(path: pathlib.Path, delimiter: str) -> Table:
    """A csv or tsv file; one whose first line has an image's name has no header."""
    # Names of files may be in any encoding; as the system has them.
    with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        first = file.readline()
        delimiter = delimiter or max(_DELIMITERS, key=first.count)
        file.seek(0)
        try:
            rows = [row for row in csv.reader(file, delimiter=delimiter, strict=True) if any(row)]
        except csv.Error as error:
            raise UserError(f"{str(path)!r} is not a table of text: {error}") from error
    if not rows:
        return Table(path, 0, {})
    header = [name.strip() for name in rows[0]]
    if any(map(is_picture, header)):
        header = [str(number) for number in range(1, len(header) + 1)]
    else:
        del rows[0]
    if len(set(header)) < len(header):
        raise UserError(f"{str(path)!r} has columns {', '.join(header)}; expected each name once")
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            raise UserError(
                f"{str(path)!r}, row {number}: {len(row)} fields; expected {len(header)}: "
                f"{', '.join(header)}"
            )
    columns = zip(*rows, strict=True) if rows else [()] * len(header)
    return Table(path, len(rows), dict(zip(header, map(list, columns), strict=True)))


def _json_lines(path: pathlib.Path) -> Table:
    rows: list[dict[str, Any]] = []
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                rows.append({**json.loads(line)})
            except (ValueError, TypeError, RecursionError) as error:
                raise UserError(
                    f"{str(path)!r}, line {number}: {first_line(error)}; expected a JSON object"
                ) from error
    columns = dict.fromkeys(name for row in rows for name in row)
    return Table(path, len(rows), {name: [row.get(name) for row in rows] for name in columns})


def _parquet(path: pathlib.Path) -> Table:
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path, memory_map=True)
        schema = file.schema_arrow
        images = [field.name for field in schema if _is_encoded(field.type)]
        images = [name for name in images if _has_bytes(file.metadata, schema.field(name))]
        plain = file.read([name for name in schema.names if name not in images])
    except (pyarrow.ArrowException, ValueError) as error:
        raise UserError(f"{str(path)!r} is not a parquet file: {first_line(error)}") from error

    def column(name: str) -> Column:
        def unpack(target: BinaryIO) -> None:
            try:
                with pyarrow.ipc.new_stream(target, pyarrow.schema([schema.field(name)])) as sink:
                    for batch in file.iter_batches(_BATCH, columns=[name]):
                        sink.write_batch(batch)
            except pyarrow.ArrowException as error:
                raise UserError(f"{str(path)!r} is damaged: {first_line(error)}") from error

        state = [file_state(path), name.encode()]
        return lambda: _arrays(read_arrow(remembered.file(state, ".arrow", unpack)), name)

    about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = about.get("info", {}).get("features", {})
    return of_arrow(path, plain, features, {name: column(name) for name in images})


def _has_bytes(metadata: Any, field: Any) -> bool:
    """Whether a column of images, or of images and their paths, has any image."""
    import pyarrow

    if pyarrow.types.is_struct(field.type) and pyarrow.types.is_null(
        field.type.field("bytes").type
    ):
        return False
    for group in range(metadata.num_row_groups):
        for number in range(metadata.num_columns):
            found = metadata.row_group(group).column(number)
            if found.path_in_schema in (field.name, f"{field.name}.bytes"):
                counts = found.statistics
                if counts is None or not counts.has_null_count:
                    return True
                if counts.null_count < found.num_values:
                    return True
    return False


def read_arrow(path: pathlib.Path) -> Any:
    """A file of Arrow's streaming format, mapped into memory.

    Raises:
      UserError: it is not a table.
    """
    import pyarrow

    try:
        return pyarrow.ipc.open_stream(pyarrow.memory_map(str(path))).read_all()
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"{str(path)!r} is not an Arrow file: {first_line(error)}") from error


def of_arrow(
    path: pathlib.Path,
    table: Any,
    features: Mapping[str, Any],
    encoded: Mapping[str, Column] = MappingProxyType({}),
) -> Table:
    """A table of pyarrow's.

    Args:
      path: the file that it is from.
      table: what is in memory, or mapped.
      features: as Hugging Face's `datasets` describes them.
      encoded: columns of images that are not in `table`.
    """
    values: dict[str, Sequence[Any]] = {}
    images = dict(encoded)
    for name, kind in zip(table.schema.names, table.schema.types, strict=True):
        if not _is_encoded(kind):
            values[name] = table.column(name).to_pylist()
        elif all(array.null_count == len(array) for array in _arrays(table, name)):
            # Paths without images: as `datasets` writes them where it has not read the files.
            rows = table.column(name).to_pylist()
            values[name] = [row.get("path") if isinstance(row, dict) else row for row in rows]
        else:
            images[name] = functools.partial(_arrays, table, name)
    rows = table.num_rows or max((sum(map(len, one())) for one in images.values()), default=0)
    names = {name: found for name in values if (found := _class_names(features.get(name)))}
    return Table(path, rows, values, images, names)


def _is_encoded(kind: Any) -> bool:
    import pyarrow

    if pyarrow.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        # Of no type where there is no image.
        return index >= 0 and (
            _is_encoded(kind.field(index).type) or pyarrow.types.is_null(kind.field(index).type)
        )
    return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)


def _arrays(table: Any, name: str) -> list[Any]:
    """The arrays of bytes of a column, of structs with bytes too."""
    import pyarrow
    from pyarrow import compute

    column = table.column(name)
    if pyarrow.types.is_struct(column.type):
        return [compute.struct_field(chunk, "bytes") for chunk in column.chunks]
    return list(column.chunks)


def _class_names(feature: Any) -> tuple[str, ...]:
    """What the numbers of a column mean, by the words of `datasets`."""
    if isinstance(feature, list) and len(feature) == 1:
        feature = feature[0]
    if not isinstance(feature, dict):
        return ()
    if feature.get("_type") == "ClassLabel":
        return tuple(map(str, feature.get("names") or ()))
    return _class_names(feature.get("feature"))


class ArrowImages(Whole):
    """Rows of columns of images, of one table after the other."""

    def __init__(self, columns: Sequence[tuple[pathlib.Path, Sequence[Any]]]) -> None:
        """Reads sizes only.

        Args:
          columns: of each table its file, and the arrays of its column.
        """
        from pyarrow import compute

        self._arrays = [array for _, arrays in columns for array in arrays]
        self._array_starts = _starts(map(len, self._arrays))
        self._paths = [path for path, _ in columns]
        self._path_starts = _starts(sum(map(len, arrays)) for _, arrays in columns)
        lengths = [compute.binary_length(array).fill_null(0) for array in self._arrays]
        self.sizes = np.concatenate([np.asarray(length, np.int64) for length in lengths])

    def read(self, places: Sequence[int]) -> list[bytes]:
        """See `encoded.Images`."""
        found = []
        for place in places:
            array = int(np.searchsorted(self._array_starts, place, side="right")) - 1
            value = self._arrays[array][place - int(self._array_starts[array])]
            if not value.is_valid:
                raise UserError(f"{self.where(place)} has no image")
            found.append(value.as_buffer().to_pybytes())
        return found

    def where(self, place: int) -> str:
        """See `encoded.Images`."""
        table = int(np.searchsorted(self._path_starts, place, side="right")) - 1
        return f"{str(self._paths[table])!r}, row {place - int(self._path_starts[table]) + 1}"

    def state(self, places: Places) -> Iterator[bytes]:
        """See `encoded.Images`."""
        yield from map(file_state, self._paths)
        yield np.asarray(places, np.int64).tobytes()


def _starts(lengths: Iterable[int]) -> np.ndarray:
    return np.cumsum([0, *lengths])[:-1]
