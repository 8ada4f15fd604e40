"""Runs the network beside this file; it needs torch and safetensors alone.

network = Network("FOLDER")  # on the CPU; network.to("cuda") moves it
logits = network(images)     # of uint8 RGB images [batch, size, size, 3], float32
"""

import json
import pathlib
from typing import Any

import torch
from safetensors.torch import load_file
from torch.nn import functional as F


def over_images(function: Any, x: torch.Tensor, *args: Any) -> torch.Tensor:
    """A function of [B, C, H, W] of images [B, H, W, C]."""
    return function(x.permute(0, 3, 1, 2), *args).permute(0, 2, 3, 1)


OPERATIONS: dict[str, Any] = {
    "as_strided": lambda x, shape, strides, offset: x.as_strided(
        shape, strides, x.storage_offset() + offset
    ),
    "cast": lambda x, dtype: x.to(getattr(torch, dtype)),
    "concatenate": lambda *parts, axis: torch.cat(parts, axis),
    "conv": lambda x, kernel, strides, padding, dilation, groups: over_images(
        F.conv2d, x, kernel.permute(3, 2, 0, 1), None, strides, padding, dilation, groups
    ),
    "einsum": lambda *parts, equation: torch.einsum(equation, *parts),
    "expand": lambda x, images, shape: x.expand(
        [len(images) if size == "batch" else size for size in shape]
    ),
    "max_pool": lambda x, window, strides: over_images(F.max_pool2d, x, window, strides),
    "pad": lambda x, before, after, value: F.pad(
        x, [n for pair in zip(before[::-1], after[::-1], strict=True) for n in pair], value=value
    ),
    "reshape": lambda x, shape: x.reshape(shape),
    "slice": lambda x, axis, start, stop, step: x.narrow(axis, start, stop - start)[
        (slice(None),) * axis + (slice(None, None, step),)
    ],
    "sum_pool": lambda x, window, strides: over_images(
        F.avg_pool2d, x, window, strides, 0, False, True, 1
    ),
    "transpose": lambda x, axes: x.permute(axes),
}


class Network(torch.nn.Module):
    """The network of a folder, for inference."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        graph = json.loads((pathlib.Path(folder) / "graph.json").read_text())
        arrays = load_file(pathlib.Path(folder) / "model.safetensors")
        for name, (dtype, values) in graph["constants"].items():
            arrays[name] = torch.tensor(values, dtype=getattr(torch, dtype))
        self.output, self.nodes = graph["output"], graph["nodes"][graph["static"] :]
        self.last = {name: i for i, node in enumerate(self.nodes) for name in node[1]}
        self.run(graph["nodes"][: graph["static"]], arrays)
        self.known = sorted(arrays.keys() & self.last.keys())
        for i, name in enumerate(self.known):  # Buffers move with the module.
            self.register_buffer(f"known{i}", arrays[name])

    def run(self, nodes: list[Any], arrays: dict[str, torch.Tensor]) -> None:
        """Adds the results of operations to the arrays."""
        for i, (operation, inputs, output, attributes) in enumerate(nodes):
            function = OPERATIONS.get(operation) or getattr(torch, operation)
            arrays[output] = function(*(arrays[name] for name in inputs), **attributes)
            if nodes is self.nodes:
                for name in {name for name in inputs if self.last[name] == i}:
                    del arrays[name]  # Not needed any more.

    @torch.inference_mode()
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of uint8 RGB images [batch, size, size, 3]."""
        arrays = dict(zip(self.known, self.buffers(), strict=True)) | {"images": images}
        self.run(self.nodes, arrays)
        return arrays[self.output]
