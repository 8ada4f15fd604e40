"""A trained model as a folder: its variables, and all that it takes to use them."""

import dataclasses
import functools
import importlib.metadata
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from ctl_jax import files
from ctl_jax.data import images as pictures
from ctl_jax.errors import UserError, naming
from ctl_jax.models import _checkpoint
from ctl_jax.models.cpu import compiler_options, tuned
from ctl_jax.models.functional import DTYPES, apply
from ctl_jax.models.preprocess import Preprocess
from ctl_jax.models.registry import create

_FILE, _KEEP_FILE = "model.json", "keep.json"
# Raised when the file's form changes; others are not read.
_FORMAT = 1
_PACKAGES = ("ctl-jax", "jax", "flax")
# Images that go through the network at a time, where more are given.
_BATCH = 64


@dataclasses.dataclass(frozen=True)
class Model:
    """A network with its weights, and what images it expects.

    Attributes:
      architecture: its name, one of `NAMES`.
      options: those that it was created with, as for `create`; plain values.
      variables: {"params": ..., "batch_stats": ...}, of any widths and with a head of any form, and
        perhaps a second network, see `apply`. The head's outputs are the classes: padding is to be
        cut before.
      preprocess: what it expects of an image; a text is parsed, see `Preprocess.parse`.
      image_size: side of the images that it was trained on, in pixels.
      classes: names of the classes, in the order of the outputs; empty where they are not known.
      compute_dtype: what it was trained in and is to be applied in, "float32" or "bfloat16".
      notes: plain values that JSON holds, the owner's own: where it comes from, how good it is.
      keep: which channels of the whole network it has, as `pruning.Keep.to_json`; "" is all.
      multi_label: whether an image may be of several classes: then the sigmoid of each output is a
        probability, else their softmax.

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
    keep: str = ""
    multi_label: bool = False

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

    def __call__(self, images: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """Logits of images of any size.

        Each is resized to `image_size` by its short side and cropped to its middle, as the images
        that it was trained on. It is compiled once for each number of images up to 64; of more,
        64 are computed at a time.

        Args:
          images: uint8 RGB, [B, H, W, 3], or a list of arrays [H, W, 3] of any sizes.

        Returns:
          float32 [B, classes] (of a U-Net: [B, S, S, classes]).

        Raises:
          UserError: images of another type or shape.

        Example:
          >>> logits = model([np.asarray(PIL.Image.open("photo.jpg"))])
          >>> model.classes[logits[0].argmax()]
          'daisy'
        """
        size, how = self.image_size, self.preprocess.interpolation
        batch = np.empty((len(images), size, size, 3), np.uint8)
        for index, image in enumerate(images):
            _check_image(image)
            batch[index] = pictures.resize(image, size, how)
        return self.logits(batch)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Logits of images that are `image_size` pixels high and wide; see `__call__`.

        Args:
          images: uint8 [B, S, S, 3].
        """
        call = _compiled(self.module, self.preprocess, self.compute_dtype)
        if len(images) <= _BATCH:
            return np.asarray(call(self.variables, images))
        parts = [images[start : start + _BATCH] for start in range(0, len(images), _BATCH)]
        lacking = _BATCH - len(parts[-1])
        parts[-1] = np.pad(parts[-1], ((0, lacking), (0, 0), (0, 0), (0, 0)))
        results = [np.asarray(call(self.variables, part)) for part in parts]
        return np.concatenate(results)[: len(images)]


@functools.lru_cache(maxsize=8)
def _compiled(
    module: nn.Module, preprocess: Preprocess, dtype: str
) -> Callable[[Mapping[str, Any], np.ndarray], jax.Array]:
    """Logits of variables and uint8 images, one program a batch size."""
    backend = jax.default_backend()

    def logits(variables: Mapping[str, Any], images: jax.Array) -> jax.Array:
        return apply(module, variables, preprocess(images), dtype=dtype)

    return jax.jit(tuned(backend)(logits), compiler_options=compiler_options(backend))


def _check_image(image: Any) -> None:
    shape, dtype = np.shape(image), getattr(image, "dtype", type(image).__name__)
    if len(shape) != 3 or shape[2] != 3 or 0 in shape or dtype != np.uint8:
        raise UserError(f"an image is {dtype} {list(shape)}; expected uint8 [height, width, 3]")


def save(folder: str | os.PathLike[str], model: Model) -> None:
    """Writes a model into a new folder; one that is there already is replaced.

    The folder is a checkpoint as `save_checkpoint` writes it, for `load_checkpoint` and
    `load_weights` too, with a file model.json beside the arrays, and keep.json where it is pruned.
    It appears complete or not at all.

    Args:
      folder: local or `gs://bucket/path`; its parent is made.
      model: in a group of processes each has all of it, and one calls this.

    Example:
      >>> save("flowers", Model("resnet18", {}, variables, PREPROCESS["nevis"], image_size=64))
      >>> model = load("flowers")
      >>> logits = apply(model.module, model.variables, model.preprocess(images))
    """
    content = {"format": _FORMAT, **describe(model)}
    beside = {_FILE: (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()}
    if model.keep:
        beside[_KEEP_FILE] = model.keep.encode()
    _checkpoint.save_checkpoint(folder, model.variables, beside=beside)


def describe(model: Model) -> dict[str, Any]:
    """All but the arrays, as plain values: what model.json says, and files of an export."""
    return {
        "architecture": model.architecture,
        "options": dict(model.options),
        "preprocess": str(model.preprocess),
        "image_size": model.image_size,
        "num_classes": model.num_classes,
        "classes": list(model.classes),
        "multi_label": model.multi_label,
        "compute_dtype": model.compute_dtype,
        "notes": dict(model.notes),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def is_model(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds what `save` wrote."""
    if files.is_remote(folder):
        return files.exists(files.path(folder) / _FILE)
    return os.path.isfile(os.path.join(folder, _FILE))


def load(folder: str | os.PathLike[str]) -> Model:
    """The model that `save` wrote.

    Args:
      folder: local or `gs://bucket/path`.

    Raises:
      UserError: no such folder, no model in it, a damaged one, or one of another version.
    """
    with _checkpoint.verified(folder) as local:
        if not (local / _FILE).is_file():
            raise UserError(f"model {folder}: no {_FILE}; expected what models.save wrote")
        content = json.loads((local / _FILE).read_bytes())
        if content.pop("format", None) != _FORMAT:
            raise UserError(f"model {folder}: its {_FILE} is not of format {_FORMAT}")
        content.pop("versions", None)
        keep = (local / _KEEP_FILE).read_text() if (local / _KEEP_FILE).is_file() else ""
        variables = _checkpoint.read(folder, local)
    num_classes = content.pop("num_classes")
    with naming(f"model {folder}"):
        content |= {"classes": tuple(content["classes"]), "keep": keep}
        model = Model(variables=variables, **content)
        if model.num_classes != num_classes:
            raise UserError(f"its head has {model.num_classes} outputs; expected {num_classes}")
    return model
