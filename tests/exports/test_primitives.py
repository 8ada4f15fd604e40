"""What networks compute beside layers becomes operations of the same values."""

import dataclasses
import json

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ctl_jax.errors import UserError
from ctl_jax.exports import _primitives  # noqa: F401  (fills the table)
from ctl_jax.exports._graph import Builder


def graph_of(function):
    """The graph of a function of images [B, 4, 6, 3]."""
    (batch,) = jax.export.symbolic_shape("batch")
    program = jax.make_jaxpr(function)(jax.ShapeDtypeStruct((batch, 4, 6, 3), jnp.float32))
    builder = Builder()
    (output,) = builder.run(program.jaxpr, program.consts, ["images"])
    graph = builder.graph(output, ("batch",), set())
    constants = {name: [v.dtype.name, v.tolist()] for name, v in graph.constants.items()}
    return json.dumps({**dataclasses.asdict(graph), "constants": constants, "nodes": graph.nodes})


def scanned(x):
    weights = jnp.arange(6.0).reshape(3, 2)
    carry, rows = lax.scan(lambda c, w: (c * w[0] + w[1], c), x, weights, reverse=True)
    return carry + rows.sum(0)


def branched(x):
    a, b = jnp.split(x, [1], axis=-1)
    return jnp.where(a > 0.5, jnp.clip(b, 0.2, 0.7), b**3)


FUNCTIONS = {
    "activations": lambda x: jax.nn.gelu(x) + jax.nn.silu(x) + jnp.tanh(x) + jax.nn.hard_swish(x),
    "softmax": lambda x: jax.nn.softmax(x * 9) - jax.nn.log_softmax(x),
    "norms": lambda x: lax.rsqrt(jnp.var(x, -1, keepdims=True) + 1) * jnp.sqrt(jnp.abs(x)),
    "branches": branched,
    "scan": scanned,
    "picked": lambda x: x[:, 2] + x[:, -1, ::1] - x[:, 1:3].max((1,)),
    "strided": lambda x: lax.slice_in_dim(x, 1, None, 3, axis=2).min((1, 2)),
    "every_other": lambda x: x[:, ::2, 1::2] + x[..., ::2].sum(-1, keepdims=True)[:, 1:3, 3:6],
    "turned": lambda x: x[:, ::-1] - x[..., ::-1],
    "curves": lambda x: jax.nn.elu(x - 0.5) + jax.nn.softplus(x) + jnp.sin(x) * jnp.cos(x),
    "repeated": lambda x: jnp.concatenate([x, jnp.broadcast_to(x[:, :1], x.shape)], 1),
    "products": lambda x: jnp.einsum("bhwc,bhvc->bhwv", x, x) @ jnp.ones((6, 2)),
    "transposed_conv": lambda x: lax.conv_transpose(
        x, jnp.arange(54.0).reshape(3, 3, 3, 2), (2, 2), "SAME", dimension_numbers=(
            "NHWC", "HWIO", "NHWC",
        ),
    ),
    "odd_conv": lambda x: lax.conv_general_dilated(
        x, jnp.arange(36.0).reshape(2, 2, 3, 3), (2, 1), [(0, 1), (1, 2)], None, (2, 1),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    ),
    "pools": lambda x: lax.reduce_window(
        x, -jnp.inf, lax.max, (1, 2, 3, 1), (1, 2, 1, 1), [(0, 0), (1, 0), (0, 1), (0, 0)]
    ),
    "checkpointed": jax.checkpoint(lambda x: jnp.exp(-x) * 2),
    "nothing_but_constants": lambda x: x * (jnp.cumsum(jnp.ones((1, 1, 1, 3)), 3) + 1),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_same_values(name, compute):
    function = FUNCTIONS[name]
    x = np.random.default_rng(0).uniform(0, 1, (2, 4, 6, 3)).astype(np.float32)
    np.testing.assert_allclose(compute(graph_of(function), {}, x), function(x), 1e-5, 1e-5)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x: jnp.sort(x), "computes 'sort'.* expected --to=stablehlo"),
        (lambda x: jnp.fft.fft(x).real, "computes 'fft'"),
        (lambda x: x[: x.shape[0] // 2], "takes some of a batch's images"),
        (lambda x: jnp.take(jnp.arange(9.0), x.astype(int)), "looks values up by indices"),
        (lambda x: x[:, jnp.array([0, 2, 3])], "looks values up by indices"),
        (lambda x: lax.pad(x, 0.0, [(0, 0, 0), (0, 0, 1), (0, 0, 0), (0, 0, 0)]), "pads between"),
    ],
)
def test_what_there_is_no_form_for(function, said):
    with pytest.raises(UserError, match=said):
        graph_of(function)
