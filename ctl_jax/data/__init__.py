"""Tasks: the Nevis'22 catalogue, where each set's images come from, and how they are split.

    places = data.places(tfds_dirs=["~/tensorflow_datasets"], folder_dirs=["~/images"])
    for spec in data.stream("SHORT"):
        if data.availability(spec, places) is None:
            task = data.load(spec, image_size=64, places=places)

Nothing here needs TensorFlow; TFDS is imported when images are read. `python -m ctl_jax.data`
says what there is, prepares, imports and shows.
"""

from ctl_jax.data.catalogue import STOP_YEAR, VARIANTS, stream
from ctl_jax.data.dataset import DataSet, Example, Places, Records
from ctl_jax.data.loading import (
    availability,
    embedded_data_dir,
    find_set,
    load,
    load_source,
    open_set,
)
from ctl_jax.data.places import places
from ctl_jax.data.task import SPLITS, Split, Task, TaskSpec

__all__ = [
    "SPLITS",
    "STOP_YEAR",
    "VARIANTS",
    "DataSet",
    "Example",
    "Places",
    "Records",
    "Split",
    "Task",
    "TaskSpec",
    "availability",
    "embedded_data_dir",
    "find_set",
    "load",
    "load_source",
    "open_set",
    "places",
    "stream",
]
