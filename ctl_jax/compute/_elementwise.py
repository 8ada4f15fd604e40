"""Element-wise work of one equation: what is neither a convolution nor a matrix product.

One operation per output element, whatever the function: an addition counts as much as an
exponential, since both cost about one pass over memory. A reduction counts one per element it
reads, a sliding window one per element of each window, moving data nothing.

The tables are closed: a primitive that is in none of them has no number here.
"""

import math
from collections.abc import Callable

from jax.extend.core import JaxprEqn, Literal, Var

from ctl_jax.jaxprs import shape_of

# Data that moves, is cast, named, placed or made of nothing; and what only the compiler reads.
# fmt: off
_MOVEMENT = frozenset([
    "after_all", "all_gather", "all_gather_done", "all_gather_invariant", "all_gather_reduced",
    "all_gather_reduced_start", "all_gather_start", "all_to_all", "all_to_all_done",
    "all_to_all_start", "assert_consumed_value", "axis_index", "bitcast_convert_type", "box_get",
    "box_set", "broadcast_in_dim", "broadcast_to", "check", "complex", "concatenate", "consume",
    "convert_element_type", "copy", "create_linear", "create_token", "dce_sink", "debug_callback",
    "debug_print", "device_put", "dim_as_value", "dimension_size", "dynamic_slice",
    "dynamic_update_slice", "empty", "empty2", "empty_ref", "free_ref", "freeze", "from_edtype",
    "gather", "get", "global_array_to_host_local_array", "host_local_array_to_global_array", "imag",
    "inspect_sharding", "iota", "iota_2x32_shape", "layout_constraint", "log_extend", "log_read",
    "name", "new_box", "new_log", "new_ref", "optimization_barrier", "pad", "pbroadcast",
    "pbroadcast_done", "pbroadcast_start", "pin", "platform_index", "ppermute", "ppermute_done",
    "ppermute_start", "precv", "preduced", "psend", "psum_done", "pvary", "ragged_all_to_all",
    "random_clone", "random_unwrap", "random_wrap", "real", "reduce_scatter_done",
    "reduced_vary_cast_p", "relayout", "reshape", "reshard", "rev", "scatter", "shape_assertion",
    "shard_alike", "sharding_constraint", "slice", "split", "squeeze", "stack", "stage",
    "stop_gradient", "swap", "tie", "tile", "to_edtype", "transpose", "unpin", "unreachable",
    "unstack", "vary_unreduced_cast_p", "with_memory_space_constraint", "xla_metadata_value",
    "zeros_like",
    # jax.experimental.sparse
    "bcoo_extract", "bcoo_fromdense", "bcoo_transpose", "bcsr_extract", "bcsr_fromdense",
    "coo_fromdense", "csr_fromdense",
    # Equinox
    "announce_jaxpr", "nonbatchable", "nondifferentiable_backward", "nontraceable",
])

_PER_OUTPUT = frozenset([
    "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh",
    "bessel_i0e", "bessel_i1e", "cbrt", "ceil", "clamp", "clz", "conj", "cos", "cosh",
    "cumlogsumexp", "cummax", "cummin", "cumprod", "cumsum", "digamma", "div", "eq", "eq_to", "erf",
    "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt", "igamma", "igamma_grad_a",
    "igammac", "integer_pow", "is_finite", "le", "le_to", "lgamma", "log", "log1p", "log2",
    "logistic", "lt", "lt_to", "lu_pivots_to_permutation", "max", "min", "mul", "mulhi", "ne",
    "neg", "nextafter", "not", "one_minus_square", "or", "philox2x32", "philox4x32", "pmax", "pmin",
    "polygamma", "population_count", "pow", "psum", "psum_invariant", "psum_invariant_start",
    "psum_start", "random_bits", "random_fold_in", "random_gamma", "random_seed", "random_split",
    "reduce_precision", "reduce_scatter", "reduce_scatter_start", "regularized_incomplete_beta",
    "rem", "rng_bit_generator", "rng_uniform", "round", "rsqrt", "select_if_vmap", "select_n",
    "shift_left", "shift_right_arithmetic", "shift_right_logical", "sign", "sin", "sinh", "sqrt",
    "square", "sub", "tan", "tanh", "threefry2x32", "threefry4x32", "unreduced_pmax",
    "unreduced_pmin", "unreduced_psum", "unreduced_psum_start", "unreduced_reduce_scatter",
    "unreduced_reduce_scatter_start", "xor", "zeta",
])

# One per element of the first operand.
_REDUCTIONS = frozenset([
    "approx_top_k", "argmax", "argmin", "bcoo_sort_indices", "bcoo_sum_duplicates", "bcoo_todense",
    "bcsr_todense", "coo_todense", "csr_todense", "reduce", "reduce_and", "reduce_max",
    "reduce_min", "reduce_or", "reduce_prod", "reduce_sum", "reduce_xor", "sort", "todense",
    "top_k", "unvmap_all", "unvmap_any", "unvmap_max",
])

# One per element that is scattered, not per element of the array scattered into: which operand.
_SCATTERS = {
    "accum_grad_in_ref": 1, "addupdate": 1, "scatter-add": 2, "scatter-max": 2, "scatter-min": 2,
    "scatter-mul": 2, "scatter-sub": 2,
}

_WINDOWS = frozenset([
    "reduce_window", "reduce_window_max", "reduce_window_min", "reduce_window_sum",
    "select_and_gather_add",
])
# fmt: on

Operations = Callable[[JaxprEqn], int]


def _size(var: Var | Literal) -> int:
    return math.prod(shape_of(var))


def _per_operand(i: int) -> Operations:
    return lambda eqn: _size(eqn.invars[i])


def _per_window(positions: Callable[[JaxprEqn], Var | Literal]) -> Operations:
    return lambda eqn: _size(positions(eqn)) * math.prod(eqn.params["window_dimensions"])


def per_output(eqn: JaxprEqn) -> int:
    """One operation for each element that the equation makes."""
    return sum(map(_size, eqn.outvars))


# The operations of an equation, by the name of its primitive. Some hold a jaxpr, which combines two
# numbers and is no program to count.
OPERATIONS: dict[str, Operations] = {
    **dict.fromkeys(_MOVEMENT, lambda eqn: 0),
    **dict.fromkeys(_PER_OUTPUT, per_output),
    **dict.fromkeys(_REDUCTIONS, _per_operand(0)),
    **{name: _per_operand(i) for name, i in _SCATTERS.items()},
    **dict.fromkeys(_WINDOWS, _per_window(lambda eqn: eqn.outvars[0])),
    # Maximum pooling backwards: each cotangent looks through its window.
    "select_and_scatter": _per_window(lambda eqn: eqn.invars[1]),
    "select_and_scatter_add": _per_window(lambda eqn: eqn.invars[0]),
}
