"""Synthetic tasks as TFDS data sets, made on first use.

Imported only when images are wanted: TFDS takes half a second to import.
"""

import contextlib
import fcntl
import io
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow_datasets as tfds
from PIL import Image

from ctl_jax.data import synthetic
from ctl_jax.data.task import SPLITS
from ctl_jax.errors import UserError


class CtlJax(tfds.core.GeneratorBasedBuilder):
    """One builder; each synthetic task is a configuration of it."""

    name = synthetic.BUILDER
    VERSION = tfds.core.Version(synthetic.VERSION)
    BUILDER_CONFIGS = [  # noqa: RUF012 (TFDS wants a list)
        tfds.core.BuilderConfig(name=name, description=task.title)
        for name, task in {**synthetic.TASKS, **synthetic.SOURCES}.items()
    ]

    def _task(self) -> synthetic.SyntheticTask:
        return {**synthetic.TASKS, **synthetic.SOURCES}[self.builder_config.name]

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(32, 32, 3), encoding_format="png"),
                "label": tfds.features.ClassLabel(names=list(self._task().classes)),
            }
        )
        return tfds.core.DatasetInfo(
            builder=self,
            description="Made by ctl_jax.",
            features=features,
            # The order is the generator's: no sort by hash, and easy to check.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Any]]:
        made = synthetic.examples(self._task())
        # TFDS writes the splits one after the other, in this order: one pass serves them all.
        sizes = zip(SPLITS, self._task().sizes, strict=True)
        return {split: self._generate_examples(made, size) for split, size in sizes}

    def _generate_examples(self, made: Iterator[Any], size: int) -> Iterator[Any]:
        for key in range(size):
            image, label = next(made)
            file = io.BytesIO()
            Image.fromarray(image).save(file, "PNG", compress_level=0)
            file.seek(0)
            yield key, {"image": file, "label": label}


def prepare(
    task: synthetic.SyntheticTask,
    data_dir: pathlib.Path,
    on_prepare: Callable[[str], None] | None = None,
) -> pathlib.Path:
    """Makes a task's data set unless it is there.

    Several processes may call this at once: one prepares, the others wait for it. What an
    interrupted process leaves behind is removed by the next one.

    Args:
      task: which one.
      data_dir: TFDS data folder to keep it in.
      on_prepare: called with the task's name before work that takes seconds.

    Returns:
      The folder that `tfds.builder_from_directory` reads.

    Raises:
      UserError: `data_dir` cannot be written to.
    """
    final = synthetic.folder(task, data_dir)
    if final.is_dir():
        return final
    with _lock(data_dir / f".{CtlJax.name}-{task.name}.lock"):
        if final.is_dir():
            return final
        if on_prepare is not None:
            on_prepare(task.name)
        workshop = data_dir / f".{CtlJax.name}-{task.name}.tmp"
        shutil.rmtree(workshop, ignore_errors=True)
        _build(task, workshop)
        final.parent.mkdir(parents=True, exist_ok=True)
        os.replace(workshop / final.relative_to(data_dir), final)
        shutil.rmtree(workshop)
    return final


def _build(task: synthetic.SyntheticTask, data_dir: pathlib.Path) -> None:
    builder = CtlJax(config=task.name, data_dir=data_dir, file_format="array_record")
    tfds.disable_progress_bar()
    # TFDS announces a download, in bold, though there is none.
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare()


@contextlib.contextmanager
def _lock(path: pathlib.Path) -> Iterator[None]:
    """Holds a file lock, which the system lets go when the process ends, however it ends."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "w")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise UserError(
            f"folder for synthetic data {str(path.parent)!r} is not writable ({error.strerror}); "
            "expected one that is, set by CTL_JAX_DATA"
        ) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
