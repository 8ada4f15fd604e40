"""Where data sets are looked for, unless it is said otherwise."""

import os
import pathlib
from collections.abc import Sequence

from ctl_jax import home
from ctl_jax.data.dataset import Places


def places(
    tfds_dirs: Sequence[str | os.PathLike[str]] = (),
    nevis_dirs: Sequence[str | os.PathLike[str]] = (),
    folder_dirs: Sequence[str | os.PathLike[str]] = (),
    imported_dir: str | os.PathLike[str] | None = None,
) -> Places:
    """The places that a user names, and those that go without saying.

    Args:
      tfds_dirs: TFDS data folders.
      nevis_dirs: what dm_nevis has written; the variable NEVIS_DATA_DIR names one more.
      folder_dirs: hold image folders and zip archives.
      imported_dir: None for `default_imported_dir()`.

    Returns:
      The places, "~" expanded.
    """
    if from_environment := home.from_variable("NEVIS_DATA_DIR"):
        nevis_dirs = [*nevis_dirs, from_environment]
    if imported_dir is None:
        imported_dir = default_imported_dir()
    return Places(
        tuple(map(_of_records, tfds_dirs)),
        tuple(map(_expanded, nevis_dirs)),
        tuple(map(_expanded, folder_dirs)),
        _of_records(imported_dir),
    )


def default_imported_dir() -> pathlib.Path:
    """Where imported sets lie: CTL_JAX_IMPORTED, else ctl_jax/imported in the user's data folder.

    Not in the cache: what the user has imported may be all there is of a set.
    """
    return home.from_variable("CTL_JAX_IMPORTED") or home.data() / "imported"


def default_tfds_dir() -> pathlib.Path:
    """Where TFDS itself prepares: TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    chosen = home.from_variable("TFDS_DATA_DIR")
    return chosen or home.readable() / "tensorflow_datasets"


def _expanded(path: str | os.PathLike[str]) -> pathlib.Path:
    return pathlib.Path(home.expand(path))


def _of_records(path: str | os.PathLike[str]) -> pathlib.Path:
    """A folder with ArrayRecord files, whose library takes no name that is not UTF-8."""
    folder = _expanded(path)
    return home.in_utf8(folder) if folder.is_dir() else folder
