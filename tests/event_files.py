"""TensorBoard's files as its protos, read by the reader of TFRecord files, which checks sums."""

import pathlib
from typing import Any

from tensorboardX.proto import event_pb2

from ctl_jax.data import _tfrecord


def read(path: pathlib.Path) -> list[Any]:
    """The events of a file; the first one has the file's version."""
    places = _tfrecord.index(path)
    return [
        event_pb2.Event.FromString(record)
        for record in _tfrecord.read_at(places, range(len(places)))
    ]
