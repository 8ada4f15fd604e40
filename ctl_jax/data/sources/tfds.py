"""Official data sets that TFDS has prepared on disk, read without TensorFlow."""

import pathlib
from collections.abc import Sequence
from typing import Any

from ctl_jax import home
from ctl_jax.data import prepare, splits
from ctl_jax.data.dataset import DataSet
from ctl_jax.data.formats import tfds_sets
from ctl_jax.data.formats.tfds_sets import latest
from ctl_jax.data.source import Dirs, Instruction, Source, own_folder, register
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
    names = splits.sources(spec.dataset) if spec.source == "tfds" else {}
    best: tuple[int, pathlib.Path | None] = (0, None)
    for given in _in_utf8(dirs) if names else ():
        folder = data_dir(given)
        versions = list(filter(None, (latest(folder, name) for name in names)))
        if len(versions) > best[0]:
            best = len(versions), folder / spec.dataset if len(names) > 1 else versions[0]
            if given.absolute() in tfds_sets.versions(versions[0].absolute().parent).values():
                best = len(versions), given
    return best[1]


def data_dir(given: pathlib.Path) -> pathlib.Path:
    """The TFDS folder that a folder is or lies in, where it is that of an official set."""
    own = given.absolute()
    parts = own.parts[:-1] if tfds_sets.is_version(own.name) else own.parts
    names = [name for dataset in splits.datasets() for name in splits.sources(dataset)]
    for name in names:
        whole = pathlib.PurePath(name, tfds_sets.DEFAULT_CONFIG.get(name, "")).parts
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
    wanted = splits.sources(spec.dataset)
    if not wanted:
        raise UserError(f"data set {spec.dataset!r} is not an official TFDS set of Nevis'22")
    builders: dict[str, Any] = {}
    for name, needed in wanted.items():
        folder: pathlib.Path | None = path
        if len(wanted) > 1:
            folder = latest(path, name.removeprefix(f"{spec.dataset}/"))
        if folder is None:
            raise UserError(f"TFDS data set {name!r} is not in {str(path.parent)!r}")
        builders[name] = tfds_sets.open_builder(folder, needed)
    sizes = {
        name: {split: info.num_examples for split, info in builder.info.splits.items()}
        for name, builder in builders.items()
    }
    parts = splits.parts(spec.dataset, sizes)
    return tfds_sets.assemble("tfds", spec.dataset, path, builders, parts)


def instruction(spec: TaskSpec, dirs: Dirs) -> Instruction | None:
    """The command that prepares a set, and what has to be downloaded by hand before it."""
    if spec.source != "tfds":
        return None
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
    )
)
