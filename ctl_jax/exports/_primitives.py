"""Jax's primitives in the operations of a graph."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.extend.core import JaxprEqn

from ctl_jax.errors import UserError
from ctl_jax.exports._graph import (
    BATCH,
    INPUT,
    LOWERINGS,
    Builder,
    Lowering,
    Value,
    plain_shape,
    typed,
)


def _lowering(*primitives: str) -> Callable[[Lowering], Lowering]:
    def enter(function: Lowering) -> Lowering:
        LOWERINGS.update(dict.fromkeys(primitives, function))
        return function

    return enter


@_lowering("rsqrt")
def _rsqrt(to: Builder, eqn: JaxprEqn, x: Value) -> Value:
    return to.add("div", [_number(eqn, 1), to.add("sqrt", [x])])


@_lowering("erfc")
def _erfc(to: Builder, eqn: JaxprEqn, x: Value) -> Value:
    return to.add("sub", [_number(eqn, 1), to.add("erf", [x])])


@_lowering("ne")
def _ne(to: Builder, eqn: JaxprEqn, x: Value, y: Value) -> Value:
    return to.add("where", [to.add("eq", [x, y]), np.asarray(False), np.asarray(True)])


@_lowering("expm1")
def _expm1(to: Builder, eqn: JaxprEqn, x: Value) -> Value:
    return to.add("sub", [to.add("exp", [x]), _number(eqn, 1)])


@_lowering("log1p")
def _log1p(to: Builder, eqn: JaxprEqn, x: Value) -> Value:
    return to.add("log", [to.add("add", [x, _number(eqn, 1)])])


@_lowering("square")
def _square(to: Builder, eqn: JaxprEqn, x: Value) -> Value:
    return to.add("mul", [x, x])


@_lowering("integer_pow")
def _integer_pow(to: Builder, eqn: JaxprEqn, x: Value) -> Value:
    return to.add("pow", [x, _number(eqn, eqn.params["y"])])


def _number(eqn: JaxprEqn, value: float) -> np.ndarray:
    return np.asarray(value, typed(eqn.outvars[0]).dtype)


@_lowering("clamp")
def _clamp(to: Builder, eqn: JaxprEqn, low: Value, x: Value, high: Value) -> Value:
    return to.add("minimum", [to.add("maximum", [x, low]), high])


@_lowering("select_n")
def _select_n(to: Builder, eqn: JaxprEqn, which: Value, *cases: Value) -> Value:
    if len(cases) != 2 or typed(eqn.invars[0]).dtype != np.bool_:
        raise UserError(f"the network selects among {len(cases)} arrays; expected two")
    return to.add("where", [which, cases[1], cases[0]])


@_lowering("convert_element_type")
def _convert(to: Builder, eqn: JaxprEqn, x: Value) -> Value:
    if typed(eqn.invars[0]).dtype == (dtype := eqn.params["new_dtype"]):
        return x
    return to.add("cast", [x], dtype=np.dtype(dtype).name)


@_lowering("reshape", "squeeze", "expand_dims")
def _reshape(to: Builder, eqn: JaxprEqn, x: Value) -> Value:
    if _shape_of(eqn.invars[0]) == _shape_of(eqn.outvars[0]):
        return x
    return to.add("reshape", [x], shape=plain_shape(_shape_of(eqn.outvars[0])))


@_lowering("broadcast_in_dim")
def _broadcast(to: Builder, eqn: JaxprEqn, x: Value, *sizes: Value) -> Value:
    target, given = _shape_of(eqn.outvars[0]), _shape_of(eqn.invars[0])
    along: list[Any] = [1] * len(target)
    for axis, size in zip(eqn.params["broadcast_dimensions"], given, strict=True):
        along[axis] = size
    if tuple(along) != given:
        x = to.add("reshape", [x], shape=plain_shape(along))
    if tuple(along) == target:
        return x
    return to.add("expand", [x, INPUT], shape=_expanded(target))


@_lowering("transpose")
def _transpose(to: Builder, eqn: JaxprEqn, x: Value) -> Value:
    return to.add("transpose", [x], axes=list(eqn.params["permutation"]))


@_lowering("concatenate")
def _concatenate(to: Builder, eqn: JaxprEqn, *parts: Value) -> Value:
    return to.add("concatenate", parts, axis=eqn.params["dimension"])


@_lowering("slice")
def _slice(to: Builder, eqn: JaxprEqn, x: Value) -> Value:
    shape, params = _shape_of(eqn.invars[0]), eqn.params
    steps = params["strides"] or (1,) * len(shape)
    ends = zip(shape, params["start_indices"], params["limit_indices"], steps, strict=True)
    for axis, (size, start, stop, step) in enumerate(ends):
        if (start, stop, step) != (0, size, 1):
            x = _cut(to, x, axis, start, stop, step)
    return x


def _cut(to: Builder, x: Value, axis: int, start: Any, stop: Any, step: int = 1) -> Value:
    if not (isinstance(start, int | np.integer) and isinstance(stop, int | np.integer)):
        raise UserError("the network takes some of a batch's images; expected it to take all")
    return to.add("slice", [x], axis=axis, start=start, stop=stop, step=step)


@_lowering("rev")
def _rev(to: Builder, eqn: JaxprEqn, x: Value) -> Value:
    """Of short axes, such as the colours."""
    for axis in eqn.params["dimensions"]:
        places = range(_shape_of(eqn.invars[0])[axis])
        parts = [_cut(to, x, axis, place, place + 1) for place in reversed(places)]
        x = to.add("concatenate", parts, axis=axis)
    return x


@_lowering("split")
def _split(to: Builder, eqn: JaxprEqn, x: Value) -> list[Value]:
    ends = np.cumsum([0, *eqn.params["sizes"]]).tolist()
    return [
        _cut(to, x, eqn.params["axis"], start, stop) for start, stop in itertools.pairwise(ends)
    ]


@_lowering("gather")
def _gather(to: Builder, eqn: JaxprEqn, x: Value, indices: Value) -> Value:
    """Slices at places that are known, such as x[:, 0] and x[:, ::2, 1::2]."""
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    shape, axes = _shape_of(eqn.invars[0]), numbers.start_index_map
    grid = indices.shape[:-1] if isinstance(indices, np.ndarray) else (0, 0)
    usual = len(grid) == len(axes) and tuple(numbers.collapsed_slice_dims) == tuple(axes)
    if not isinstance(indices, np.ndarray) or numbers.operand_batching_dims or (grid and not usual):
        raise UserError(_LOOKED_UP)
    for place, axis in enumerate(axes):
        if grid:
            x = _cut(to, x, axis, *_progression(indices[..., place], place))
        else:
            start = min(max(int(indices[place]), 0), shape[axis] - sizes[axis])
            x = _cut(to, x, axis, start, start + sizes[axis])
    if not grid:
        return to.add("reshape", [x], shape=plain_shape(_shape_of(eqn.outvars[0])))
    picked, rest = iter(axes), iter([i for i in range(len(shape)) if i not in axes])
    order = [
        next(rest if i in numbers.offset_dims else picked)
        for i in range(len(_shape_of(eqn.outvars[0])))
    ]
    return x if order == sorted(order) else to.add("transpose", [x], axes=order)


_LOOKED_UP = "the network looks values up by indices; expected plain slices"


def _progression(places: np.ndarray, axis: int) -> tuple[int, int, int]:
    """Start, stop and step of places that run along one axis."""
    line = np.moveaxis(places, axis, 0).reshape(places.shape[axis], -1)[:, 0]
    step = int(line[1] - line[0]) if len(line) > 1 else 1
    along = np.expand_dims(line, [i for i in range(places.ndim) if i != axis])
    if step < 1 or (places != along).any() or (np.diff(line) != step).any():
        raise UserError(_LOOKED_UP)
    return int(line[0]), int(line[-1]) + 1, step


@_lowering("pad")
def _pad(to: Builder, eqn: JaxprEqn, x: Value, value: Value) -> Value:
    config = eqn.params["padding_config"]
    if not isinstance(value, np.ndarray) or any(between for _, _, between in config):
        raise UserError("the network pads between positions; expected around them")
    before, after = [entry[0] for entry in config], [entry[1] for entry in config]
    return _padded(to, x, before, after, float(value))


def _padded(
    to: Builder, x: Value, before: Sequence[int], after: Sequence[int], value: float = 0.0
) -> Value:
    if not any(before) and not any(after):
        return x
    if min(*before, *after) < 0:
        raise UserError("the network pads by less than nothing; expected slices")
    return to.add("pad", [x], before=list(before), after=list(after), value=value)


def _reduce(op: str) -> Lowering:
    def lower(to: Builder, eqn: JaxprEqn, x: Value) -> Value:
        axes = list(eqn.params["axes"])
        return to.add(op, [x], dim=axes) if axes else x

    return lower


LOWERINGS |= {
    "reduce_sum": _reduce("sum"),
    "reduce_max": _reduce("amax"),
    "reduce_min": _reduce("amin"),
}


@_lowering("dot_general")
def _dot_general(to: Builder, eqn: JaxprEqn, x: Value, y: Value) -> Value:
    (x_sums, y_sums), (x_batch, y_batch) = eqn.params["dimension_numbers"]
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    left = [next(letters) for _ in _shape_of(eqn.invars[0])]
    right = [next(letters) for _ in _shape_of(eqn.invars[1])]
    for i, j in zip((*x_batch, *x_sums), (*y_batch, *y_sums), strict=True):
        right[j] = left[i]
    free = [a for i, a in enumerate(left) if i not in (*x_batch, *x_sums)]
    free += [a for j, a in enumerate(right) if j not in (*y_batch, *y_sums)]
    result = "".join([*(left[i] for i in x_batch), *free])
    return to.add("einsum", [x, y], equation=f"{''.join(left)},{''.join(right)}->{result}")


@_lowering("conv_general_dilated")
def _conv(to: Builder, eqn: JaxprEqn, x: Value, kernel: Value) -> Value:
    params, numbers = eqn.params, eqn.params["dimension_numbers"]
    specs = tuple(numbers.lhs_spec), tuple(numbers.rhs_spec), tuple(numbers.out_spec)
    if specs != ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2)) or params["batch_group_count"] != 1:
        raise UserError("the network convolves other arrays than [B, H, W, C]; expected those")
    if params["lhs_dilation"] != (1, 1):
        x = _spread(to, x, _shape_of(eqn.invars[0]), params["lhs_dilation"])
    (top, bottom), (left, right) = params["padding"]
    around = [top, left]
    if (top, left) != (bottom, right) or min(around) < 0:
        around = [0, 0]
        x = _padded(to, x, [0, top, left, 0], [0, bottom, right, 0])
    return to.add(
        "conv",
        [x, kernel],
        strides=list(params["window_strides"]),
        padding=around,
        dilation=list(params["rhs_dilation"]),
        groups=params["feature_group_count"],
    )


def _spread(to: Builder, x: Value, shape: tuple[Any, ...], by: Sequence[int]) -> Value:
    """Zeros between the pixels of [B, H, W, C], as a transposed convolution has them."""
    _, height, width, channels = shape
    (rows, columns) = by
    x = to.add("reshape", [x], shape=[-1, height, 1, width, 1, channels])
    x = _padded(to, x, [0] * 6, [0, 0, rows - 1, 0, columns - 1, 0])
    x = to.add("reshape", [x], shape=[-1, height * rows, width * columns, channels])
    x = _cut(to, x, 1, 0, (height - 1) * rows + 1)
    return _cut(to, x, 2, 0, (width - 1) * columns + 1)


def _pool(op: str, around: float) -> Lowering:
    def lower(to: Builder, eqn: JaxprEqn, x: Value) -> Value:
        params = eqn.params
        window, strides = params["window_dimensions"], params["window_strides"]
        plain = all(
            len(params[key]) == 4 and set(params[key]) == {1}
            for key in ("base_dilation", "window_dilation")
        )
        if not plain or {window[0], window[3], strides[0], strides[3]} != {1}:
            raise UserError("the network pools over other axes than rows and columns")
        before, after = zip(*params["padding"], strict=True)
        x = _padded(to, x, before, after, around)
        return to.add(op, [x], window=list(window[1:3]), strides=list(strides[1:3]))

    return lower


LOWERINGS |= {
    "reduce_window_max": _pool("max_pool", -np.inf),
    "reduce_window_sum": _pool("sum_pool", 0.0),
}


def _expanded(shape: Sequence[Any]) -> list[int | str]:
    """A shape for "expand"."""
    odd = [n for n in shape if not isinstance(n, int) and str(n) != BATCH]
    if odd:
        raise UserError(f"the network repeats an array {odd[0]} times; expected the batch size")
    return [n if isinstance(n, int) else BATCH for n in shape]


def _shape_of(atom: Any) -> tuple[Any, ...]:
    return tuple(typed(atom).shape)
