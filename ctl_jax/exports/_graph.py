"""A model's forward pass as a short list of plain operations, which other libraries can run.

From uint8 RGB images [B, S, S, 3] to logits; the batch size B is free. It comes from the jaxpr of
the model's own program, so that any network can be exported, pruned or not, with no line of its
own: calls and loops are written out, what is known is computed, and of each primitive become the
operations that `LOWERINGS` have for it.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var

from ctl_jax import jaxprs
from ctl_jax.errors import UserError
from ctl_jax.models.functional import apply
from ctl_jax.models.model import Model

INPUT = "images"
# Stands for the batch size in the shape of an "expand".
BATCH = "batch"

# What the operations are, on arrays [B, H, W, C] where they are images:
#   ELEMENTWISE, UNARY  numpy's of this name, operands broadcast
#   where               condition, values if true, values if false
#   cast                dtype
#   reshape             shape, with -1 for what is left
#   expand              x, the images; shape: axes of size 1 repeated, to as many as there are
#                       images where it says BATCH
#   transpose           axes
#   concatenate         axis
#   slice               axis, start, stop, step
#   pad                 before, after (an int an axis), value
#   sum, amax, amin     dim (a list of axes)
#   einsum              equation
#   conv                x, kernel [h, w, C / groups, F]; strides, padding, dilation, groups; padded
#                       with as many zeros at the end as at the beginning
#   max_pool, sum_pool  window, strides
#   as_strided          shape, strides, offset: as torch's
ELEMENTWISE = (
    "add", "sub", "mul", "div", "maximum", "minimum", "pow", "lt", "gt", "le", "ge", "eq",
)  # fmt: skip
UNARY = ("neg", "exp", "log", "tanh", "sigmoid", "erf", "sqrt", "abs", "sin", "cos")

_RENAMED = {
    **{name: name for name in (*ELEMENTWISE, *UNARY)},
    "max": "maximum",
    "min": "minimum",
    "logistic": "sigmoid",
}
_SAME = ("copy", "copy_p", "stop_gradient", "optimization_barrier", "reduce_precision")


class Node(NamedTuple):
    """One operation: `output = op(*inputs, **attributes)`; names of arrays."""

    op: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Graph:
    """A forward pass.

    Attributes:
      nodes: in the order of computation; `static` of them, the first ones, need no images.
      constants: arrays by name.
      output: name of the logits.
      shape: theirs; BATCH is the batch size.
      static: how many nodes depend on parameters alone.
    """

    nodes: tuple[Node, ...]
    constants: Mapping[str, np.ndarray]
    output: str
    shape: tuple[int | str, ...]
    static: int


def trace(model: Model, *, named: bool) -> Graph:
    """The forward pass of a model, in float32.

    Args:
      model: its class of network is any.
      named: whether the parameters are arrays to be given, by names such as
        "params/stem_conv/kernel"; else they are constants, and what follows from them alone is
        computed.

    Raises:
      UserError: the network does something that `OPS` have no form for.
    """
    (batch,) = jax.export.symbolic_shape(BATCH)
    images = jax.ShapeDtypeStruct((batch, model.image_size, model.image_size, 3), jnp.uint8)
    flat = flatten_dict(dict(model.variables), sep="/")

    def forward(arrays: Mapping[str, jax.Array], images: jax.Array) -> jax.Array:
        variables = {"batch_stats": {}, **unflatten_dict(arrays, sep="/")}
        return apply(model.module, variables, model.preprocess(images))

    program = jax.make_jaxpr(forward)(flat, images)
    names = sorted(flat)  # As jax orders a dict.
    builder = Builder()
    given = [name if named else np.asarray(flat[name]) for name in names]
    (output,) = builder.run(program.jaxpr, program.consts, [*given, INPUT])
    shape = (BATCH, *program.out_avals[0].shape[1:])
    return builder.graph(output, shape, static=set(names) if named else set())


# An array that is known, or the name of one that is not.
Value = np.ndarray | str
# From the builder, an equation and its operands to its results.
Lowering = Callable[..., Value | list[Value]]
# By the primitive's name.
LOWERINGS: dict[str, Lowering] = {}


class Builder:
    """Writes the operations down as it walks a program."""

    def __init__(self) -> None:
        self._nodes: list[Node] = []
        self._constants: dict[str, np.ndarray] = {}
        self._names: dict[tuple[Any, ...], str] = {}

    def run(self, jaxpr: Jaxpr, consts: Sequence[Any], inputs: Sequence[Value]) -> list[Value]:
        """The values of a program's results."""
        return jaxprs.interpret(
            jaxpr,
            [np.asarray(const) for const in consts],
            inputs,
            lambda number, eqn, operands: self._equation(eqn, operands),
            lambda literal: np.asarray(literal.val, typed(literal).dtype),
        )

    def _equation(self, eqn: JaxprEqn, operands: list[Value]) -> list[Value]:
        name = eqn.primitive.name
        if name in _SAME:
            return operands
        if name == "scan":
            return self._scan(eqn, operands)
        if name in jaxprs.CALLS:
            (body,) = jaxprs.programs(eqn)
            return self.run(body.jaxpr, body.consts, operands)
        if all(isinstance(operand, np.ndarray) for operand in operands) and _is_fixed(eqn):
            found = eqn.primitive.bind(*operands, **eqn.params)
            return list(map(np.asarray, found if eqn.primitive.multiple_results else [found]))
        if name in _RENAMED:
            return [self.add(_RENAMED[name], operands)]
        if name not in LOWERINGS:
            raise UserError(
                f"the network computes {name!r}, which has no form in torch and ONNX here; "
                "expected --to=stablehlo, which takes any network"
            )
        found = LOWERINGS[name](self, eqn, *operands)
        return found if isinstance(found, list) else [found]

    def _scan(self, eqn: JaxprEqn, operands: list[Value]) -> list[Value]:
        """A loop, written out."""
        params, body = eqn.params, eqn.params["jaxpr"]
        first, count = params["num_consts"], params["num_carry"]
        fixed, carry = operands[:first], operands[first : first + count]
        turns: list[list[Value]] = [[] for _ in range(params["length"])]
        for atom, stacked in zip(
            eqn.invars[first + count :], operands[first + count :], strict=True
        ):
            shape = plain_shape(typed(atom).shape)
            for index, turn in enumerate(turns):
                if isinstance(stacked, np.ndarray):
                    turn.append(stacked[index])
                    continue
                part = self.add("slice", [stacked], axis=0, start=index, stop=index + 1, step=1)
                turn.append(self.add("reshape", [part], shape=shape[1:]))
        results: list[list[Value]] = [[] for _ in turns]
        order = range(len(turns))
        for index in reversed(order) if params["reverse"] else order:
            outputs = self.run(body.jaxpr, body.consts, [*fixed, *carry, *turns[index]])
            carry, results[index] = outputs[:count], outputs[count:]
        whole: list[Value] = []
        for var, parts in zip(eqn.outvars[count:], zip(*results, strict=True), strict=True):
            shape = [1, *plain_shape(typed(var).shape)[1:]]
            rows = [self.add("reshape", [part], shape=shape) for part in parts]
            whole.append(self.add("concatenate", rows, axis=0))
        return [*carry, *whole]

    def add(self, op: str, operands: Sequence[Value], **attributes: Any) -> str:
        """Writes an operation down; returns the name of its result."""
        inputs = tuple(map(self._name, operands))
        output = f"v{len(self._nodes)}"
        self._nodes.append(Node(op, inputs, output, {k: _plain(v) for k, v in attributes.items()}))
        return output

    def _name(self, value: Value) -> str:
        if isinstance(value, str):
            return value
        key = (value.dtype.name, value.shape, value.tobytes())
        if key not in self._names:
            self._names[key] = f"c{len(self._constants)}"
            self._constants[self._names[key]] = value
        return self._names[key]

    def graph(self, output: Value, shape: tuple[int | str, ...], static: set[str]) -> Graph:
        """What is needed for the output, with what needs no images first.

        Args:
          output: the result.
          shape: its own.
          static: names of the parameters.
        """
        needed, kept = {output := self._name(output)}, []
        for node in reversed(self._nodes):
            if node.output in needed:
                needed.update(node.inputs)
                kept.append(node)
        fixed = static | self._constants.keys()
        first, rest = [], []
        for node in reversed(kept):
            if fixed.issuperset(node.inputs):
                fixed.add(node.output)
                first.append(node)
            else:
                rest.append(node)
        constants = {name: value for name, value in self._constants.items() if name in needed}
        return Graph((*first, *rest), constants, output, shape, len(first))


def _plain(value: Any) -> Any:
    """With Python's numbers in place of numpy's."""
    if isinstance(value, list | tuple):
        return list(map(_plain, value))
    return value.item() if isinstance(value, np.generic) else value


def _is_fixed(eqn: JaxprEqn) -> bool:
    """Whether no shape of its results has the batch size in it."""
    return all(isinstance(n, int) for var in eqn.outvars for n in typed(var).shape)


def typed(atom: Var | Literal) -> Any:
    """What is known of a variable: its `shape` and `dtype`."""
    return atom.aval


def plain_shape(shape: Sequence[Any]) -> list[int]:
    """A shape for "reshape": -1 is what has the batch size in it."""
    found = [n if isinstance(n, int) else -1 for n in shape]
    if found.count(-1) > 1:
        raise UserError(
            f"the network has an array of shape {tuple(shape)}; expected one batch axis"
        )
    return found
