"""What single primitives do to the channels that pass through them."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import Primitive, jaxpr_as_fun
from jax.interpreters import mlir

from ctl_jax import pruning
from ctl_jax.errors import UserError
from ctl_jax.pruning._interpreter import RULES

X = jax.ShapeDtypeStruct((2, 4, 4, 3), jnp.float32)
A, B = "a/kernel", "b/kernel"


def spec(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def conv(x, kernel, **options):
    numbers = ("NHWC", "HWIO", "NHWC")
    options = {"window_strides": (1, 1), "padding": "SAME", **options}
    return lax.conv_general_dilated(x, kernel["kernel"], dimension_numbers=numbers, **options)


def between(middle, width: int = 8) -> pruning.Groups:
    """The groups of two 1x1 convolutions with `middle` between them."""

    def apply(v, x):
        return conv(middle(conv(x, v["a"])), v["b"])

    variables = {"a": {"kernel": spec(1, 1, 3, width)}, "b": {"kernel": spec(1, 1, width, 5)}}
    return pruning.trace(apply, variables, X)


def call_with_custom_vjp(x):
    f = jax.custom_vjp(jnp.sin)
    f.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.cos(x),))
    return f(x)


def reduce_and_broadcast(x):
    return x - x.max((1, 2), keepdims=True)


PASSES = {
    "jit": jax.jit(jnp.tanh),
    "custom_jvp_call": jax.nn.relu,
    "custom_vjp_call": call_with_custom_vjp,
    "checkpoint": jax.checkpoint(lambda x: jnp.exp(x) * x),
    "checkpoint of jit": jax.checkpoint(jax.jit(jnp.exp)),
    "transpose": lambda x: x.transpose(3, 0, 2, 1).transpose(1, 3, 2, 0),
    "unit axes": lambda x: jnp.squeeze(x[:, None, ..., None, :], (1, 4)),
    "merge and split of space": lambda x: x.reshape(2, -1, x.shape[-1]).reshape(x.shape),
    "merge and split of channels": lambda x: x.reshape(2, 4, -1).reshape(x.shape),
    "flatten and back": lambda x: x.reshape(-1, *x.shape[-1:]).reshape(x.shape),
    "reduce_window": lambda x: lax.reduce_window(
        x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 1, 1, 1), "SAME"
    ),
    "space reversed": lambda x: x[:, ::-1],
    "space padded and sliced": lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 0), (0, 0)))[:, 1:-2],
    "space concatenated": lambda x: jnp.concatenate([x, 2 * x], 1),
    "reduced over space": reduce_and_broadcast,
    "select_n": lambda x: jnp.where(x > 0, x, jnp.zeros_like(x)),
    "clamp": lambda x: jnp.clip(x, 0, 6),
    "convert_element_type": lambda x: x.astype(jnp.bfloat16).astype(jnp.float32),
    "position in space": lambda x: x + lax.broadcasted_iota(jnp.float32, x.shape, 1),
    "optimization_barrier": lambda x: lax.optimization_barrier((x, x))[1],
    "sort over space": lambda x: jnp.sort(x, axis=1),
    "cumsum over space": lambda x: jnp.cumsum(x, axis=2),
    "scan": lambda x: lax.scan(lambda c, _: (c * 2, None), x, None, length=3)[0],
    "scan over space": lambda x: lax.scan(lambda c, y: (c, y * 2), 0.0, x)[1],
    "scan from nothing": lambda x: lax.scan(
        lambda c, y: (c + y, None), jnp.zeros(x.shape[1:]), x
    )[0][None],
    "while": lambda x: lax.while_loop(
        lambda c: c[0] < 3, lambda c: (c[0] + 1, 2 * c[1]), (0, x)
    )[1],
    "cond": lambda x: lax.cond(True, lambda x: x, lambda x: 2 * x, x),
    "one end of a batch": lambda x: x[:1] * x[1:],
    "indexed space": lambda x: x[:, jnp.asarray([0, 2])],
    "placed in space": lambda x: x.at[:, 1].set(0.0),
    "updated in space": lambda x: lax.dynamic_update_slice(x, x[:, :2], (0, 1, 0, 0)),
    "dropout": lambda x: x * jax.random.bernoulli(jax.random.key(0), 0.5, x.shape),
    "stack and unstack": lambda x: sum(jnp.unstack(jnp.stack([x, 2 * x], 1), axis=1)),
    "tiled space": lambda x: jnp.tile(x, (1, 2, 1, 1)),
    "grouped and back": lambda x: x.reshape(*x.shape[:-1], 1, -1)[..., 0, :],
}  # fmt: skip


@pytest.mark.parametrize("name", PASSES)
def test_channels_pass(name):
    (group,) = between(PASSES[name]).values()
    held = [(member.path, member.axis, member.role) for member in group.members]
    assert held == [(A, 3, "out"), (B, 2, "in")]
    np.testing.assert_array_equal(group.members[1].positions, np.arange(8)[:, None])


FREEZES = {
    "sort": jnp.sort,
    "cumsum": lambda x: jnp.cumsum(x, axis=-1),
    "fft": lambda x: jnp.real(jnp.fft.fft(x)),
    "reduce_window_sum": lambda x: x / (
        1 + lax.reduce_window(x * x, 0.0, lax.add, (1, 1, 1, 3), (1, 1, 1, 1), "SAME")
    ),
    "argmax": lambda x: x + jnp.argmax(x, -1, keepdims=True).astype(x.dtype),
    "reshape": lambda x: x.reshape(*x.shape[:3], 2, 4).swapaxes(3, 4).reshape(x.shape),
    "iota": lambda x: x * lax.broadcasted_iota(jnp.float32, x.shape, 3),
    "constant of the program": lambda x: x + np.arange(8, dtype=np.float32).reshape(1, 1, 1, 8),
    "slice": lambda x: x * x[..., 1:4].sum(),
    "slice by numbers that do not follow the width": lambda x: (
        x * jnp.concatenate([x[..., 4:], x[..., :4]], -1)
    ),
    "pad": lambda x: lax.pad(x, 0.0, ((0, 0, 0),) * 3 + ((1, -1, 0),)),
    "dot_general of two activations": lambda x: x
    + (jnp.einsum("bhwc,bijc->bhwij", x, x)).sum((3, 4))[..., None],
}  # fmt: skip


@pytest.mark.parametrize("name", FREEZES)
def test_channels_freeze_and_the_trace_says_why(name):
    groups = between(FREEZES[name])
    assert not groups
    assert name in groups.frozen[A][3]
    assert name in groups.frozen[B][2]
    assert f"axis 3 (8): not cut: {groups.frozen[A][3]}" in groups.explain(A)


def halves(x):
    return jnp.concatenate([x[..., : x.shape[-1] // 2], -x[..., x.shape[-1] // 2 :]], -1)


PAIRS = {
    "halves": halves,
    "halves in branches that are one program": lambda x: lax.cond(True, halves, halves, x),
    "split": lambda x: jnp.concatenate([jnp.sin(y) for y in jnp.split(x, 2, -1)], -1),
    "shuffle": lambda x: x.reshape(*x.shape[:3], 2, -1).swapaxes(3, 4).reshape(x.shape),
    "stride": lambda x: jnp.stack([x[..., ::2], x[..., 1::2]], -1).reshape(x.shape),
    "rows of two": lambda x: jnp.flip(x.reshape(*x.shape[:3], -1, 2), -1).reshape(x.shape),
}


@pytest.mark.parametrize("name", PAIRS)
def test_equal_parts_lose_as_many_each(name):
    (group,) = between(PAIRS[name]).values()
    by_half, side_by_side = ([[i, i + 4] for i in range(4)], [[2 * i, 2 * i + 1] for i in range(4)])
    made, read = (member.positions.tolist() for member in group.members)
    assert made == (side_by_side if name in ("stride", "rows of two") else by_half)
    assert read == (side_by_side if name in ("shuffle", "stride", "rows of two") else by_half)


NORMALISES = {
    "reduce_sum": lambda x: x - x.mean(-1, keepdims=True),
    "reduce_max": jax.nn.softmax,
    "reduce_min": lambda x: x - x.min(-1, keepdims=True),
    "dot_general": lambda x: x - (x @ jnp.ones((x.shape[-1], 1))),
}


@pytest.mark.parametrize("name", NORMALISES)
def test_a_reduction_over_channels_leaves_them_to_the_widest_scope(name):
    groups = between(NORMALISES[name])
    (group,) = groups.values()
    assert group.normalised == name
    assert [len(groups.in_scope(scope)) for scope in pruning.SCOPES] == [0, 0, 1]
    assert name in groups.explain(A)


def test_a_primitive_nobody_knows():
    primitive = Primitive("mystery")
    primitive.def_abstract_eval(lambda aval: aval)
    groups = between(primitive.bind)
    assert not groups
    assert groups.frozen[A][3] == "mystery"
    # What comes of it is fixed as well, for the same reason.
    assert groups.frozen[B][2] == "mystery"


def test_a_rule_of_the_user():
    primitive = Primitive("my_activation")
    primitive.def_abstract_eval(lambda aval: aval)
    assert not between(primitive.bind)

    @pruning.register_rule("my_activation")
    def rule(interp, operands, **_):
        return [pruning.derived(operands[0].axes, operands)]

    (group,) = between(primitive.bind).values()
    assert [(member.path, member.axis) for member in group.members] == [(A, 3), (B, 2)]


def test_parameters_of_any_name_reach_no_rule_that_is_not_there():
    primitive = Primitive("mystery with parameters")
    primitive.def_abstract_eval(lambda aval, **_: aval)
    groups = between(lambda x: primitive.bind(x, interp=1, operands=2, name="three"))
    assert groups.frozen[A][3] == "mystery with parameters"


def calling(name):
    """A primitive that calls the program in its parameter `body`."""
    primitive = Primitive(name)
    primitive.multiple_results = True
    primitive.def_abstract_eval(lambda *_, body: body.out_avals)

    def impl(*operands, body):
        return jaxpr_as_fun(body)(*operands)

    mlir.register_lowering(primitive, mlir.lower_fun(impl, multiple_results=True))

    def call(function, *operands):
        return primitive.bind(*operands, body=jax.make_jaxpr(function)(*operands))[0]

    return call


def inside(x, w):
    return jnp.tanh(x) @ w


# Of a primitive that calls `inside`: what it runs itself, or what a reference implementation does.
CALLED = {
    "held": lambda interp, operands, *, body, **_: interp.run(body, operands),
    "held, twice": lambda interp, operands, *, body, **_: [
        interp.run(body, operands), interp.run(body, operands),
    ][1],
    "made by the rule": lambda interp, operands, **_: interp.run(
        jax.make_jaxpr(lambda x, w: jnp.sin(jnp.tanh(x) * 2) @ w)(
            *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in interp.shapes)
        ),
        operands,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLED)
def test_rules_of_calls_leave_the_numbers_of_equations(name):
    """The criterion that looks at activations finds what is read after such an equation."""
    call = calling(f"my_call, {name}")
    pruning.register_rule(f"my_call, {name}")(CALLED[name])

    def hidden(v, x):
        first = x @ v["a"]
        second = call(inside, first, v["b"])
        return {"a": first, "b": second, "c": jax.jit(jnp.tanh)(second @ v["c"])}

    def apply(v, x):
        found = hidden(v, x)
        return found["c"] @ v["d"] + found["a"] @ v["e"]

    rng = np.random.default_rng(0)
    shapes = {"a": (3, 4), "b": (4, 6), "c": (6, 5), "d": (5, 2), "e": (4, 2)}
    v = {path: rng.normal(size=shape).astype(np.float32) for path, shape in shapes.items()}
    x = rng.normal(size=(16, 3)).astype(np.float32)
    groups = pruning.trace(apply, v, x)
    assert [reading.group for reading in groups.readings] == ["b", "c", "a"]
    found = pruning.score(groups, v, "activation", batches=[x])
    for group, values in jax.jit(hidden)(v, x).items():
        np.testing.assert_allclose(found[group], np.abs(values).mean(0), rtol=1e-5)


def test_what_only_a_call_of_the_user_reads_has_no_activations():
    call = calling("my_closed_call")
    pruning.register_rule("my_closed_call")(CALLED["held"])
    v = {"a": np.ones((3, 4), np.float32), "b": np.ones((4, 2), np.float32)}
    x = np.ones((8, 3), np.float32)
    groups = pruning.trace(lambda v, x: call(inside, x @ v["a"], v["b"]), v, x)
    assert list(groups) == ["a"]
    with pytest.raises(UserError, match="group 'a' is read by no convolution or matrix product"):
        pruning.score(groups, v, "activation", batches=[x])


def test_every_name_with_a_rule_is_one_of_jax():
    built_in = {name for name, rule in RULES.items() if rule.__module__.startswith("ctl_jax.")}
    assert len(built_in) > 100
    of_jax = {
        value.name
        for name, module in list(sys.modules.items())
        if name.split(".")[0] == "jax"
        for value in vars(module).values()
        if isinstance(value, Primitive)
    }
    # These two are gone in jax 0.11.
    assert built_in - of_jax - {"call", "closed_call"} == set()


def test_strided_dilated_and_transposed_convolutions():
    def apply(v, x):
        x = conv(x, v["a"], window_strides=(2, 2), rhs_dilation=(2, 2))
        return conv(x, v["b"], lhs_dilation=(2, 2), padding=((1, 1), (1, 1)))

    variables = {"a": {"kernel": spec(3, 3, 3, 8)}, "b": {"kernel": spec(3, 3, 8, 5)}}
    groups = pruning.trace(apply, variables, X)
    assert list(groups) == [A]
    assert groups.frozen[A] == {
        0: "window of conv_general_dilated",
        1: "window of conv_general_dilated",
        2: "input of the function",
    }
    assert groups.frozen[B][3] == "output of the function"


def test_flattened_channels_are_sets_of_positions():
    def apply(v, x):
        return conv(x, v["a"]).reshape(2, -1) @ v["b"]["kernel"]

    variables = {"a": {"kernel": spec(1, 1, 3, 8)}, "b": {"kernel": spec(4 * 4 * 8, 5)}}
    (group,) = pruning.trace(apply, variables, X).values()
    np.testing.assert_array_equal(group.members[1].positions, np.arange(128).reshape(16, 8).T)


def test_concatenated_groups_share_an_axis():
    def apply(v, x):
        joined = jnp.concatenate([conv(x, v["a"]), x, conv(x, v["b"])], -1)
        return conv(joined, v["c"])

    variables = {
        "a": {"kernel": spec(1, 1, 3, 4)},
        "b": {"kernel": spec(1, 1, 3, 6)},
        "c": {"kernel": spec(1, 1, 13, 5)},
    }
    groups = pruning.trace(apply, variables, X)
    read = {name: group.members[-1].positions.ravel().tolist() for name, group in groups.items()}
    assert read == {A: [0, 1, 2, 3], B: [7, 8, 9, 10, 11, 12]}
    assert groups.frozen["c/kernel"][2] == "input of the function"
    text = groups.explain("c/kernel")
    assert text.count("axis 2 (13)") == 3


def test_reversed_channels_keep_their_own_scale():
    def apply(v, x):
        return conv(conv(x, v["a"])[..., ::-1] * v["scale"][None, None, None], v["b"])

    variables = {
        "a": {"kernel": spec(1, 1, 3, 4)},
        "b": {"kernel": spec(1, 1, 4, 5)},
        "scale": spec(4),
    }
    (group,) = pruning.trace(apply, variables, X).values()
    for member in group.members[1:]:
        assert member.positions.ravel().tolist() == [3, 2, 1, 0]


def test_channels_held_twice_are_pairs_and_one_alone_is_no_group():
    """Added to their reverse, channels pair up; the middle one of an odd number stays alone."""
    groups = between(lambda x: x + x[..., ::-1], width=5)
    (pairs,) = groups.values()
    assert [member.positions.tolist() for member in pairs.members] == [[[0, 4], [1, 3]]] * 2
    assert groups.frozen[A][3] == "all of it is one channel"


def test_depthwise_follows_and_groups_lose_as_many_each():
    def apply(v, x):
        y = conv(x, v["a"])
        y = conv(y, v["depthwise"], feature_group_count=y.shape[-1])
        return conv(conv(y, v["grouped"], feature_group_count=2), v["b"])

    variables = {
        "a": {"kernel": spec(1, 1, 3, 8)},
        "b": {"kernel": spec(1, 1, 6, 5)},
        "depthwise": {"kernel": spec(3, 3, 1, 8)},
        "grouped": {"kernel": spec(3, 3, 4, 6)},
    }
    groups = pruning.trace(apply, variables, X)
    assert {name: group.size for name, group in groups.items()} == {A: 4, "grouped/kernel": 3}
    held = {(m.path, m.axis): m.positions.tolist() for m in groups[A].members}
    pairs = [[i, i + 4] for i in range(4)]
    assert held == {
        (A, 3): pairs,
        ("depthwise/kernel", 3): pairs,
        ("grouped/kernel", 2): [[i] for i in range(4)],
    }
    held = {(m.path, m.axis): m.positions.tolist() for m in groups["grouped/kernel"].members}
    pairs = [[i, i + 3] for i in range(3)]
    assert held == {("grouped/kernel", 3): pairs, (B, 2): pairs}


def test_batch_groups_freeze():
    def apply(v, x):
        return conv(conv(x, v["a"]), v["b"], batch_group_count=2)

    variables = {"a": {"kernel": spec(1, 1, 3, 8)}, "b": {"kernel": spec(1, 1, 8, 6)}}
    groups = pruning.trace(apply, variables, X)
    assert groups.frozen[A][3] == "conv_general_dilated with batch_group_count=2"


def test_a_scaled_kernel_is_the_kernel():
    """Weight normalisation by a learned scale: the kernel's slices produce, the scale does not."""

    def apply(v, x):
        kernel = v["scale"][None, None, None] * v["a"]["kernel"]
        return conv(conv(x, {"kernel": kernel}), v["b"])

    variables = {
        "a": {"kernel": spec(1, 1, 3, 8)},
        "b": {"kernel": spec(1, 1, 8, 5)},
        "scale": spec(8),
    }
    (group,) = pruning.trace(apply, variables, X).values()
    assert [(member.path, member.role) for member in group.members] == [
        (A, "out"),
        (B, "in"),
        ("scale", "elementwise"),
    ]
