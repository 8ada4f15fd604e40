"""Tasks: the Nevis'22 catalogue, where each set's images come from, and how they are split.

    for spec in data.stream("SHORT"):
        if data.availability(spec, data_dirs) is None:
            task = data.load(spec, image_size=64, data_dirs=data_dirs)

Nothing here needs TensorFlow; TFDS is imported when images are read.
"""

from ctl_jax.data.catalogue import STOP_YEAR, VARIANTS, stream
from ctl_jax.data.loading import availability, embedded_data_dir, load, load_source
from ctl_jax.data.task import SPLITS, Split, Task, TaskSpec

__all__ = [
    "SPLITS",
    "STOP_YEAR",
    "VARIANTS",
    "Split",
    "Task",
    "TaskSpec",
    "availability",
    "embedded_data_dir",
    "load",
    "load_source",
    "stream",
]
