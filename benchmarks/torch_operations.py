"""Where the time of PyTorch's training step goes, in the words of `operations`."""

import collections
from collections.abc import Callable, Iterator
from typing import Any

import torch
from operations import BACKWARD, FORWARD, KERNELS, OUTSIDE, Kind
from torch.profiler import ProfilerActivity

# Names of operators as PyTorch's autograd and dispatcher call them, without their namespaces.
_NAMES = {
    "batch_norm": "BatchNorm",
    "NativeBatchNormBackward0": "BatchNorm",
    "relu_": "element-wise",
    "ReluBackward0": "element-wise",
    "add": "element-wise",
    "AddBackward0": "element-wise",
    "max_pool2d": "pooling",
    "MaxPool2DWithIndicesBackward0": "pooling",
    "adaptive_avg_pool2d": "pooling",
    "MeanBackward1": "pooling",
    "linear": "head",
    "AddmmBackward0": "head",
    "SGD.step": "optimiser",
    "SGD.zero_grad": "optimiser",
    "AccumulateGrad": "optimiser",
}


def profile(steps: Callable[[int], Any], count: int) -> dict[Kind, float]:
    """Milliseconds of wall time a step, on CPU, by kind of operation.

    Both gradients of a convolution are one operator, all of which is listed under `KERNELS`.

    Args:
      steps: makes so many updates.
      count: how many are averaged.
    """
    steps(1)
    with torch.profiler.profile(activities=[ProfilerActivity.CPU], record_shapes=True) as found:
        steps(count)
    kinds: dict[Kind, float] = collections.defaultdict(float)
    for event in found.events():
        if event.cpu_parent is None:
            kinds[_kind(event)] += event.cpu_time_total / 1e3 / count
    return dict(kinds)


def _kind(event: Any) -> Kind:
    name = event.name.replace("#", ":").rpartition(":")[2].strip()
    if name in ("conv2d", "ConvolutionBackward0"):
        kernel = next(shape for shape in _shapes(event) if shape[2:] in ([1, 1], [3, 3], [7, 7]))
        size = "stem" if kernel[2] == 7 else f"{kernel[2]}x{kernel[3]}"
        return size, FORWARD if name == "conv2d" else KERNELS
    kind = _NAMES.get(name, "other")
    if kind == "optimiser":
        return kind, OUTSIDE
    if kind == "other":
        return "crops", OUTSIDE
    return kind, BACKWARD if name.endswith(("Backward0", "Backward1")) else FORWARD


def _shapes(event: Any) -> Iterator[list[int]]:
    """Shapes of the weights that an event, or one inside it, takes."""
    place = 2 if event.name == "aten::convolution_backward" else 1
    if event.name in ("aten::conv2d", "aten::convolution_backward"):
        yield event.input_shapes[place]
    for inner in event.cpu_children:
        yield from _shapes(inner)
