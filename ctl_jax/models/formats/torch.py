"""PyTorch's checkpoints, of which nothing but arrays is unpickled."""

import argparse
import pathlib
import pickle
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from ctl_jax.errors import UserError
from ctl_jax.models.formats import File, Format, needs

# How files before PyTorch 1.6 begin: a pickled number of 10 bytes.
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
# Where checkpoints have their weights, the likeliest first; averages only where there is no other.
_WRAPPERS = ("state_dict", "model", "model_state", "model_state_dict", "net", "network", "params")
_AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "params_ema")


def _matches(path: pathlib.Path, head: bytes) -> bool:
    if not head.startswith(b"PK"):
        return head.startswith(_LEGACY)
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("data.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def _read(path: pathlib.Path) -> File:
    try:
        import torch
    except ImportError:
        raise needs("torch", "torch") from None
    try:
        # Many of Facebook's checkpoints hold the command's arguments, too: plain values.
        # A path would be loaded by its suffix, too.
        with torch.serialization.safe_globals([argparse.Namespace]), open(path, "rb") as file:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        if found is None:
            raise
        raise UserError(
            f"holds more than arrays, {found[1]}, and is not unpickled; expected what "
            "torch.save(model.state_dict(), ...) writes"
        ) from None
    tensors, remarks = _unwrapped(content, torch.Tensor)
    return File({name: _array(tensor, torch) for name, tensor in tensors.items()}, {}, remarks)


def _unwrapped(content: Any, kind: type) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The tensors of a checkpoint by name."""
    remarks: tuple[str, ...] = ()
    while isinstance(content, Mapping) and not any(isinstance(v, kind) for v in content.values()):
        inside = [key for key in (*_WRAPPERS, *_AVERAGES) if isinstance(content.get(key), Mapping)]
        if not inside:
            break
        if inside[0] in _AVERAGES:
            remarks = (f"the weights are the moving average {inside[0]!r}: there are no others",)
        elif averages := [key for key in inside if key in _AVERAGES]:
            remarks = (f"the weights are {inside[0]!r}, not the moving average {averages[0]!r}",)
        content = content[inside[0]]
    if not isinstance(content, Mapping):
        raise TypeError(f"it holds a {type(content).__name__}; expected a state_dict")
    tensors = {str(key): value for key, value in content.items() if isinstance(value, kind)}
    if not tensors:
        raise ValueError(f"its keys are {', '.join(map(str, content))[:200]}; expected tensors")
    return tensors, remarks


def _array(tensor: Any, torch: Any) -> np.ndarray:
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        return np.asarray(tensor.view(torch.int16).numpy()).view(ml_dtypes.bfloat16)
    return np.asarray(tensor.numpy())


FORMAT = Format(
    "PyTorch file",
    (".pth", ".pt", ".bin", ".th", ".ckpt", ".tar"),
    _matches,
    _read,
    # Its unpickler raises errors of any type at a file of another kind.
    (Exception,),
)
