"""Data sets that were imported: TFDS sets in ArrayRecord, with a note of what they come from."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping

from ctl_jax import home
from ctl_jax.data.dataset import DataSet, Records
from ctl_jax.data.source import Dirs, Source, register
from ctl_jax.data.sources.tfds import prepared
from ctl_jax.data.sources.tfds.fields import Labels
from ctl_jax.data.sources.tfds.record_files import RecordFiles
from ctl_jax.data.sources.tfds.records import Piece, TfdsRecords
from ctl_jax.data.task import SPLITS, TaskSpec
from ctl_jax.errors import UserError

VERSION = "1.0.0"
NOTE = "imported.json"
# Label features by the kind of the set.
FIELDS = {"single_label": "label", "multi_label": "labels"}


# Earlier versions wrote no notes, and took the folders that they imported as they were.
_UNCHECKED = (
    "imported by an earlier version, which did not check splits and classes of folders: "
    "import it again",
)


@dataclasses.dataclass(frozen=True)
class Note:
    """What the note beside an imported set says.

    Attributes:
      origin: of the set that was imported.
      path: where that set lay.
      kind: "single_label" or "multi_label".
      num_classes: number of classes or labels.
      class_names: their names; TFDS keeps none with odd spaces.
      fingerprints: of the splits that were imported.
      identities: of these too; earlier versions did not note them.
      notes: what was put right, or may not be what was meant.
      passed_over: how many files were no examples, by their kind.
    """

    origin: str
    path: str
    kind: str
    num_classes: int
    class_names: tuple[str, ...]
    fingerprints: Mapping[str, str]
    identities: Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    passed_over: Mapping[str, int] = dataclasses.field(default_factory=dict)


def folder(imported_dir: pathlib.Path, name: str) -> pathlib.Path:
    """Where a set of that catalogue name is."""
    return imported_dir / name.replace("/", "_") / VERSION


def find(spec: TaskSpec, dirs: Dirs) -> pathlib.Path | None:
    """The set's folder if it was imported; an import that was broken off does not count."""
    for given in dirs:
        if (folder(given, spec.dataset) / NOTE).is_file():
            # ArrayRecord's library takes no name that is not UTF-8.
            return folder(home.in_utf8(given), spec.dataset)
    return None


def default_dir() -> pathlib.Path:
    """Where imported sets are: CTL_JAX_IMPORTED, else ctl_jax/imported in the user's data folder.

    Not in the cache: what the user has imported may be all there is of a set.
    """
    return home.from_variable("CTL_JAX_IMPORTED") or home.data() / "imported"


def read_note(path: pathlib.Path) -> Note:
    """The note in a set's folder.

    Raises:
      UserError: it is missing or damaged.
    """
    try:
        found = json.loads((path / NOTE).read_text("utf-8"))
        found.setdefault("notes", _UNCHECKED if found["origin"] in ("folder", "zip") else ())
        lists = {key: tuple(found[key]) for key in ("class_names", "notes")}
        note = Note(**{**found, **lists})
        labels = type(note.num_classes) is int and note.num_classes > 0
        texts = all(isinstance(text, str) for text in (*note.class_names, *note.notes))
        counts = all(type(count) is int for count in note.passed_over.values())
        hashes = all(isinstance(found, dict) for found in (note.fingerprints, note.identities))
        hashes = hashes and all(isinstance(text, str) for text in note.identities.values())
        if not (labels and texts and counts and hashes) or note.kind not in FIELDS:
            raise ValueError("values that no import writes")
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise UserError(
            f"{str(path / NOTE)!r} is not the note of an import: {error}; import the set again"
        ) from error
    return note


def open(spec: TaskSpec, path: pathlib.Path) -> DataSet:
    """Reads the description of an imported set; no image.

    Args:
      spec: of the kind that was imported.
      path: from `find`.

    Returns:
      The same examples in the same order as were imported.

    Raises:
      UserError: a file is missing or damaged, or the kind is another one.
    """
    note = read_note(path)
    if note.kind != spec.kind:
        raise UserError(f"{str(path)!r} is {note.kind}; {spec.title} is {spec.kind}")
    builder = prepared.open_builder(path, SPLITS)
    form = "class" if note.kind == "single_label" else "classes"
    labels = Labels(form, (FIELDS[note.kind],), note.num_classes, note.class_names)
    splits: dict[str, Records] = {}
    for split in SPLITS:
        info = builder.info.splits[split]
        files = RecordFiles(
            [str(file) for file in info.filepaths],
            info.shard_lengths,
            builder.info.file_format.value,
        )
        splits[split] = TfdsRecords(
            [Piece(files, 0, len(files))], labels, note.identities.get(split, "")
        )
    return DataSet(
        "imported",
        str(path),
        note.num_classes,
        note.class_names,
        note.kind,
        splits,
        note.notes,
        note.passed_over,
    )


def fits(path: pathlib.Path) -> bool:
    """Whether a path is that of an imported set, or of its version."""
    return (path / NOTE).is_file() or (path / VERSION / NOTE).is_file()


def open_path(path: pathlib.Path, options: Mapping[str, str]) -> DataSet:
    """Opens an imported set that a user names by its folder, with the splits that it has.

    Args:
      path: of what `fits`.
      options: none.

    Raises:
      UserError: as for `open`.
    """
    path = home.in_utf8(path if (path / NOTE).is_file() else path / VERSION)
    name = path.parent.name
    return open(TaskSpec(name, name, name, "imported", "own", read_note(path).kind, None), path)


register(
    Source(
        "imported",
        "where sets were imported to",
        find,
        open,
        order=10,
        default_dirs=lambda: (default_dir(),),
        # The first import makes it.
        needs_dirs=False,
        fits=fits,
        open_path=open_path,
    )
)
