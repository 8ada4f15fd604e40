"""Image and label in a record of an official TFDS set, and what the labels mean."""

import dataclasses
from typing import Any

import numpy as np

from ctl_jax.data import _tfrecord

# The feature that holds the label, where it is not "label".
_FIELDS = {
    "coil100": "object_id",
    "smallnorb": "label_category",
    "voc/2007": "labels",
    "voc/2012": "labels",
    "celeb_a": "attributes",
}


@dataclasses.dataclass(frozen=True)
class Labels:
    """How the label of an example is read.

    Attributes:
      form: "class" (one class), "classes" (a list of them) or "flags" (a yes or no for each).
      fields: the fields of the record that hold it: one, or one for each flag.
      num_classes: number of classes or flags.
      class_names: their names; empty where TFDS has none.
    """

    form: str
    fields: tuple[str, ...]
    num_classes: int
    class_names: tuple[str, ...]

    @property
    def kind(self) -> str:
        """ "single_label" or "multi_label", as in the catalogue."""
        return "single_label" if self.form == "class" else "multi_label"


def of_features(dataset: str, features: Any) -> Labels:
    """Where the labels of a data set are.

    Args:
      dataset: TFDS name; a configuration of domainnet is like the others.
      features: `builder.info.features`.

    Raises:
      ValueError: the features are not those of an image with such labels.
    """
    import tensorflow_datasets as tfds

    known = dict(features.items())
    if "image" not in known or not isinstance(known["image"], tfds.features.Image):
        raise ValueError("no feature 'image' that is an image")
    name = _FIELDS.get(dataset, "label")
    feature = known.get(name)
    if name == "attributes":
        if not isinstance(feature, tfds.features.FeaturesDict) or not feature.keys():
            raise ValueError(f"no feature {name!r} that has several yes or no")
        flags = tuple(sorted(feature.keys()))
        return Labels("flags", tuple(f"{name}/{flag}" for flag in flags), len(flags), flags)
    form = "class"
    if name == "labels":
        form = "classes"
        if not isinstance(feature, tfds.features.Sequence):
            raise ValueError(f"no feature {name!r} that is a list of classes")
        feature = feature.feature
    if not isinstance(feature, tfds.features.ClassLabel) or not feature.num_classes:
        what = "a class" if form == "class" else "a list of classes"
        raise ValueError(f"no feature {name!r} that is {what}")
    count = int(feature.num_classes)
    # Without names, TFDS gives numbers.
    names = tuple(feature.names)
    if names == tuple(map(str, range(count))):
        names = ()
    return Labels(form, (name,), count, names)


def parse(record: bytes, labels: Labels) -> tuple[bytes, int | np.ndarray]:
    """The encoded image of an example, which is not decoded, and its label.

    Args:
      record: a serialised tf.train.Example.
      labels: from `of_features`.

    Returns:
      The image and a class, or uint8 [num_classes] of 0 and 1.

    Raises:
      ValueError: the record is something else.
    """
    fields = _tfrecord.parse(record)
    images = _tfrecord.values(fields, "image", "bytes_list")
    if len(images) != 1:
        raise ValueError(f"has {len(images)} images; expected 1")
    return images[0], _label(fields, labels)


def integer(record: bytes, field: str) -> int:
    """One number of an example; its image is not looked at.

    Raises:
      ValueError: the record is no example, or has not one such number.
    """
    return _one(_tfrecord.parse(record), field)


def _label(fields: Any, labels: Labels) -> int | np.ndarray:
    if labels.form == "class":
        return _class(_one(fields, labels.fields[0]), labels)
    if labels.form == "flags":
        flags = [_one(fields, field) for field in labels.fields]
        for field, flag in zip(labels.fields, flags, strict=True):
            if flag not in (0, 1):
                raise ValueError(f"has {field} {flag}; expected 0 or 1")
        return np.asarray(flags, np.uint8)
    result = np.zeros(labels.num_classes, np.uint8)
    for label in _tfrecord.values(fields, labels.fields[0], "int64_list"):
        result[_class(label, labels)] = 1
    return result


def _class(label: int, labels: Labels) -> int:
    if not 0 <= label < labels.num_classes:
        raise ValueError(f"has label {label}; expected 0 to {labels.num_classes - 1}")
    return label


def _one(fields: Any, name: str) -> int:
    values = _tfrecord.values(fields, name, "int64_list")
    if len(values) != 1:
        raise ValueError(f"has {len(values)} values of {name}; expected 1")
    return int(values[0])
