"""Preparing official data sets: TFDS downloads them and writes ArrayRecord files."""

import contextlib
import logging
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator
from typing import Any

from ctl_jax.data import _without_tensorflow, splits
from ctl_jax.data.sources.tfds import prepared
from ctl_jax.data.sources.tfds.record_files import first_line
from ctl_jax.errors import UserError

# TFDS tries ten times, for minutes, where there is no network at all.
_RETRIES = 4


def prepare(dataset: str, data_dir: pathlib.Path) -> pathlib.Path:
    """Prepares an official data set unless it is there, in whatever version and file format.

    Files that TFDS would download are taken from DATA_DIR/downloads/manual if they are there. What
    an interrupted preparation leaves behind does not count as prepared.

    Args:
      dataset: TFDS name as in the catalogue; "domainnet" is all its six configurations.
      data_dir: the TFDS data folder; made if there is none.

    Returns:
      The folder of the data set, as `sources.tfds.find` gives it.

    Raises:
      UserError: an unknown set; or TFDS cannot prepare it, with what to do by hand.
    """
    names = splits.sources(dataset)
    if not names:
        raise UserError(f"data set {dataset!r} is not an official TFDS set of Nevis'22")
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"data_dir {str(data_dir)!r} cannot be made: {error.strerror}") from error
    for name in names:
        if prepared.latest(data_dir, name) is None:
            _prepare(name, data_dir)
    folder = data_dir / dataset if len(names) > 1 else prepared.latest(data_dir, dataset)
    assert folder is not None, "it has been prepared"
    return folder


def by_hand(dataset: str, data_dir: pathlib.Path) -> str | None:
    """What must be downloaded by hand before `prepare` can do the rest, in one line.

    Returns:
      TFDS's instructions, or None where it downloads everything itself.

    Raises:
      UserError: an unknown set.
    """
    names = splits.sources(dataset)
    if not names:
        raise UserError(f"data set {dataset!r} is not an official TFDS set of Nevis'22")
    text = _builder_class(next(iter(names))).MANUAL_DOWNLOAD_INSTRUCTIONS
    if text is None:
        return None
    return f"{' '.join(text.split())} (manual_dir is {str(_manual(data_dir))!r})"


def _builder_class(name: str) -> Any:
    import tensorflow_datasets

    return tensorflow_datasets.builder_cls(name.partition("/")[0])


def _manual(data_dir: pathlib.Path) -> pathlib.Path:
    return data_dir / "downloads" / "manual"


def _prepare(name: str, data_dir: pathlib.Path) -> None:
    import tensorflow_datasets

    config = tensorflow_datasets.download.DownloadConfig(
        manual_dir=_manual(data_dir), try_download_gcs=False
    )
    try:
        with _quick_and_quiet(), _without_tensorflow.stand_in(), _tidy(name, data_dir):
            builder = tensorflow_datasets.builder(
                name, data_dir=data_dir, file_format="array_record"
            )
            builder.download_and_prepare(download_config=config)
    except Exception as error:  # Whatever downloads, archives and two dozen builders raise.
        raise UserError(
            f"TFDS data set {name!r} cannot be prepared in {str(data_dir)!r}: "
            f"{_cause(error)}; {_advice(name, data_dir)}"
        ) from error


@contextlib.contextmanager
def _quick_and_quiet() -> Iterator[None]:
    """Without a network, an error in seconds; and standard output is left to the program."""
    from tensorflow_datasets.core.download import downloader

    logger = logging.getLogger("urllib3.connectionpool")
    level, retries = logger.level, downloader.MAX_RETRIES
    logger.setLevel(logging.ERROR)
    downloader.MAX_RETRIES = _RETRIES
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        logger.setLevel(level)
        downloader.MAX_RETRIES = retries


@contextlib.contextmanager
def _tidy(name: str, data_dir: pathlib.Path) -> Iterator[None]:
    """Removes what TFDS leaves of a set that it could not prepare; whole downloads are kept."""
    dataset = name.partition("/")[0]
    own, downloads = data_dir / dataset, data_dir / "downloads"
    # Those that are there may be another process's.
    before = set(downloads.glob(f"{dataset}/*.tmp.*"))
    try:
        yield
    except BaseException:
        for partial in set(downloads.glob(f"{dataset}/*.tmp.*")) - before:
            shutil.rmtree(partial, ignore_errors=True)
        with contextlib.suppress(OSError):
            (data_dir / name).rmdir()
        # Of sets that have configurations it holds the descriptions of those that were opened.
        if own.is_dir() and os.listdir(own) == [".config"]:
            shutil.rmtree(own / ".config", ignore_errors=True)
        for folder in (own, downloads / dataset, downloads / "extracted", downloads):
            with contextlib.suppress(OSError):  # It holds something, or is not there.
                folder.rmdir()
        raise


def _cause(error: Exception) -> str:
    """What TFDS says, and what has caused it where that is not said."""
    root: BaseException = error
    while (deeper := root.__cause__ or root.__context__) is not None:
        root = deeper
    said = first_line(error).rstrip(":")
    cause = first_line(root)
    return said if cause.rstrip(":") in said else f"{said} ({cause})"


def _advice(name: str, data_dir: pathlib.Path) -> str:
    """What to do by hand about a set that cannot be prepared."""
    builder, _, config = name.partition("/")
    manual = by_hand(name if name in splits.sources(name) else builder, data_dir)
    if manual is not None:
        return f"by hand: {manual}"
    urls = {url: info.filename for url, info in (_builder_class(name).url_infos or {}).items()}
    # One list serves all configurations.
    own = {url: file for url, file in urls.items() if config and config in url} or urls
    files = ", ".join(f"{file} ({url})" for url, file in own.items() if file)
    offline = f"put {files} into {str(_manual(data_dir))!r} and try again, or " if files else ""
    return (
        f"by hand: {offline}prepare it on another machine and copy {name!r} of its data_dir to this"
    )
