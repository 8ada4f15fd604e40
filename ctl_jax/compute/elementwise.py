"""Element-wise work of one equation: what is neither a convolution nor a matrix product.

One operation per output element, whatever the function: an addition counts as much as an
exponential, since both cost about one pass over memory. A reduction counts one per element it
reads, a sliding window one per element of each window, moving data nothing.
"""

import math

from jax.extend.core import JaxprEqn, Literal, Var

from ctl_jax.compute import matmul

# fmt: off
_MOVEMENT = frozenset([
    "after_all", "all_gather", "all_to_all", "axis_index", "bitcast_convert_type",
    "broadcast_in_dim", "complex", "concatenate", "convert_element_type", "copy", "copy_p",
    "create_token", "debug_callback", "debug_print", "device_put", "dynamic_slice",
    "dynamic_update_slice", "empty", "empty2", "expand_dims", "gather", "get", "imag", "iota",
    "mesh_cast", "name", "optimization_barrier", "pad", "pbroadcast", "pcast", "ppermute",
    "pvary", "random_unwrap", "random_wrap", "real", "reshard", "reshape", "rev", "scatter",
    "sharding_constraint", "slice", "split", "squeeze", "stop_gradient", "swap", "tile",
    "transpose",
])
# fmt: on

# fmt: off
_REDUCTIONS = frozenset([
    "argmax", "argmin", "reduce", "reduce_and", "reduce_max", "reduce_min", "reduce_or",
    "reduce_prod", "reduce_sum", "reduce_xor", "sort", "top_k", "approx_top_k",
])
# fmt: on

# One per element that is scattered, not per element of the array scattered into.
_SCATTERS = frozenset(["scatter-add", "scatter-mul", "scatter-min", "scatter-max", "scatter-sub"])

# fmt: off
_WINDOWS = frozenset([
    "reduce_window", "reduce_window_max", "reduce_window_min", "reduce_window_sum",
    "select_and_gather_add",
])
# fmt: on

# Maximum pooling backwards: each cotangent (first operand but for `select_and_scatter`) looks
# through its window.
_WINDOW_GRADIENTS = {"select_and_scatter_add": 0, "select_and_scatter": 1}

# Their jaxpr combines two numbers; it is no program to count.
HOLD_A_SCALAR_FUNCTION = _REDUCTIONS | _SCATTERS | _WINDOWS | _WINDOW_GRADIENTS.keys() | {"scatter"}


def operations(eqn: JaxprEqn) -> int:
    """Element operations of an equation that holds no jaxpr to descend into."""
    name = eqn.primitive.name
    if name in _MOVEMENT:
        return 0
    if name in _REDUCTIONS:
        return _size(eqn.invars[0])
    if name in _SCATTERS:
        return _size(eqn.invars[2])
    if name in _WINDOWS:
        return _size(eqn.outvars[0]) * math.prod(eqn.params["window_dimensions"])
    if name in _WINDOW_GRADIENTS:
        source = eqn.invars[_WINDOW_GRADIENTS[name]]
        return _size(source) * math.prod(eqn.params["window_dimensions"])
    return sum(_size(var) for var in eqn.outvars)


def _size(var: Var | Literal) -> int:
    return math.prod(matmul.shape(var))
