"""A trained model as a folder: its variables, and all that it takes to use them."""

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

from flax import linen as nn

from ctl_jax.errors import UserError, naming
from ctl_jax.models import checkpoint
from ctl_jax.models.network import DTYPES
from ctl_jax.models.preprocess import Preprocess
from ctl_jax.models.registry import create

_FILE = "model.json"
# Raised when the file's form changes; others are not read.
_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Model:
    """A network with its weights, and what images it expects.

    Attributes:
      architecture: its name, one of `NAMES`.
      options: those that it was created with, as for `create`; plain values.
      variables: {"params": ..., "batch_stats": ...}, of any widths. The head's outputs are the
        classes: padding is to be cut before.
      preprocess: what it expects of an image; a text is parsed, see `Preprocess.parse`.
      image_size: side of the images that it was trained on, in pixels.
      classes: names of the classes, in the order of the outputs; empty where they are not known.
      compute_dtype: what it was trained in and is to be applied in, "float32" or "bfloat16".
      notes: plain values that JSON holds, the owner's own: where it comes from, how good it is.

    Raises:
      UserError: an architecture, option, preprocessing or type that there is not, or not as many
        names as classes.
    """

    architecture: str
    options: Mapping[str, Any]
    variables: Mapping[str, Any]
    preprocess: Preprocess
    image_size: int
    classes: tuple[str, ...] = ()
    compute_dtype: str = "float32"
    notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "preprocess", Preprocess.parse(self.preprocess))
        if self.compute_dtype not in DTYPES:
            raise UserError(
                f"compute_dtype is {self.compute_dtype!r}; expected one of {', '.join(DTYPES)}"
            )
        if self.classes and len(self.classes) != self.num_classes:
            raise UserError(
                f"{len(self.classes)} names of classes; expected {self.num_classes}, as many as "
                "the head has outputs, or none"
            )
        _ = self.module

    @property
    def num_classes(self) -> int:
        """Outputs of the head."""
        return int(self.variables["params"]["head"]["kernel"].shape[-1])

    @property
    def module(self) -> nn.Module:
        """The Linen module, for `apply`."""
        return create(self.architecture, self.num_classes, **self.options)


def save(folder: str | os.PathLike[str], model: Model) -> None:
    """Writes a model into a new folder; one that is there already is replaced.

    The folder is a checkpoint as `save_checkpoint` writes it, for `load_checkpoint` and
    `load_weights` too, with a file model.json beside the arrays. It appears complete or not at all.

    Args:
      folder: local or `gs://bucket/path`; its parent is made.
      model: in a group of processes each has all of it, and one calls this.

    Example:
      >>> save("flowers", Model("resnet18", {}, variables, PREPROCESS["nevis"], image_size=64))
      >>> model = load("flowers")
      >>> logits = apply(model.module, model.variables, model.preprocess(images))
    """
    content = {
        "format": _FORMAT,
        "architecture": model.architecture,
        "options": dict(model.options),
        "preprocess": str(model.preprocess),
        "image_size": model.image_size,
        "num_classes": model.num_classes,
        "classes": model.classes,
        "compute_dtype": model.compute_dtype,
        "notes": dict(model.notes),
    }
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    checkpoint.save_checkpoint(folder, model.variables, beside={_FILE: text.encode()})


def load(folder: str | os.PathLike[str]) -> Model:
    """The model that `save` wrote.

    Args:
      folder: local or `gs://bucket/path`.

    Raises:
      UserError: no such folder, no model in it, a damaged one, or one of another version.
    """
    with checkpoint.verified(folder) as local:
        if not (local / _FILE).is_file():
            raise UserError(f"model {folder}: no {_FILE}; expected what models.save wrote")
        content = json.loads((local / _FILE).read_bytes())
        if content.pop("format", None) != _FORMAT:
            raise UserError(f"model {folder}: its {_FILE} is not of format {_FORMAT}")
        variables = checkpoint.read(folder, local)
    num_classes = content.pop("num_classes")
    with naming(f"model {folder}"):
        model = Model(**content | {"variables": variables, "classes": tuple(content["classes"])})
        if model.num_classes != num_classes:
            raise UserError(f"its head has {model.num_classes} outputs; expected {num_classes}")
    return model
