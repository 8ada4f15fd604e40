"""Embedded tasks, once prepared, as data sets."""

import pathlib

from ctl_jax.data.dataset import DataSet
from ctl_jax.data.embedded import EmbeddedTask
from ctl_jax.data.sources import tfds
from ctl_jax.data.splits import Part
from ctl_jax.data.task import SPLITS


def open(task: EmbeddedTask, path: pathlib.Path) -> DataSet:
    """Reads the description of an embedded task; no image.

    Args:
      task: which one.
      path: from `embedded.builder.prepare`.

    Raises:
      UserError: the folder is not a prepared set, or lacks something.
    """
    builder = tfds.open_builder(path, SPLITS)
    parts = {
        name: (Part(task.name, name, 0, builder.info.splits[name].num_examples),) for name in SPLITS
    }
    return tfds.assemble("embedded", task.name, path, {task.name: builder}, parts)
