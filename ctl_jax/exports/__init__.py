"""A trained model in the forms that other programs run.

`TARGETS` says which there are; each is a module of this package with a function `files(model)`.
All take uint8 RGB images [batch, size, size, 3], any number of them, and give float32 logits.
"""

import importlib
import json
import os
from collections.abc import Sequence

from ctl_jax import files
from ctl_jax.errors import UserError
from ctl_jax.exports import _primitives  # noqa: F401  (fills the table of operations)
from ctl_jax.exports._readme import readme
from ctl_jax.models.model import Model, describe

# The module of each.
TARGETS = {"safetensors": "torch_files", "onnx": "onnx_files", "stablehlo": "stablehlo_files"}


def write(model: Model, targets: Sequence[str], folder: str | os.PathLike[str]) -> list[files.Path]:
    """Writes a model's files for other programs, and a README.md that says how to run them.

    What is computed is float32, also of a model that was trained in bfloat16.

    Args:
      model: of any network, pruned or not.
      targets: keys of `TARGETS`.
      folder: local or `gs://bucket/path`; made where it is not there.

    Returns:
      The files. Each appears whole; nothing is written unless all could be made.

    Raises:
      UserError: an unknown target, a network that a target has no form for, or a file that is there
        already and is another.

    Example:
      >>> write(models.load("flowers"), ["safetensors", "stablehlo"], "small")
    """
    content: dict[str, bytes] = {}
    for target in dict.fromkeys(targets):
        content |= _files(target, model)
    about = {**describe(model), "targets": list(dict.fromkeys(targets))}
    content["export.json"] = (json.dumps(about, indent=2, ensure_ascii=False) + "\n").encode()
    content["README.md"] = readme(model, targets).encode()
    place = files.path(folder)
    there = files.names(place)
    for name, made in content.items():
        if name in there and files.read_bytes(place / name) != made:
            raise UserError(f"{place / name} is there, and is another; expected a new folder")
    for name, made in content.items():
        files.write_bytes(place / name, made)
    return [place / name for name in content]


def _files(target: str, model: Model) -> dict[str, bytes]:
    if target not in TARGETS:
        raise UserError(f"target is {target!r}; expected one of {', '.join(TARGETS)}")
    # Imported when it is needed, as the packages behind it take time.
    made = importlib.import_module(f"{__name__}.{TARGETS[target]}")
    found: dict[str, bytes] = made.files(model)
    return found
