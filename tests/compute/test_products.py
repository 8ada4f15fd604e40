"""Products by another name: each against the same product written as a `dot_general`."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax._src.cudnn import fused_attention_stablehlo as cudnn
from jax.experimental import sparse

from ctl_jax import compute


def floats(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


@pytest.fixture
def fused(monkeypatch):
    """cuDNN's attention can be traced where there is no GPU."""
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda *args, **kwargs: 91300)
    monkeypatch.setattr(cudnn, "check_compute_capability", lambda *args, **kwargs: True)
    monkeypatch.setattr(cudnn, "is_cuda_compute_capability_equal", lambda *args, **kwargs: False)


ATTENTIONS = {
    "self": ((2, 64, 4, 32), (2, 64, 4, 32), {}),
    "cross": ((3, 64, 4, 32), (3, 128, 4, 32), {}),
    "fewer key heads": ((2, 64, 8, 16), (2, 64, 2, 16), {}),
    "causal": ((2, 64, 4, 32), (2, 64, 4, 32), {"is_causal": True}),
    "no batch": ((64, 4, 32), (64, 4, 32), {}),
}


def attend(q, k, v, implementation, options):
    return jax.nn.dot_product_attention(q, k, v, implementation=implementation, **options)


@pytest.mark.parametrize("name", ATTENTIONS)
@pytest.mark.usefixtures("fused")
def test_attention_costs_the_same_fused(name):
    query, key, options = ATTENTIONS[name]
    q, k = floats(*query, dtype=jnp.bfloat16), floats(*key, dtype=jnp.bfloat16)
    xla, fused = (
        compute.flops(functools.partial(attend, implementation=how, options=options), q, k, k)
        for how in ("xla", "cudnn")
    )
    assert fused == xla == 4 * math.prod(query) * key[-3]


@pytest.mark.usefixtures("fused")
def test_attention_backwards_computes_the_scores_again():
    q = floats(2, 64, 4, 32, dtype=jnp.bfloat16)

    def loss(q, k, v, how):
        return jnp.sum(attend(q, k, v, how, {}).astype(jnp.float32))

    product = 2 * 2 * 4 * 64 * 64 * 32
    grads = {
        how: compute.flops(jax.grad(functools.partial(loss, how=how), argnums=(0, 1, 2)), q, q, q)
        for how in ("xla", "cudnn")
    }
    assert grads == {"xla": 6 * product, "cudnn": 7 * product}


@pytest.mark.parametrize("layout", ["BTNH", "BNTH"])
@pytest.mark.parametrize(("batch", "of_value"), [((), 64), ((5,), 32)])
@pytest.mark.usefixtures("fused")
def test_attention_layouts_vmap_and_other_value_widths(layout, batch, of_value):
    def operand(time, channels):
        sizes = {"B": 2, "T": time, "N": 4, "H": channels}
        return floats(*batch, *[sizes[axis] for axis in layout], dtype=jnp.bfloat16)

    fn = functools.partial(cudnn.dot_product_attention, qkv_layout=layout)
    got = compute.flops(
        jax.vmap(fn) if batch else fn, operand(64, 32), operand(128, 32), operand(128, of_value)
    )
    assert got == 2 * math.prod(batch) * 2 * 4 * 64 * 128 * (32 + of_value)


@pytest.mark.usefixtures("fused")
def test_paged_attention_reads_blocks_of_keys():
    q, blocks = floats(2, 64, 4, 32, dtype=jnp.bfloat16), floats(6, 16, 4, 32, dtype=jnp.bfloat16)
    table = jax.ShapeDtypeStruct((2, 1, 3, 1), jnp.int32)
    lengths = jax.ShapeDtypeStruct((2,), jnp.int32)
    args = (q, blocks, blocks, lengths, lengths, table, table)
    assert compute.flops(cudnn.paged_attention, *args) == 4 * 2 * 4 * 64 * (3 * 16) * 32


@pytest.mark.usefixtures("fused")
def test_attention_in_fp8():
    q = floats(2, 64, 4, 32, dtype=jnp.float8_e4m3fn)
    scale = floats(1, 1, 1, 1)
    scales = dict.fromkeys(cudnn.fp8_params_keys, scale)
    fn = functools.partial(cudnn.dot_product_attention, use_fp8=True)
    got = compute.flops(lambda q, scales: fn(q, q, q, fp8_params=scales), q, scales)
    assert got == 4 * 2 * 4 * 64 * 64 * 32


def bcoo(shape, nse, **options):
    return sparse.random_bcoo(
        jax.random.key(0), shape, nse=nse, dtype=jnp.float32, indices_dtype=jnp.int32, **options
    )


@functools.cache
def sparse_products():
    """Name -> (function, argument, multiply-adds)."""
    m = bcoo((6, 8), 10)
    batched = bcoo((3, 6, 8), 5, n_batch=1)
    blocks = bcoo((6, 8, 2), 7, n_dense=1)
    eye = np.eye(6, 8, dtype=np.float32)
    bcsr, coo, csr = (of.fromdense(eye) for of in (sparse.BCSR, sparse.COO, sparse.CSR))
    x = floats(8, 7)

    def weigh(data, x):
        return jnp.sum(sparse.BCOO((data, m.indices), shape=m.shape) @ x)

    return {
        "BCOO matrix": (lambda x: m @ x, x, 10 * 7),
        "BCOO vector": (lambda x: m @ x, floats(8), 10),
        "dense BCOO": (lambda x: x @ m, floats(4, 6), 10 * 4),
        "transposed": (lambda x: m.T @ x, floats(6, 7), 10 * 7),
        "jit": (jax.jit(lambda x: m @ x), x, 10 * 7),
        "vmap": (jax.vmap(lambda x: m @ x), floats(5, 8, 7), 5 * 10 * 7),
        "batch of matrices": (
            lambda x: sparse.bcoo_dot_general(
                batched, x, dimension_numbers=(([2], [1]), ([0], [0]))
            ),
            floats(3, 8, 7),
            3 * 5 * 7,
        ),
        "batch with one": (
            lambda x: sparse.bcoo_dot_general(batched, x, dimension_numbers=(([2], [0]), ([], []))),
            x,
            3 * 5 * 7,
        ),
        "dense blocks": (
            lambda x: sparse.bcoo_dot_general(blocks, x, dimension_numbers=(([1], [0]), ([], []))),
            x,
            7 * 2 * 7,
        ),
        "two sparse": (lambda data: (sparse.BCOO((data, m.indices), shape=m.shape) @ m.T).todense(),
                       floats(10), 10 * 10),
        "gradient of the dense": (jax.grad(lambda x: weigh(m.data, x)), x, 2 * 10 * 7),
        "gradient of the data": (
            lambda data: jax.grad(weigh)(data, jnp.ones((8, 7))), floats(10), 2 * 10 * 7
        ),
        "BCSR": (lambda x: bcsr @ x, x, 6 * 7),
        "COO matrix": (lambda x: coo @ x, x, 6 * 7),
        "COO vector": (lambda x: coo @ x, floats(8), 6),
        "CSR matrix": (lambda x: csr @ x, x, 6 * 7),
        "CSR vector": (lambda x: csr @ x, floats(8), 6),
        "sparsify": (lambda x: sparse.sparsify(jnp.dot)(m, x), x, 10 * 7),
    }  # fmt: skip


@pytest.mark.parametrize("name", sparse_products())
def test_sparse_products_cost_what_is_stored(name):
    fn, x, multiply_adds = sparse_products()[name]
    assert compute.flops(fn, x) == 2 * multiply_adds


@pytest.mark.parametrize(
    ("left", "right", "numbers", "multiply_adds"),
    [
        ((9, 5), (3, 5, 4), ((([1], [1]), ([], [])), [0], [0]), 9 * 5 * 4),
        ((9, 5), (5, 4), ((([1], [0]), ([], [])), [1], []), 9 * 5 * 4),
        ((9, 6, 5), (9, 5, 4), ((([2], [1]), ([0], [0])), [0], []), 9 * 6 * 5 * 4),
        ((2, 9, 5), (3, 2, 5, 4), ((([2], [2]), ([0], [1])), [1], [0]), 2 * 9 * 5 * 4),
    ],
    ids=["rows", "sums", "batches", "rows in batches"],
)
def test_ragged_products(left, right, numbers, multiply_adds):
    dims, lhs_ragged, rhs_group = numbers
    fn = functools.partial(
        lax.ragged_dot_general,
        ragged_dot_dimension_numbers=lax.RaggedDotDimensionNumbers(dims, lhs_ragged, rhs_group),
    )
    groups = jax.ShapeDtypeStruct((3,), jnp.int32)
    assert compute.flops(fn, floats(*left), floats(*right), groups) == 2 * multiply_adds


def test_gradients_of_a_ragged_product():
    groups = jax.ShapeDtypeStruct((3,), jnp.int32)

    def loss(x, y, groups):
        return jnp.sum(lax.ragged_dot(x, y, groups))

    got = compute.flops(jax.grad(loss, argnums=(0, 1)), floats(9, 5), floats(3, 5, 4), groups)
    assert got == 3 * 2 * 9 * 5 * 4


@pytest.mark.parametrize("batch", [(), (3,), (3, 2)])
def test_symmetric_product(batch):
    fn = functools.partial(lax.linalg.symmetric_product, alpha=2.0, beta=0.5)
    got = compute.flops(fn, floats(*batch, 8, 16), floats(*batch, 8, 8))
    assert got == compute.flops(lambda a: a @ a.mT, floats(*batch, 8, 16)) > 0


def test_scaled_products():
    lhs, rhs = floats(2, 8, 64), floats(2, 16, 64)
    scales = floats(2, 8, 4), floats(2, 16, 4)
    assert compute.flops(jax.nn.scaled_matmul, lhs, rhs, *scales) == 2 * 2 * 8 * 16 * 64
    fn = functools.partial(lax.scaled_dot, dimension_numbers=(((2,), (2,)), ((0,), (0,))))
    operands = [floats(*x.shape, dtype=jnp.bfloat16) for x in (lhs, rhs)]
    of_scales = [floats(*x.shape, dtype=jnp.float8_e8m0fnu) for x in scales]
    got = compute.flops(
        lambda x, y, a, b: fn(x, y, lhs_scale=a, rhs_scale=b), *operands, *of_scales
    )
    assert got == 2 * 2 * 8 * 16 * 64


@st.composite
def einsums(draw):
    """A sum over two operands with axes in any order, and the operands' shapes."""
    sizes = {axis: draw(st.integers(1, 5)) for axis in "abcdefg"}
    batch, left, right, summed = "ab", "cd", "e", "fg"

    def some(axes):
        return "".join(axis for axis in axes if draw(st.booleans()))

    batch, left, right, summed = some(batch), some(left), some(right), some(summed)
    lhs = "".join(draw(st.permutations(batch + left + summed)))
    rhs = "".join(draw(st.permutations(batch + right + summed)))
    out = "".join(draw(st.permutations(batch + left + right)))
    shapes = [floats(*[sizes[axis] for axis in axes]) for axes in (lhs, rhs)]
    return f"{lhs},{rhs}->{out}", shapes


@settings(max_examples=50)
@given(einsums())
def test_products_cost_what_xla_says(case):
    spec, shapes = case

    def fn(x, y):
        return jnp.einsum(spec, x, y, _dot_general=lax.dot_general)

    counted = compute.count(fn, *shapes)
    xla = jax.jit(fn).lower(*shapes).cost_analysis()["flops"]
    assert counted.flops + counted.elementwise == xla
