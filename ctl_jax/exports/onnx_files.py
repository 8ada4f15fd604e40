"""For ONNX runtimes: the network with its weights in one file."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ctl_jax.exports._graph import BATCH, INPUT, Node, trace
from ctl_jax.models.model import Model

# The oldest one in which the sums and the reductions have their axes as inputs: ONNX 1.13, 2022.
OPSET = 18
# Operations of the same inputs, by their names there.
_TYPES = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "maximum": "Max", "minimum": "Min",
    "pow": "Pow", "lt": "Less", "gt": "Greater", "le": "LessOrEqual", "ge": "GreaterOrEqual",
    "eq": "Equal", "neg": "Neg", "exp": "Exp", "log": "Log", "tanh": "Tanh", "sigmoid": "Sigmoid",
    "erf": "Erf", "sqrt": "Sqrt", "abs": "Abs", "sin": "Sin", "cos": "Cos", "where": "Where",
}  # fmt: skip


def files(model: Model) -> dict[str, bytes]:
    """The file of the export, by name.

    Raises:
      UserError: the network does something that the graph has no form for.
    """
    graph = trace(model, named=False)
    writer = _Writer(graph.constants)
    for node in graph.nodes:
        _FORMS.get(node.op, _plain)(writer, node)
    writer.node("Identity", [graph.output], "logits")
    shape: list[str | int | None] = [BATCH, model.image_size, model.image_size, 3]
    content = helper.make_graph(
        writer.nodes,
        "ctl_jax",
        [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, graph.shape)],
        [numpy_helper.from_array(value, name) for name, value in writer.arrays.items()],
    )
    made = helper.make_model(
        content, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="ctl_jax"
    )
    made.ir_version = 9  # The oldest of this opset's time: runtimes refuse newer ones.
    helper.set_model_props(made, {"classes": json.dumps(model.classes, ensure_ascii=False)})
    onnx.checker.check_model(made)
    return {"model.onnx": made.SerializeToString()}


class _Writer:
    """ONNX nodes and the arrays that they read."""

    def __init__(self, constants: Any) -> None:
        self.nodes: list[Any] = []
        self.arrays: dict[str, np.ndarray] = {}
        self._constants = constants

    def node(self, kind: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """Adds a node; returns the name of its result."""
        output = output or f"{kind.lower()}_{len(self.nodes)}"
        for name in inputs:
            if name in self._constants:
                self.arrays[name] = self._constants[name]
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def array(self, values: Any, dtype: Any = np.int64) -> str:
        """The name of an array that is given."""
        array = np.asarray(values, dtype)
        name = f"{array.dtype}_{array.tolist()}" if array.size < 9 else f"array_{len(self.arrays)}"
        self.arrays[name] = array
        return name

    def known(self, name: str) -> np.ndarray | None:
        """The values of a constant."""
        return self._constants.get(name)


def _plain(to: _Writer, node: Node) -> None:
    to.node(_TYPES[node.op], node.inputs, node.output)


def _cast(to: _Writer, node: Node) -> None:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(node.attributes["dtype"]))
    to.node("Cast", node.inputs, node.output, to=kind)


def _reshape(to: _Writer, node: Node) -> None:
    to.node("Reshape", [*node.inputs, to.array(node.attributes["shape"])], node.output)


def _expand(to: _Writer, node: Node) -> None:
    x, images = node.inputs
    sizes = [
        to.node("Shape", [images], start=0, end=1) if size == BATCH else to.array([size])
        for size in node.attributes["shape"]
    ]
    to.node("Expand", [x, to.node("Concat", sizes, axis=0)], node.output)


def _transpose(to: _Writer, node: Node) -> None:
    to.node("Transpose", node.inputs, node.output, perm=node.attributes["axes"])


def _concatenate(to: _Writer, node: Node) -> None:
    to.node("Concat", node.inputs, node.output, axis=node.attributes["axis"])


def _slice(to: _Writer, node: Node) -> None:
    ends = [to.array([node.attributes[key]]) for key in ("start", "stop", "axis", "step")]
    to.node("Slice", [*node.inputs, *ends], node.output)


def _pad(to: _Writer, node: Node) -> None:
    pads = to.array([*node.attributes["before"], *node.attributes["after"]])
    value = to.array(node.attributes["value"], np.float32)
    to.node("Pad", [*node.inputs, pads, value], node.output)


def _reduce(kind: str) -> Callable[[_Writer, Node], None]:
    def write(to: _Writer, node: Node) -> None:
        axes = to.array(node.attributes["dim"])
        to.node(kind, [*node.inputs, axes], node.output, keepdims=0)

    return write


def _einsum(to: _Writer, node: Node) -> None:
    x, y = node.inputs
    equation = node.attributes["equation"]
    left, right, result = equation.replace("->", ",").split(",")
    # A product with a matrix, which runtimes know better.
    if len(right) == 2 and left[-1] == right[0] and result == left[:-1] + right[1]:
        to.node("MatMul", [x, y], node.output)
    else:
        to.node("Einsum", [x, y], node.output, equation=equation)


def _over_images(
    to: _Writer, kind: str, inputs: Sequence[str], output: str = "", **attributes: Any
) -> str:
    """A node for [B, C, H, W] on images [B, H, W, C]."""
    x = to.node("Transpose", [inputs[0]], perm=[0, 3, 1, 2])
    y = to.node(kind, [x, *inputs[1:]], **attributes)
    return to.node("Transpose", [y], output, perm=[0, 2, 3, 1])


def _conv(to: _Writer, node: Node) -> None:
    x, kernel = node.inputs
    known = to.known(kernel)
    if known is None:
        kernel = to.node("Transpose", [kernel], perm=[3, 2, 0, 1])
    else:
        kernel = f"{kernel}_oihw"
        to.arrays[kernel] = np.ascontiguousarray(known.transpose(3, 2, 0, 1))
    top, left = node.attributes["padding"]
    _over_images(
        to,
        "Conv",
        [x, kernel],
        node.output,
        strides=node.attributes["strides"],
        dilations=node.attributes["dilation"],
        group=node.attributes["groups"],
        pads=[top, left, top, left],
    )


def _max_pool(to: _Writer, node: Node) -> None:
    window, strides = node.attributes["window"], node.attributes["strides"]
    _over_images(to, "MaxPool", node.inputs, node.output, kernel_shape=window, strides=strides)


def _sum_pool(to: _Writer, node: Node) -> None:
    window, strides = node.attributes["window"], node.attributes["strides"]
    mean = _over_images(to, "AveragePool", node.inputs, kernel_shape=window, strides=strides)
    to.node("Mul", [mean, to.array(np.prod(window), np.float32)], node.output)


# By the operation; the others are `_TYPES` of the same inputs.
_FORMS: dict[str, Callable[[_Writer, Node], None]] = {
    "cast": _cast,
    "reshape": _reshape,
    "expand": _expand,
    "transpose": _transpose,
    "concatenate": _concatenate,
    "slice": _slice,
    "pad": _pad,
    "sum": _reduce("ReduceSum"),
    "amax": _reduce("ReduceMax"),
    "amin": _reduce("ReduceMin"),
    "einsum": _einsum,
    "conv": _conv,
    "max_pool": _max_pool,
    "sum_pool": _sum_pool,
}
