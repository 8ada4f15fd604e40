"""Columns of a table: which are images, labels and splits, and what labels its rows have."""

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ctl_jax.data.formats import cut
from ctl_jax.data.formats.classes import listed
from ctl_jax.data.formats.encoded import is_picture
from ctl_jax.data.formats.tables import Table
from ctl_jax.errors import UserError

# What a user may say of a table behind its path.
OPTIONS = (
    ("image", "the column of paths or images"),
    ("label", "the column of labels, or several of 0 and 1 joined by commas"),
    ("split", "the column of splits"),
    ("missing", "skip, to leave out rows whose files are not there"),
)
# Names of columns, the likeliest first; in lower case, with "_" for what is no letter or digit.
_IMAGE = (
    *("image", "img", "images", "file_name", "filename", "file", "filepath", "file_path", "path"),
    *("image_path", "img_path", "image_file", "image_name", "img_name", "picture", "photo"),
    *("image_id", "img_id", "imageid", "id", "id_code", "name"),
)
_LABEL = (
    *("label", "labels", "class", "classes", "class_name", "category", "categories", "target"),
    *("targets", "species", "tag", "tags", "breed", "fine_label", "class_id", "category_id"),
    *("label_id", "class_label", "diagnosis", "dx", "y"),
)
_SPLIT = ("split", "subset", "set", "partition", "data_set", "dataset", "fold", "part")
_SPLIT_NAMES = cut.user_names(())
_SEPARATORS = ";|"
_FLAGS = ({"0", "1"}, {"-1", "1"})
_LOOKED_AT = 200


class Columns(NamedTuple):
    """Names of a table's columns.

    Attributes:
      image: paths or images.
      labels: one, or several of 0 and 1.
      split: "" for none.
    """

    image: str
    labels: tuple[str, ...]
    split: str


class Labels(NamedTuple):
    """Attributes:
    labels: int32 [N], -1 for a row without a label; or uint8 [N, num_classes] of 0 and 1.
    class_names: in the order of the labels.
    notes: a line for what may not be meant.
    """

    labels: np.ndarray
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def choose(table: Table, options: Mapping[str, str]) -> Columns:
    """The columns that the user names, or those that are meant by their names and content.

    Raises:
      UserError: a column that is named is not there, or it is not clear which is meant.
    """
    split = _named(table, options, "split") or _split(table)
    image = _named(table, options, "image") or image_of(table, {split})
    if "label" in options:
        given = options["label"]
        whole = [given] if given in table.columns else given.split(",")
        labels = tuple(_existing(table, "label", name) for name in whole)
    else:
        labels = _labels(table, {split, image})
    return Columns(image, labels, split)


def _named(table: Table, options: Mapping[str, str], option: str) -> str:
    return _existing(table, option, options[option]) if option in options else ""


def _existing(table: Table, option: str, name: str) -> str:
    if name in table.columns:
        return name
    close = difflib.get_close_matches(name, table.columns, n=1)
    hint = f", such as {close[0]!r}" if close else ""
    raise UserError(
        f"{str(table.path)!r} has no column {name!r} for {option}; expected one of "
        f"{_all(table)}{hint}"
    )


def _all(table: Table) -> str:
    shown = table.columns[:20]
    return ", ".join(map(repr, shown)) + (" ..." if len(table.columns) > 20 else "")


def _usual(columns: Collection[str], names: Sequence[str]) -> list[str]:
    """Those of some columns that have a usual name, the likeliest first."""
    plain = {column: re.sub(r"\W+", "_", column.casefold()).strip("_") for column in columns}
    found = [column for column in columns if plain[column] in names]
    return sorted(found, key=lambda column: names.index(plain[column]))


def usual_labels(names: Collection[str]) -> list[str]:
    """Those of some names that usually are labels, the likeliest first."""
    return _usual(names, _LABEL)


def _split(table: Table) -> str:
    for column in _usual(table.values, _SPLIT):
        if all(split_of(value) is not None for value in set(map(text, table.values[column]))):
            return column
    return ""


def split_of(value: str) -> str | None:
    """The split that a value of a split column means; None for no split."""
    found = _SPLIT_NAMES.get(value.strip().casefold())
    return "train" if found == "train_and_dev" else found


def image_of(table: Table, others: Collection[str] = ()) -> str:
    if table.encoded:
        return (_usual(table.encoded, _IMAGE) or list(table.encoded))[0]
    rest = [column for column in table.values if column not in others]
    paths = [column for column in rest if _are_paths(table.values[column])]
    found = _usual(paths, _IMAGE) or paths or _usual(rest, _IMAGE)
    if not found:
        raise UserError(
            f"{str(table.path)!r} has no column of images that is clear from the names and content "
            f"of {_all(table)}; expected it as ?image=NAME behind the path"
        )
    return found[0]


def _are_paths(values: Sequence[Any]) -> bool:
    looked_at = values[:: max(1, len(values) // _LOOKED_AT)]
    return 2 * sum(isinstance(value, str) and is_picture(value) for value in looked_at) > len(
        looked_at
    )


def _labels(table: Table, others: Collection[str]) -> tuple[str, ...]:
    rest = [column for column in table.values if column not in others]
    if usual := usual_labels(rest):
        return (usual[0],)
    if len(rest) == 1:
        return (rest[0],)
    flags = [column for column in rest if are_flags(table.values[column])]
    if len(flags) > 1:
        return tuple(flags)
    raise UserError(
        f"{str(table.path)!r} has no column of labels that is clear from the names and content of "
        f"{_all(table)}; expected it as ?label=NAME behind the path"
    )


def are_flags(values: Sequence[Any]) -> bool:
    """Whether a column says yes or no of every row."""
    found = set(map(text, values))
    return bool(found) and any(found <= flags for flags in _FLAGS)


def text(value: Any) -> str:
    """A label as text: "" for none, and 3 for 3.0; a yes is 1."""
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def labels_of(table_path: str, values: Sequence[Any], declared: Sequence[str]) -> Labels:
    """Labels of one column: a class a row, or several of them.

    Several are lists, or texts in which ";" or "|" stands between them.

    Args:
      table_path: for error messages.
      values: of all rows.
      declared: the names of classes, where values are numbers of these; else they are sorted.

    Raises:
      UserError: fractions, or numbers that `declared` does not have.
    """
    if any(isinstance(value, list | tuple) for value in values):
        return _several([list(map(text, value or ())) for value in values], declared, table_path)
    texts = list(map(text, values))
    for separator in _SEPARATORS:
        if any(separator in label for label in texts):
            found = [[one.strip() for one in label.split(separator)] for label in texts]
            return _several(found, declared, table_path)
    if any(
        isinstance(value, float) and not text(value).lstrip("-").isdigit() and text(value)
        for value in values
    ):
        raise UserError(f"{table_path!r} has labels with fractions; expected classes")
    if declared:
        texts = ["" if label == "-1" else label for label in texts]
    names = _names({label for label in texts if label}, declared, table_path)
    place = {"": -1, **names[1]}
    return Labels(np.asarray([place[label] for label in texts], np.int32), names[0])


def flags_of(columns: Mapping[str, Sequence[Any]], table_path: str) -> Labels:
    """Labels of a column of 0 and 1 for each class.

    Raises:
      UserError: a column has something else.
    """
    for name, values in columns.items():
        if not are_flags(values):
            odd = {text(value) for value in values} - {"0", "1"}
            raise UserError(f"{table_path!r} has {listed(odd)} in {name!r}; expected 0 and 1")
    labels = np.stack(
        [np.asarray([text(value) == "1" for value in values]) for values in columns.values()], 1
    ).astype(np.uint8)
    return Labels(labels, tuple(columns), _about_single(labels))


def _several(rows: Sequence[Sequence[str]], declared: Sequence[str], path: str) -> Labels:
    names, place = _names({label for row in rows for label in row if label}, declared, path)
    labels = np.zeros((len(rows), len(names)), np.uint8)
    for number, row in enumerate(rows):
        labels[number, [place[label] for label in row if label]] = 1
    return Labels(labels, names, _about_single(labels))


def _about_single(labels: np.ndarray) -> tuple[str, ...]:
    if (labels.sum(axis=1) == 1).all():
        return (
            "every image has exactly one label: as one column of classes it would be scored by "
            "accuracy",
        )
    return ()


def _names(
    found: Collection[str], declared: Sequence[str], path: str
) -> tuple[tuple[str, ...], dict[str, int]]:
    """Names of classes in order, and the label that each text means."""
    numbers = all(re.fullmatch(r"-?\d+", label, re.ASCII) for label in found)
    if not declared:
        order = sorted(found, key=lambda label: (int(label), label)) if numbers else sorted(found)
        return tuple(order), {label: place for place, label in enumerate(order)}
    if numbers:
        place = {label: int(label) for label in found}
    else:
        place = {label: declared.index(label) if label in declared else -1 for label in found}
    if odd := [label for label in found if not 0 <= place[label] < len(declared)]:
        raise UserError(
            f"{path!r} has labels {listed(odd)}; its description has {len(declared)} classes"
        )
    return tuple(declared), place
