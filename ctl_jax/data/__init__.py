"""Tasks: the Nevis'22 catalogue, where each set's images come from, and how they are split.

    (spec,) = data.stream("~/flowers")  # a folder, an archive, a table, ... (see `paths`)
    task = data.load(spec, image_size=64)

    dirs = ["tfds:~/tensorflow_datasets", "folder:~/images"]
    for spec in data.stream("SHORT"):
        if data.availability(spec, dirs) is None:
            task = data.load(spec, image_size=64, dirs=dirs)

Nothing here needs TensorFlow; TFDS is imported when images are read. `python -m ctl_jax.data`
says what there is, prepares, imports and shows.
"""

from ctl_jax.data._loading import availability, check_dirs, find_set, load, open_set
from ctl_jax.data.catalogue import STOP_YEAR, VARIANTS, source_spec, stream
from ctl_jax.data.dataset import DataSet, Example, Records
from ctl_jax.data.task import SPLITS, Split, Task, TaskSpec

__all__ = [
    "SPLITS",
    "STOP_YEAR",
    "VARIANTS",
    "DataSet",
    "Example",
    "Records",
    "Split",
    "Task",
    "TaskSpec",
    "availability",
    "check_dirs",
    "find_set",
    "load",
    "open_set",
    "source_spec",
    "stream",
]
