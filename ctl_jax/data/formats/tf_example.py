"""`tf.train.Example` messages without TensorFlow, through the protocol buffers that TFDS brings.

Their parser is safe with hostile bytes, and ten times as fast as one written in Python.
"""

from collections.abc import Sequence
from typing import Any

from ctl_jax.data.formats.record_files import first_line


def parse(record: bytes) -> Any:
    """The features of an example by name, for `values`.

    Raises:
      ValueError: the record is something else.
    """
    from tensorflow_datasets.proto import tf_example_pb2  # Takes half a second, once.

    try:
        return tf_example_pb2.Example.FromString(record).features.feature
    except Exception as error:  # Protocol buffers have exceptions of their own.
        raise ValueError(f"is not an example: {first_line(error)}") from error


def values(features: Any, name: str, kind: str) -> Sequence[Any]:
    """A feature's values; none where it is missing or empty.

    Args:
      features: from `parse`.
      name: of the feature.
      kind: "bytes_list", "int64_list" or "float_list".

    Raises:
      ValueError: its values are of another kind.
    """
    if name not in features:
        return ()
    found = features[name].WhichOneof("kind")
    if found not in (kind, None):
        raise ValueError(f"has {name} as a {found}; expected a {kind}")
    result: Sequence[Any] = getattr(features[name], kind).value
    return result
