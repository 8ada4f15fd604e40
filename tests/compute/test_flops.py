"""Whole programs: nesting, loops, training steps; nothing runs and nothing is compiled."""

import doctest
import functools
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.custom_batching import custom_vmap
from jax.custom_derivatives import linear_call
from jax.experimental import compute_on
from jax.experimental import pallas as pl
from jax.experimental.custom_partitioning import custom_partitioning
from jax.extend.core import Primitive
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from ctl_jax import compute, models
from ctl_jax.compute import _flops as counter
from ctl_jax.errors import UserError

M = jax.ShapeDtypeStruct((4, 4), jnp.float32)
PRODUCT = 2 * 4**3


def square(x):
    return x @ x


@jax.custom_jvp
def custom_jvp(x):
    return square(x)


custom_jvp.defjvp(lambda primals, tangents: (square(*primals), primals[0] @ tangents[0]))


@jax.custom_vjp
def custom_vjp(x):
    return square(x)


custom_vjp.defvjp(lambda x: (square(x), x), lambda x, g: (g @ x @ x @ x,))


@functools.partial(jax.custom_vjp, nondiff_argnums=())
def remade(x):
    return square(x)


remade.defvjp(lambda x: (square(x), x), lambda x, g: (g @ x,), optimize_remat=True)


@custom_vmap
def custom_batch(x):
    return square(x)


@custom_batch.def_vmap
def _(axis_size, in_batched, xs):
    return jax.vmap(lambda x: square(square(x)))(xs), True


@custom_partitioning
def partitioned(x):
    return square(x)


partitioned.def_partition(
    partition=lambda mesh, args, result: (mesh, square, None, ()), sharding_rule="i j -> i j"
)


on_host = getattr(compute_on, "compute_on2", compute_on.compute_on)(
    square, compute_type="device_host", out_memory_spaces=jax.memory.Space.Device
)


def through_a_reference(x):
    ref = jax.new_ref(x)
    ref[...] = square(x)
    return ref[...]


PROGRAMS = {
    "plain": (square, 1),
    "jit": (jax.jit(square), 1),
    "jit in jit": (jax.jit(lambda x: jax.jit(square)(square(x))), 2),
    "remat": (jax.checkpoint(square), 1),
    "custom_jvp": (custom_jvp, 1),
    "custom_vjp": (custom_vjp, 1),
    "custom_vjp, gradient": (lambda x: jax.vjp(custom_vjp, x)[1](x), 1 + 3),
    "scan": (lambda x: lax.scan(lambda c, _: (square(c), None), x, length=7)[0], 7),
    "scan in scan": (
        lambda x: lax.scan(
            lambda c, _: (lax.fori_loop(0, 3, lambda i, y: square(y), c), None), x, length=7
        )[0],
        21,
    ),
    "map": (lambda x: lax.map(lambda row: row @ x, x), 1),
    "fori_loop": (lambda x: lax.fori_loop(2, 7, lambda i, y: square(y), x), 5),
    "cond": (lambda x: lax.cond(x[0, 0] > 0, square, lambda y: square(square(y)), x), 2),
    "switch": (lambda x: lax.switch(1, [square, lambda y: y, lambda y: y + y], x), 1),
    "vmap": (lambda x: jax.vmap(lambda row: row @ x)(x), 1),
    "jvp": (lambda x: jax.jvp(square, (x,), (x,)), 3),
    "two outputs": (lambda x: {"a": square(x), "b": (square(x), 1.0)}, 2),
    "optimised remat, gradient": (lambda x: jax.vjp(remade, x)[1](x), 1 + 1),
    "custom_vmap": (lambda x: custom_batch(x), 1),
    "custom_vmap, batched": (lambda x: jax.vmap(custom_batch)(jnp.stack([x, x])), 2 * 2),
    "custom_partitioning": (lambda x: partitioned(x), 1),
    "linear_call": (
        lambda x: linear_call(lambda r, y: r @ y, lambda r, y: r.T @ (r.T @ y), x, x),
        1,
    ),
    "linear_call, transposed": (
        lambda x: jax.vjp(
            lambda y: linear_call(lambda r, y: r @ y, lambda r, y: r.T @ (r.T @ y), x, y), x
        )[1](x),
        1 + 2,
    ),
    "custom_linear_solve": (
        lambda x: lax.custom_linear_solve(lambda y: x @ y, x, lambda _, b: x @ (x @ b)),
        2,
    ),
    "composite": (lax.composite(square, name="ctl.square"), 1),
    "compute_on": (on_host, 1),
    "reference": (through_a_reference, 1),
    "platform_dependent": (
        lambda x: lax.platform_dependent(x, cpu=square, default=lambda x: square(square(x))),
        2,
    ),
    "no product": (lambda x: jnp.sin(x) + x, 0),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_nested_programs(name):
    fn, products = PROGRAMS[name]
    if name == "switch":
        fn = lambda x, i: lax.switch(i, [square, lambda y: y, lambda y: y + y], x)  # noqa: E731
        assert compute.flops(fn, M, 1) == PRODUCT
    else:
        assert compute.flops(fn, M) == products * PRODUCT


def test_gradient_through_scan():
    def loss(x):
        return jnp.sum(lax.scan(lambda c, _: (jnp.sin(c @ x), None), x, length=7)[0])

    assert compute.flops(jax.value_and_grad(loss), M) == 7 * 3 * PRODUCT


def conv_transpose(x, k):
    return lax.conv_transpose(x, k, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@pytest.mark.parametrize(
    ("wrap", "forwards"),
    [(lambda fn: fn, 1), (jax.jit, 1), (jax.checkpoint, 2), (lambda fn: jax.jit(jax.remat(fn)), 2)],
    ids=["plain", "jit", "remat", "jit of remat"],
)
def test_gradients_of_nested_transposed_convolutions(wrap, forwards):
    """Equations inside jit or remat do not say themselves that they are gradients."""
    x = jax.ShapeDtypeStruct((2, 5, 5, 3), jnp.float32)
    k = jax.ShapeDtypeStruct((3, 3, 3, 4), jnp.float32)
    inner = wrap(lambda x, k: jnp.sin(conv_transpose(jnp.sin(x), k)))

    def loss(x, k):
        return jnp.sum(inner(x, k))

    once = compute.flops(conv_transpose, x, k)
    assert once == 2 * 2 * 25 * 9 * 3 * 4
    assert compute.flops(jax.grad(loss, argnums=(0, 1)), x, k) == (forwards + 2) * once


def test_while_loop_with_flops_is_refused():
    def fn(x):
        return lax.while_loop(lambda y: y[0, 0] < 3, square, x)

    with pytest.raises(UserError, match="while loop holds 128 FLOPs a turn"):
        compute.flops(fn, M)
    with pytest.raises(UserError, match="Python ints"):
        compute.flops(lambda x, n: lax.fori_loop(0, n, lambda i, y: square(y), x), M, 3)


def test_while_loop_without_flops_counts_one_turn():
    def fn(x):
        return lax.while_loop(lambda y: y[0, 0] < 3, lambda y: y + y, x)

    assert compute.count(fn, M) == compute.Count(0, 17, {"add": 16, "lt": 1})


@pytest.mark.parametrize("fn", [jnp.linalg.cholesky, jnp.linalg.svd, jnp.fft.fft])
def test_hidden_algorithms_are_refused(fn):
    with pytest.raises(UserError, match="cannot count the FLOPs of primitive"):
        compute.flops(fn, M)


def test_callbacks_are_refused():
    with pytest.raises(UserError, match="pure_callback"):
        compute.flops(lambda x: jax.pure_callback(np.sin, M, x), M)


@pytest.fixture
def primitives(monkeypatch):
    """Makes primitives that map [4, 4] to [4, 4]; what is registered is forgotten afterwards."""
    monkeypatch.setattr(counter, "_REGISTERED", {})

    def make(name):
        primitive = Primitive(name)
        primitive.def_abstract_eval(lambda x: x)
        return primitive

    return make


def test_primitives_that_are_in_no_table_are_refused(primitives):
    mine = primitives("mine")
    for fn in (mine.bind, jax.jit(lambda x: jnp.sin(mine.bind(x)))):
        with pytest.raises(UserError, match=r"^cannot count .* primitive 'mine': .*register_flops"):
            compute.flops(fn, M)


@pytest.mark.parametrize(
    "name", ["square", "tanh", "dot_general", "split", "jit", "symmetric_product"]
)
def test_a_primitive_that_borrows_a_name_of_jax_is_refused(name, primitives):
    with pytest.raises(UserError, match=f"primitive '{name}': .* expected a name of its own"):
        compute.flops(primitives(name).bind, M)


def test_registered_primitives(primitives):
    product, relu = primitives("my_product"), primitives("my_relu")

    def flops_of(eqn):
        return 2 * eqn.invars[0].aval.size * eqn.outvars[0].aval.shape[1]

    assert compute.register_flops("my_product", flops_of) is flops_of

    @compute.register_flops("my_relu")
    def _(eqn):
        return 0

    def fn(x):
        return lax.scan(lambda c, _: (relu.bind(product.bind(c @ x)), None), x, length=3)[0]

    assert compute.count(fn, M) == compute.Count(
        6 * PRODUCT, 48, {"dot_general": 3 * PRODUCT, "my_product": 3 * PRODUCT, "my_relu": 48}
    )
    compute.register_flops("my_product", lambda eqn: np.int64(5))
    assert compute.flops(product.bind, M) == 5


@pytest.mark.parametrize("number", [-1, 1.5, None, True, "4", np.ones(2)])
def test_registered_functions_that_give_no_number(number, primitives):
    compute.register_flops("mine", lambda eqn: number)
    with pytest.raises(UserError, match=r"primitive 'mine' gave .* expected an int of at least 0"):
        compute.flops(primitives("mine").bind, M)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dot_general", lambda eqn: 0), "'dot_general' are counted already"),
        (("scan", lambda eqn: 0), "'scan' are counted already"),
        ((square, lambda eqn: 0), "expected a primitive's name and a function"),
        (("mine", 5), "expected a primitive's name and a function"),
    ],
)
def test_what_cannot_be_registered(arguments, message):
    with pytest.raises(UserError, match=message):
        compute.register_flops(*arguments)


@pytest.mark.usefixtures("primitives")
def test_the_documented_example_counts_a_kernel():
    def kernel(x, out):
        out[...] = x[...] @ x[...]

    def fn(x):
        estimate = pl.CostEstimate(flops=128, transcendentals=0, bytes_accessed=0)
        return pl.pallas_call(kernel, out_shape=M, cost_estimate=estimate)(x)

    with pytest.raises(UserError, match="'pallas_call'"):
        compute.flops(fn, M)
    for example in doctest.DocTestParser().get_examples(compute.register_flops.__doc__):
        exec(example.source, {"register_flops": compute.register_flops})
    assert compute.flops(fn, M) == 128


# Prints the names of all primitives that JAX defines outside of kernels (Pallas and Mosaic), and of
# those that the counter would take for another's. A process of its own: it imports all of JAX.
JAXS_PRIMITIVES = """
import importlib, json, pkgutil, sys
import jax, jax.experimental
from jax.extend.core import Primitive
counter = importlib.import_module("ctl_jax.compute._flops")

def is_other(name):
    return any(word in name for word in ("pallas", "mosaic", "triton", "test"))

for package in (jax._src, jax.experimental):
    ignore = lambda name: None
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + ".", onerror=ignore):
        if not is_other(found.name):
            try:
                importlib.import_module(found.name)
            except ImportError:  # needs what is not installed
                pass
found = {
    value
    for name, module in list(sys.modules.items())
    if name.split(".")[0] == "jax" and not is_other(name)
    for value in vars(module).values()
    if isinstance(value, Primitive)
}
strange = [p.name for p in found if p not in counter._JAXS.get(p.name, [p])]
print(json.dumps([sorted({p.name for p in found}), strange]))
"""


def test_every_primitive_of_jax_is_in_one_table():
    """Fails for a JAX that has new ones, and names them: decide what each of them costs."""
    command = [sys.executable, "-W", "ignore", "-c", JAXS_PRIMITIVES]
    found, strange = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert len(found) > 300
    assert set(found) - counter.COUNTED - counter.UNCOUNTABLE == set()
    assert not counter.COUNTED & counter.UNCOUNTABLE
    assert strange == []


def test_shards_count_together():
    mesh = AbstractMesh((4,), ("data",), axis_types=(AxisType.Auto,))
    fn = jax.shard_map(
        lambda x, y: x @ y,
        mesh=mesh,
        in_specs=(PartitionSpec("data"), PartitionSpec()),
        out_specs=PartitionSpec("data"),
    )
    assert compute.flops(fn, M, M) == PRODUCT


def test_nothing_runs_and_nothing_is_allocated():
    big = jax.ShapeDtypeStruct((10**7, 10**7), jnp.float32)

    assert compute.flops(jax.jit(square), big) == 2 * 10**21


def test_count_parts_add_up():
    count = compute.count(lambda x: jnp.sum(jnp.tanh(x @ x)), M)
    assert count.flops == PRODUCT
    assert count.elementwise == 32
    assert count.by_primitive == {"dot_general": PRODUCT, "reduce_sum": 16, "tanh": 16}


@functools.cache
def resnet(name="resnet50", **options):
    module = models.create(name, 1000, **options)
    init = functools.partial(models.init, module, image_size=224)
    return module, jax.eval_shape(init, jax.random.key(0))


def images(batch, size):
    return jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32)


def forward_flops(module, variables, x):
    return compute.flops(functools.partial(models.apply, module), variables, x)


def test_dense_resnet50():
    """4.09 billion multiply-adds, as in the literature."""
    module, variables = resnet()
    assert forward_flops(module, variables, images(1, 224)) == 8_178_368_512
    assert forward_flops(module, variables, images(3, 224)) == 3 * 8_178_368_512


@pytest.mark.parametrize(
    ("name", "options", "first"),
    [
        ("resnet18", {}, 32 * 32 * 7 * 7),
        ("resnet50", {"version": "v1", "conv_bias": True, "stages": (3, 4, 6)}, 32 * 32 * 7 * 7),
        ("resnet34", {"stem": "cifar", "stages": (1, 1, 1)}, 64 * 64 * 3 * 3),
    ],
)
def test_training_step_is_three_forwards_but_for_the_images_gradient(name, options, first):
    module, variables = resnet(name, **options)
    x, labels = images(2, 64), jax.ShapeDtypeStruct((2,), jnp.int32)
    optimizer = optax.sgd(0.1, momentum=0.9, nesterov=True)

    def loss(params, batch_stats, x, labels):
        variables = {"params": params, "batch_stats": batch_stats}
        logits, batch_stats = models.apply(module, variables, x, train=True)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(losses), batch_stats

    @jax.jit
    def step(params, batch_stats, state, x, labels):
        grads, batch_stats = jax.grad(loss, has_aux=True)(params, batch_stats, x, labels)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), batch_stats, state

    state = jax.eval_shape(optimizer.init, variables["params"])
    got = compute.count(step, variables["params"], variables["batch_stats"], state, x, labels)
    forward = forward_flops(module, variables, x)
    assert got.flops == 3 * forward - 2 * 2 * first * 3 * 64
    assert got.elementwise > 3 * models.count_params(variables)


N = 10_007
ALONG = {
    "product": (lambda x, head: square(x) @ head, PRODUCT, 32),
    "gradients": (
        lambda x, head: jax.grad(lambda a, b: jnp.sum(square(a) @ b), (0, 1))(x, head),
        3 * PRODUCT,
        3 * 32,
    ),
    "several axes as one": (
        lambda x, head: x @ jnp.tile(head.reshape(4, 1, N), (1, 2, 1)).reshape(4, -1), 0, 64,
    ),
    "loop": (lambda x, head: lax.map(lambda _: square(x) @ head, jnp.ones(5)), 5 * PRODUCT, 5 * 32),
    "nothing": (lambda x, head: square(x), PRODUCT, 0),
}  # fmt: skip


@pytest.mark.parametrize("case", ALONG)
def test_flops_along_an_axis(case):
    fn, fixed, each = ALONG[case]
    head = jax.ShapeDtypeStruct((4, N), jnp.float32)
    assert compute.flops_along(fn, N, M, head) == (fixed, each)
    assert compute.flops(fn, M, head) == fixed + N * each


def test_flops_that_are_not_linear_in_an_axis():
    x = jax.ShapeDtypeStruct((N, N), jnp.float32)
    with pytest.raises(UserError, match=f"not linear in the axis of length {N}"):
        compute.flops_along(lambda x: x @ x, N, x)
