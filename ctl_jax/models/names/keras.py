"""The forms that Keras's names have in files, brought to one: "conv1_conv/kernel"."""

import re

from ctl_jax.models.names import Arrays, Named

_ARRAYS = {"weight": "kernel", "mean": "moving_mean", "var": "moving_variance"}
# Kernels that are larger do not exist, so that a small square is height and width.
_LARGEST_KERNEL = 15


def canonical(arrays: Arrays) -> dict[str, Named]:
    """LAYER/ARRAY in place of the other forms, kernels [height, width, inputs, outputs].

    Such as "conv1_conv/kernel:0", with the model's and the layer's groups of an HDF5 file before
    it, and "conv1_conv.weight", whose kernels may be PyTorch's [outputs, inputs, height, width]:
    those of a file are all of one form.
    """
    transposed = _are_torch(arrays)
    found = {}
    for name, array in arrays.items():
        layer, _, last = re.sub(r":0$", "", name).rpartition("/")
        if not layer:
            layer, _, last = last.rpartition(".")
        layer = layer.rpartition("/")[2]
        # Keras 3 calls the kernels of a depthwise layer as those of any other.
        kernel = array.ndim == 4 and last in ("weight", "kernel")
        depthwise = "depthwise" in last or (kernel and re.search("dw|depthwise", layer))
        last = "depthwise_kernel" if depthwise else _ARRAYS.get(last, last)
        if array.ndim == 4 and transposed:
            array = array.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
        found[f"{layer}/{last}"] = Named(name, array)
    return found


def _are_torch(arrays: Arrays) -> bool:
    """Whether most kernels have height and width at their end."""
    votes = 0
    for array in arrays.values():
        if array.ndim == 4:
            first, second, third, fourth = array.shape
            votes += third == fourth <= _LARGEST_KERNEL
            votes -= first == second <= _LARGEST_KERNEL
    return votes > 0
