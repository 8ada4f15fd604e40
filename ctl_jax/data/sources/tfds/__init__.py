"""Data sets that TFDS has prepared on disk, official and any others, read without TensorFlow."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ctl_jax import home
from ctl_jax.data import prepare, splits
from ctl_jax.data.dataset import DataSet
from ctl_jax.data.formats import listing
from ctl_jax.data.source import Dirs, Instruction, Source, own_folder, register
from ctl_jax.data.sources.tfds import own_sets, prepared
from ctl_jax.data.sources.tfds.prepared import latest
from ctl_jax.data.task import TaskSpec
from ctl_jax.errors import UserError


def find(spec: TaskSpec, dirs: Dirs) -> pathlib.Path | None:
    """The folder of a data set's highest version, in the first TFDS folder that has it.

    Reads names of folders only. Where a data set's own folder is given, or that of a version, it is
    taken for itself.

    Returns:
      The folder of a version; for domainnet, which is made of six configurations, the one that
      they are in.
    """
    if spec.source != "tfds":
        return None
    names = splits.sources(spec.dataset)
    if not names:
        return _of_any_name(spec.dataset, dirs)
    best: tuple[int, pathlib.Path | None] = (0, None)
    for given in _in_utf8(dirs):
        folder = data_dir(given)
        versions = list(filter(None, (latest(folder, name) for name in names)))
        if len(versions) > best[0]:
            best = len(versions), folder / spec.dataset if len(names) > 1 else versions[0]
            if given.absolute() in prepared.versions(versions[0].absolute().parent).values():
                best = len(versions), given
    return best[1]


def _of_any_name(dataset: str, dirs: Dirs) -> pathlib.Path | None:
    """The folder of a set that the catalogue does not know, also in TFDS's own folder."""
    for given in (*_in_utf8(dirs), default_dir()):
        if (given / dataset).is_dir() and fits(given / dataset):
            return _version(given / dataset)
    return None


def fits(path: pathlib.Path) -> bool:
    """Whether a folder is that of a set, of a version of one, or holds sets."""
    return path.is_dir() and bool(_is_prepared(path) or prepared.versions(path) or _inner(path))


def open_path(path: pathlib.Path, options: Mapping[str, str]) -> DataSet:
    """Opens any prepared set; the splits of an official one are those of the catalogue.

    Of others all records are read once, for their labels.

    Args:
      path: of what `fits`; several versions have the highest one meant.
      options: none.

    Raises:
      UserError: it is damaged, or its features have no image and label.
    """
    path = _version(home.in_utf8(path))
    builder = prepared.open_builder(path, ())
    name = str(builder.info.full_name).rpartition("/")[0]
    for dataset, config in prepared.DEFAULT_CONFIG.items():
        name = dataset if name == f"{dataset}/{config}" else name
    if len(splits.sources(name)) == 1:
        return _open(name, path)
    builder = prepared.open_builder(path, list(builder.info.splits))
    files = {split: prepared.files_of(builder, split) for split in builder.info.splits}
    return listing.data_set(own_sets.listing(path, builder, files))


def _version(path: pathlib.Path) -> pathlib.Path:
    """The folder of a version, of a set's folder or one that holds a single configuration."""
    while not _is_prepared(path):
        if found := prepared.versions(path):
            return found[max(found)]
        inner = _inner(path)
        if len(inner) != 1:
            names = ", ".join(folder.name for folder in inner)
            raise UserError(
                f"{str(path)!r} holds {names or 'no TFDS set'}; expected the path of one TFDS set"
            )
        path = inner[0]
    return path


def _is_prepared(path: pathlib.Path) -> bool:
    return all((path / name).is_file() for name in ("dataset_info.json", "features.json"))


def _inner(path: pathlib.Path) -> list[pathlib.Path]:
    """Folders in a folder that have versions of sets in them."""
    return sorted(
        inner
        for inner in path.iterdir()
        if inner.is_dir() and any(map(_is_prepared, prepared.versions(inner).values()))
    )


def data_dir(given: pathlib.Path) -> pathlib.Path:
    """The TFDS folder that a folder is or lies in, where it is that of an official set."""
    own = given.absolute()
    parts = own.parts[:-1] if prepared.is_version(own.name) else own.parts
    names = [name for dataset in splits.datasets() for name in splits.sources(dataset)]
    for name in names:
        whole = pathlib.PurePath(name, prepared.DEFAULT_CONFIG.get(name, "")).parts
        for length in range(1, len(whole) + 1):
            root = pathlib.Path(*parts[: len(parts) - length])
            if parts[-length:] == whole[:length] and latest(root, name) is not None:
                return root
    return given


def default_dir() -> pathlib.Path:
    """Where TFDS itself prepares: TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    chosen = home.from_variable("TFDS_DATA_DIR")
    return chosen or home.readable() / "tensorflow_datasets"


def target(dirs: Dirs) -> pathlib.Path:
    """The folder that sets are prepared in: the first one, or TFDS's own."""
    return data_dir(next(iter(_in_utf8(dirs)))) if dirs else default_dir()


def open(spec: TaskSpec, path: pathlib.Path) -> DataSet:
    """Reads the description of a data set; no image.

    Args:
      spec: of an official TFDS set.
      path: from `find`.

    Raises:
      UserError: the folder is not a prepared set, lacks a file or a split, or has other features
        than the official set.
    """
    if splits.sources(spec.dataset):
        return _open(spec.dataset, path)
    if spec.kind:  # Of the catalogue, from elsewhere.
        raise UserError(f"data set {spec.dataset!r} is not an official TFDS set of Nevis'22")
    return open_path(path, {})


def _open(dataset: str, path: pathlib.Path) -> DataSet:
    """An official set with the splits of the catalogue."""
    wanted = splits.sources(dataset)
    builders: dict[str, Any] = {}
    for name, needed in wanted.items():
        folder: pathlib.Path | None = path
        if len(wanted) > 1:
            folder = latest(path, name.removeprefix(f"{dataset}/"))
        if folder is None:
            raise UserError(f"TFDS data set {name!r} is not in {str(path.parent)!r}")
        builders[name] = prepared.open_builder(folder, needed)
    sizes = {
        name: {split: info.num_examples for split, info in builder.info.splits.items()}
        for name, builder in builders.items()
    }
    parts = splits.parts(dataset, sizes)
    return prepared.assemble("tfds", dataset, path, builders, parts)


def instruction(spec: TaskSpec, dirs: Dirs) -> Instruction | None:
    """The command that prepares a set, and what has to be downloaded by hand before it."""
    if spec.source != "tfds":
        return None
    if not splits.sources(spec.dataset):
        return Instruction("by_hand", f"prepare {spec.dataset} by tfds, and give its folder's path")
    folder = target(dirs)
    command = f"python -m ctl_jax.data prepare {spec.dataset} --dir=tfds:{folder}"
    if (manual := prepare.by_hand(spec.dataset, folder)) is not None:
        return Instruction("by_hand", f"{manual}; then {command}")
    return Instruction("can_be_prepared", command)


def remarks(spec: TaskSpec, path: pathlib.Path, dirs: Dirs) -> Sequence[str]:
    """Where one set's folder was given: that it was taken for itself, or for the one above."""
    known = {spec.file_name, spec.dataset.partition("/")[0]}
    given_dirs = _in_utf8(dirs)
    for given in given_dirs:
        if path.is_relative_to(given) and not known & set(path.relative_to(given).parts):
            return [own_folder(spec, given)]
    for given in given_dirs:
        folder = data_dir(given)
        if folder != given and path.is_relative_to(folder) and not path.is_relative_to(given):
            return [f"{str(given)!r} is one set's folder; {str(folder)!r} is taken instead"]
    return []


def _in_utf8(dirs: Dirs) -> list[pathlib.Path]:
    """ArrayRecord's library takes no name that is not UTF-8."""
    return [home.in_utf8(folder) if folder.is_dir() else folder for folder in dirs]


register(
    Source(
        "tfds",
        "a TFDS data_dir",
        find,
        open,
        order=20,
        instruction=instruction,
        remarks=remarks,
        fits=fits,
        open_path=open_path,
    )
)
