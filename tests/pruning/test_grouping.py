"""Group structure of small programs: names, what is residual, and what is inside a block."""

import jax
import jax.numpy as jnp
import pytest

from ctl_jax import pruning

X = jax.ShapeDtypeStruct((2, 3), jnp.float32)


def trace(function, **widths: tuple[int, int]) -> pruning.Groups:
    """The groups of `function(layer, x)`, where `layer(name, x)` is a product with a kernel."""
    variables = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in widths.items()}
    return pruning.trace(lambda v, x: function(lambda name, x: x @ v[name], x), variables, X)


def residual(groups: pruning.Groups) -> dict[str, str | None]:
    return {name: group.residual for name, group in groups.items()}


ADDITION, FORK = "residual addition", "forks into a residual addition"
FINAL = "final representation"


def test_identity_shortcut():
    def net(layer, x):
        x = layer("stem", x)
        x += layer("two", jnp.tanh(layer("one", x)))
        return layer("head", x)

    groups = trace(net, stem=(3, 8), one=(8, 6), two=(6, 8), head=(8, 4))
    assert residual(groups) == {"stem": ADDITION, "one": None}
    assert groups.in_scope("filters") == ("one",)
    assert groups.in_scope("channels") == ("stem", "one")


@pytest.mark.parametrize("shortcut_first", [True, False])
def test_projection_shortcut_forks(shortcut_first):
    def net(layer, x):
        x = layer("stem", x)
        if shortcut_first:
            x = layer("project", x) - layer("two", jnp.tanh(layer("one", x)))
        else:
            x = layer("two", jnp.tanh(layer("one", x))) + layer("project", x)
        return layer("head", jnp.tanh(layer("last", x)))

    groups = trace(
        net, stem=(3, 8), one=(8, 6), two=(6, 7), project=(8, 7), last=(7, 5), head=(5, 4)
    )
    made_first = "project" if shortcut_first else "two"
    assert residual(groups) == {"stem": FORK, made_first: ADDITION, "one": None, "last": FINAL}


def test_rejoining_by_multiplication_is_not_residual():
    """Squeeze-and-excitation, and a gated unit."""

    def net(layer, x):
        x = layer("stem", x)
        y = layer("one", x)
        y *= jax.nn.sigmoid(layer("excite", jnp.tanh(layer("squeeze", y))))
        y = layer("gate", y) * layer("value", y)
        return layer("head", x + layer("two", y))

    groups = trace(
        net, stem=(3, 8), one=(8, 6), squeeze=(6, 2), excite=(2, 6), gate=(6, 5), value=(6, 5),
        two=(5, 8), head=(8, 4),
    )  # fmt: skip
    assert residual(groups) == {"stem": ADDITION, "one": None, "squeeze": None, "gate": None}


def test_adding_what_was_one_group_already_is_not_residual():
    """The tanh form of gelu adds x to its cube; centring subtracts a mean over the batch."""

    def net(layer, x):
        x = jax.nn.gelu(layer("one", x), approximate=True)
        x = x - x.mean(0, keepdims=True)
        return layer("head", jnp.tanh(layer("two", x)))

    groups = trace(net, one=(3, 8), two=(8, 6), head=(6, 4))
    assert residual(groups) == {"one": None, "two": FINAL}


def test_adding_a_weight_is_not_residual():
    def apply(v, x):
        return jnp.tanh(x @ v["one"] + v["bias"] + v["table"][:1]) @ v["two"] @ v["head"]

    shapes = {"one": (3, 8), "bias": (1, 8), "table": (1, 8), "two": (8, 6), "head": (6, 4)}
    variables = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    assert residual(pruning.trace(apply, variables, X)) == {"one": None, "two": FINAL}


@pytest.mark.parametrize("outputs", [1, 4])
@pytest.mark.parametrize("loss", [False, True])
def test_final_representation_whatever_comes_of_the_head(outputs, loss):
    def net(layer, x):
        logits = layer("head", jnp.tanh(layer("two", jnp.tanh(layer("one", x)))))
        return -jax.nn.log_softmax(logits)[:, 0].mean() if loss else logits

    groups = trace(net, one=(3, 8), two=(8, 6), head=(6, outputs))
    assert residual(groups) == {"one": None, "two": FINAL}


def test_features_as_output_leave_the_blocks_prunable():
    def net(layer, x):
        x = layer("stem", x)
        return x + layer("two", jnp.tanh(layer("one", x)))

    groups = trace(net, stem=(3, 8), one=(8, 6), two=(6, 8))
    assert residual(groups) == {"one": None}
    assert groups.frozen["two"] == {1: "output of the function"}


def test_shared_kernel_reads_and_makes_one_stream():
    def net(layer, x):
        x = layer("stem", x)
        for _ in range(3):
            x = x + jnp.tanh(layer("shared", x))
        return layer("head", x)

    (group,) = trace(net, stem=(3, 8), shared=(8, 8), head=(8, 4)).values()
    assert group.residual == ADDITION
    roles = [(member.path, member.axis, member.role) for member in group.members]
    assert roles == [
        ("head", 0, "in"),
        ("shared", 0, "in"),
        ("shared", 1, "out"),
        ("stem", 1, "out"),
    ]


def test_heads_are_cut_as_wholes():
    """A kernel [3, heads, width] makes both axes: the heads are the channels, not their widths."""

    def apply(v, x):
        y = jnp.einsum("bi,ihd->bhd", x, v["a"])
        return jnp.einsum("bhd,hdo->bo", y, v["b"])

    variables = {
        "a": jax.ShapeDtypeStruct((3, 4, 6), jnp.float32),
        "b": jax.ShapeDtypeStruct((4, 6, 2), jnp.float32),
    }
    groups = pruning.trace(apply, variables, X)
    assert {name: group.size for name, group in groups.items()} == {"a": 4}
    assert "whole rows (heads" in groups.frozen["a"][2]


def test_two_groups_of_one_kernel_have_two_names():
    """What a makes is added to two arrays side by side, of which only one has another reader."""

    def apply(v, x):
        both = x @ v["a"]
        left, right = x @ v["left"], x @ v["right"]
        both += jnp.concatenate([left, right], 1)
        return both @ v["b"] + left @ v["reader"]

    shapes = {"left": (3, 4), "right": (3, 2), "a": (3, 6), "b": (6, 2), "reader": (4, 2)}
    variables = {key: jax.ShapeDtypeStruct(shape, jnp.float32) for key, shape in shapes.items()}
    groups = pruning.trace(apply, variables, X)
    assert {name: group.size for name, group in groups.items()} == {"a": 4, "a#2": 2}
    held = {(m.path, m.axis): m.positions.ravel().tolist() for m in groups["a#2"].members}
    assert held == {("a", 1): [4, 5], ("b", 0): [4, 5], ("right", 1): [0, 1]}


def test_unused_and_unproduced_parameters_say_so():
    def net(layer, x):
        return layer("head", x) + 0 * layer("other", x)

    groups = trace(net, head=(3, 4), other=(3, 4), unused=(5, 6))
    assert not groups
    nobody = "no convolution or matrix product of the inputs produces it"
    assert groups.frozen["unused"] == {0: nobody, 1: nobody}
    assert groups.frozen["head"] == {0: "input of the function", 1: "output of the function"}
