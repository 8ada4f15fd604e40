"""Arrays that a step made and that are no network: features, heads, corrected parameters.

A safetensors file, whose header has SHA-256 of the arrays' bytes and the step's id: a file that was
cut off, changed or renamed is told from one that is whole.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from ctl_jax import files
from ctl_jax.experiment import step_files
from ctl_jax.experiment.step_files import Damaged

SUFFIX = ".safetensors"
# The length of the header, in front of it.
_LENGTH = 8
_TYPES = {"F16": np.float16, "F32": np.float32, "F64": np.float64, "I32": np.int32, "U8": np.uint8}


def pack(step_id: str, arrays: Mapping[str, np.ndarray]) -> bytes:
    """The content of the file that keeps a step's arrays.

    Args:
      step_id: of the step.
      arrays: by name; float16, float32, float64, int32 or uint8.
    """
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    # The order in which they are written is safetensors' own, hence a sum for each.
    sums = {name: hashlib.sha256(array.data).hexdigest() for name, array in whole.items()}
    return safetensors.numpy.save(whole, metadata={"step": step_id, "sums": json.dumps(sums)})


def read(path: files.Path, step_id: str) -> dict[str, np.ndarray]:
    """The arrays that `pack` was given: on a disk they are memory-mapped, and cannot be changed.

    Args:
      path: of the file, local or remote.
      step_id: of the step.

    Raises:
      FileNotFoundError: there is none.
      Damaged: it is not what was written, or of another step.
    """
    content: Any
    if files.is_remote(path):
        content = np.frombuffer(step_files.read(path), np.uint8)
    elif (size := path.stat().st_size) > 0:
        content = np.memmap(path, np.uint8, mode="r", shape=(size,))
    else:
        raise Damaged("is empty")
    try:
        start = _LENGTH + int(content[:_LENGTH].view(np.uint64)[0])
        header = json.loads(content[_LENGTH:start].tobytes())
        about = header.pop("__metadata__")
        owner, sums = about["step"], json.loads(about["sums"])
        found = {name: _array(content[start:], each) for name, each in header.items()}
    except (ValueError, LookupError, TypeError, AttributeError):
        raise Damaged("is not safetensors as written here") from None
    if owner != step_id:
        raise Damaged(f"is of another step, {owner!r:.40}")
    if sums != {name: hashlib.sha256(array.data).hexdigest() for name, array in found.items()}:
        raise Damaged("is not what was written")
    return found


def _array(content: np.ndarray, about: Mapping[str, Any]) -> np.ndarray:
    begin, end = about["data_offsets"]
    return content[begin:end].view(_TYPES[about["dtype"]]).reshape(about["shape"])
