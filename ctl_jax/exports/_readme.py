"""The README.md of an export."""

from collections.abc import Sequence

from ctl_jax.models.functional import reads_last
from ctl_jax.models.model import Model

_TORCH = """## PyTorch

`model.safetensors` holds the weightsNAMES, `graph.json` the computation, and `load_torch.py` runs
it. It needs torch and safetensors.

```python
import torch
from load_torch import Network

network = Network(".")  # this folder
logits = network(torch.from_numpy(images))
```
"""

_ONNX = """## ONNX

`model.onnx` holds all (opset 18).

```python
import onnxruntime

(logits,) = onnxruntime.InferenceSession("model.onnx").run(None, {"images": images})
```
"""

_STABLEHLO = """## StableHLO

`model.stablehlo` holds all, for CPU, CUDA, ROCm and TPU. It needs jax.

```python
import jax.export

with open("model.stablehlo", "rb") as file:
    network = jax.export.deserialize(bytearray(file.read()))
logits = network.call(images)
```
"""

_SECTIONS = {"safetensors": _TORCH, "onnx": _ONNX, "stablehlo": _STABLEHLO}


def readme(model: Model, targets: Sequence[str]) -> str:
    """How to run what was exported."""
    size = model.image_size
    read = "sigmoid(logits)" if model.multi_label else "softmax(logits)"
    library = model.notes.get("library", "")
    if library in ("", "ctl_jax") or not reads_last(model.module, model.variables, size):
        names = ""
    else:
        names = f" by the names of {library}"
    sections = [_SECTIONS[target] for target in dict.fromkeys(targets)]
    return f"""# {model.architecture}, exported by ctl_jax

- Input `images`: uint8 RGB [batch, {size}, {size}, 3], any number of images, each with its short
  side resized to {size} pixels ({model.preprocess.interpolation}, antialiased) and cropped to its
  middle. Nothing else is to be done to them: mean and scale are part of the network.
- Output: float32 logits [batch, {model.num_classes}]; `{read}` are probabilities. The names of the
  classes are in `export.json`.

{chr(10).join(sections).replace("NAMES", names)}"""
