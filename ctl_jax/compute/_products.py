"""Multiply-adds of the primitives that are matrix products under another name.

Fused attention, sparse, ragged, scaled and symmetric products. As everywhere here, what is masked
or padded counts as if it were not, so that a program costs the same however its products are
written. The tables know primitives by the names that jax 0.10 and 0.11 give them.
"""

import math
from collections.abc import Callable

from jax.extend.core import JaxprEqn

from ctl_jax.compute._matmul import dot_multiply_adds
from ctl_jax.jaxprs import shape_of


def _attention_sizes(eqn: JaxprEqn) -> tuple[int, int, int]:
    """Scores, channels of a key, channels of a value; a score is one query with one key."""
    query, key, value = (shape_of(var) for var in eqn.invars[:3])
    time, heads = (1, 2) if eqn.params["layout"] == 0 else (2, 1)  # BTNH, or BNTH
    keys = key[time]
    page_table = shape_of(eqn.invars[8]) if "fp8" not in eqn.primitive.name else ()
    if len(page_table) == 4:  # [batch, 1, blocks, 1]: keys come in blocks that examples share
        keys *= page_table[2]
    return query[0] * query[heads] * query[time] * keys, query[3], value[3]


def _attention(eqn: JaxprEqn) -> int:
    """The scores, and the mean of the values: 2 products, as where XLA has it unfused."""
    scores, of_key, of_value = _attention_sizes(eqn)
    return scores * (of_key + of_value)


def _attention_gradient(eqn: JaxprEqn) -> int:
    """4 products, and 1 for the scores: the kernel computes them again, as with remat."""
    scores, of_key, of_value = _attention_sizes(eqn)
    return scores * (3 * of_key + 2 * of_value)


def _sparse_dot(eqn: JaxprEqn) -> int:
    """Each stored element with every index of the dense operand that is neither summed nor batch.

    Data is [*batch, stored, *dense]; batch axes of size 1 in it may stand for more.
    """
    data, indices, rhs = shape_of(eqn.invars[0]), shape_of(eqn.invars[1]), shape_of(eqn.invars[-1])
    batch = len(indices) - (2 if eqn.primitive.name.startswith("bcoo") else 1)
    (_, contracted), (_, batched) = eqn.params["dimension_numbers"]
    free = [size for i, size in enumerate(rhs) if i not in (*contracted, *batched)]
    stored = (*eqn.params["lhs_spinfo"].shape[:batch], *data[batch:])
    return math.prod(stored) * math.prod(free)


def _sparse_sparse_dot(eqn: JaxprEqn) -> int:
    """All pairs of stored elements; which of them meet is known at run time only."""
    pairs = 1
    for i, side in ((0, "lhs"), (2, "rhs")):
        data = shape_of(eqn.invars[i])
        pairs *= math.prod(eqn.params[f"{side}_spinfo"].shape[: len(data) - 1]) * data[-1]
    _, (batched, _) = eqn.params["dimension_numbers"]
    return pairs // math.prod(eqn.params["lhs_spinfo"].shape[i] for i in batched)


def _sampled_dot(eqn: JaxprEqn) -> int:
    """A product of dense arrays of which only some elements are wanted."""
    (contracted, _), _ = eqn.params["dimension_numbers"]
    left = shape_of(eqn.invars[0])
    return math.prod(shape_of(eqn.outvars[0])) * math.prod(left[i] for i in contracted)


def _sparse_matrix(eqn: JaxprEqn) -> int:
    """A matrix of stored elements with a vector, or with each column of a matrix."""
    return math.prod(shape_of(eqn.invars[0])) * math.prod(shape_of(eqn.invars[-1])[1:])


def _ragged_dot(eqn: JaxprEqn) -> int:
    """Every row of the left operand with the matrix of its one group."""
    numbers = eqn.params["ragged_dot_dimension_numbers"]
    (contracted, _), _ = numbers.dot_dimension_numbers
    left, out = shape_of(eqn.invars[0]), shape_of(eqn.outvars[0])
    total = math.prod(out) * math.prod(left[i] for i in contracted)
    if set(numbers.lhs_ragged_dimensions) & set(contracted):  # the groups share out the sum
        total //= out[0]
    return total


def _scaled_matmul(eqn: JaxprEqn) -> int:
    """[batch, m, k] with [batch, n, k]."""
    return math.prod(shape_of(eqn.outvars[0])) * shape_of(eqn.invars[0])[-1]


def _symmetric_product(eqn: JaxprEqn) -> int:
    """A A^T, whose halves are the same; counted whole."""
    return math.prod(shape_of(eqn.outvars[0])) * shape_of(eqn.invars[0])[-1]


# By the primitive's name.
MULTIPLY_ADDS: dict[str, Callable[[JaxprEqn], int]] = {
    "bcoo_dot_general": _sparse_dot,
    "bcoo_dot_general_sampled": _sampled_dot,
    "bcoo_spdot_general": _sparse_sparse_dot,
    "bcsr_dot_general": _sparse_dot,
    "coo_matmat": _sparse_matrix,
    "coo_matvec": _sparse_matrix,
    "coo_spmm": _sparse_matrix,
    "coo_spmv": _sparse_matrix,
    "csr_matmat": _sparse_matrix,
    "csr_matvec": _sparse_matrix,
    "csr_spmm": _sparse_matrix,
    "csr_spmv": _sparse_matrix,
    "dot_general": dot_multiply_adds,
    "ragged_dot_general": _ragged_dot,
    "scaled_dot": dot_multiply_adds,
    "scaled_matmul": _scaled_matmul,
    "scaled_matmul_wrapper": _scaled_matmul,
    "symmetric_product": _symmetric_product,
    **{
        f"dot_product_attention{form}_{way}{wrapper}": rule
        for form in ("", "_fp8")
        for way, rule in (("fwd", _attention), ("bwd", _attention_gradient))
        for wrapper in ("", "_wrapper")
    },
}
