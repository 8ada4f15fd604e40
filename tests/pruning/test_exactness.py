"""Exactness over model families, written as plain functions: no model library takes part."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

NHWC = ("NHWC", "HWIO", "NHWC")


@dataclasses.dataclass
class Net:
    """Layers as functions that make their parameters on the first pass, and use them later."""

    rng: np.random.Generator | None = None
    variables: dict[str, Any] = dataclasses.field(default_factory=dict)
    train: bool = False

    def param(self, path: str, shape: tuple[int, ...], mean: float, std: float) -> Any:
        collection, layer, name = path.split("/")
        layers = self.variables.setdefault(collection, {})
        if self.rng is not None:
            value = mean + std * self.rng.normal(size=shape)
            layers.setdefault(layer, {})[name] = value.astype(np.float32)
        return jnp.asarray(layers[layer][name])

    def conv(
        self, name: str, x: jax.Array, features: int, size: int = 3, stride: int = 1,
        groups: int = 1, bias: bool = False, dims: tuple[str, str, str] = NHWC,
    ) -> jax.Array:  # fmt: skip
        channels = x.shape[dims[0].index("C")]
        sizes = {"O": features, "I": channels // groups, "H": size, "W": size}
        shape = tuple(sizes[letter] for letter in dims[1])
        kernel = self.param(
            f"params/{name}/kernel", shape, 0, (size**2 * channels / groups) ** -0.5
        )
        if groups > 1:  # like every width here, it follows from the parameters
            groups = channels // kernel.shape[dims[1].index("I")]
        y = lax.conv_general_dilated(
            x, kernel, (stride, stride), "SAME", dimension_numbers=dims, feature_group_count=groups
        )
        if bias:
            along = [-1 if letter == "C" else 1 for letter in dims[2]]
            y += self.param(f"params/{name}/bias", (features,), 0, 0.5).reshape(along)
        return y

    def dense(self, name: str, x: jax.Array, features: int) -> jax.Array:
        kernel = self.param(
            f"params/{name}/kernel", (x.shape[-1], features), 0, x.shape[-1] ** -0.5
        )
        return x @ kernel + self.param(f"params/{name}/bias", (features,), 0, 0.5)[None]

    def dense3(self, name: str, x: jax.Array, features: int) -> jax.Array:
        flat = self.dense(name, x.reshape(-1, x.shape[-1]), features)
        return flat.reshape(*x.shape[:-1], -1)

    def matmul_conv(self, name: str, x: jax.Array, features: int) -> jax.Array:
        """A 1x1 convolution as a product of matrices."""
        shape = (1, 1, x.shape[-1], features)
        kernel = self.param(f"params/{name}/kernel", shape, 0, x.shape[-1] ** -0.5)
        flat = x.reshape(-1, x.shape[-1]) @ kernel.reshape(kernel.shape[2:])
        return flat.reshape(*x.shape[:-1], -1)

    def norm(self, name: str, x: jax.Array) -> jax.Array:
        c = (x.shape[-1],)
        mean, var = jnp.mean(x, (0, 1, 2)), jnp.var(x, (0, 1, 2))
        if not self.train:
            mean = self.param(f"stats/{name}/mean", c, 0, 0.3)
            var = self.param(f"stats/{name}/var", c, 0, 0.5) ** 2 + 0.3
        scale = self.param(f"params/{name}/scale", c, 1, 0.4)
        bias = self.param(f"params/{name}/bias", c, 0.2, 0.4)
        mean, var, scale, bias = (value[None, None, None] for value in (mean, var, scale, bias))
        return (x - mean) * lax.rsqrt(var + 1e-3) * scale + bias


def pool(x: jax.Array, kind: str = "max", stride: int = 2) -> jax.Array:
    init, reducer = (-jnp.inf, lax.max) if kind == "max" else (0.0, lax.add)
    return lax.reduce_window(x, init, reducer, (1, 3, 3, 1), (1, stride, stride, 1), "SAME")


def basic_resnet(net: Net, x: jax.Array) -> jax.Array:
    """Biased 3x3 stem without pooling, an identity and a projection shortcut."""
    x = jax.nn.relu(net.norm("bn", net.conv("stem", x, 8, bias=True)))
    for name, width, stride in (("a", 8, 1), ("b", 12, 2)):
        y = jax.nn.relu(
            net.norm(f"{name}_bn1", net.conv(f"{name}_1", x, width, 3, stride, bias=True))
        )
        y = net.norm(f"{name}_bn2", net.conv(f"{name}_2", y, width, bias=True))
        if stride > 1:
            x = net.norm(f"{name}_bn0", net.conv(f"{name}_0", x, width, 1, stride, bias=True))
        x = jax.nn.relu(x + y)
    return net.dense("head", x.mean((1, 2)), 5)


def bottleneck_resnet(
    net: Net, x: jax.Array, *, first: int = 1, second: int = 1, matmul: bool = False,
    excite: bool = False, groups: int = 1, remat: bool = False,
) -> jax.Array:  # fmt: skip
    """7x7 stem and max pooling; `first` and `second`: strides of the first and second conv."""
    one = net.matmul_conv if matmul else functools.partial(net.conv, size=1)

    def block(x: jax.Array, name: str, width: int, down: bool, project: bool) -> jax.Array:
        stride = first if down else 1
        y = net.conv(f"{name}_1", x, width, 1, stride) if stride > 1 else one(f"{name}_1", x, width)
        y = jax.nn.relu(net.norm(f"{name}_bn1", y))
        y = net.conv(f"{name}_2", y, width, 3, second if down else 1, groups=groups)
        y = jax.nn.relu(net.norm(f"{name}_bn2", y))
        if excite:
            gate = jax.nn.relu(net.dense(f"{name}_squeeze", y.mean((1, 2)), 4))
            y *= jax.nn.sigmoid(net.dense(f"{name}_excite", gate, y.shape[-1]))[:, None, None]
        y = net.norm(f"{name}_bn3", one(f"{name}_3", y, 3 * width))
        if project:
            stride = max(first, second) if down else 1
            x = net.norm(f"{name}_bn0", net.conv(f"{name}_0", x, 3 * width, 1, stride))
        return jax.nn.relu(x + y)

    if remat and net.rng is None:
        block = jax.checkpoint(block, static_argnums=(1, 2, 3, 4))
    x = pool(jax.nn.relu(net.norm("bn", net.conv("stem", x, 8, 7, 2))))
    for args in (("a", 8, True, True), ("b", 8, False, False)):
        x = block(x, *args)
    return net.dense("head", x.mean((1, 2)), 5)


def preactivation_resnet(net: Net, x: jax.Array) -> jax.Array:
    x = net.conv("stem", x, 8)
    for name, width in (("a", 8), ("b", 12)):
        y = jax.nn.silu(net.norm(f"{name}_bn1", x))
        shortcut = net.conv("b_0", y, width, 1) if name == "b" else x
        y = jax.nn.silu(net.norm(f"{name}_bn2", net.conv(f"{name}_1", y, width)))
        x = net.conv(f"{name}_2", y, width) + shortcut
    return net.dense("head", jax.nn.gelu(x).mean((1, 2)), 1)


def vgg(net: Net, x: jax.Array) -> jax.Array:
    """No additions; the feature map is flattened before two dense layers."""
    for i, width in enumerate((6, 8, 10)):
        x = pool(jax.nn.gelu(net.conv(f"conv{i}", x, width, bias=True)), "avg")
    x = jnp.tanh(net.dense("fc1", x.reshape(x.shape[0], -1), 12))
    return net.dense("fc2", x, 5)


def vgg_channels_first(net: Net, x: jax.Array) -> jax.Array:
    """As torch lays it out: each channel is a run of positions once it is flattened."""
    dims = ("NCHW", "OIHW", "NCHW")
    x = x.transpose(0, 3, 1, 2)
    for i, width in enumerate((6, 8)):
        x = jax.nn.relu(net.conv(f"conv{i}", x, width, stride=2, bias=True, dims=dims))
    return net.dense("fc", jnp.flip(x, (1, 2)).reshape(x.shape[0], -1), 5)


def concatenations(net: Net, x: jax.Array) -> jax.Array:
    """A dense block: each layer reads the images and all layers before it."""
    for i in range(3):
        y = jax.nn.relu(net.norm(f"bn{i}", net.conv(f"conv{i}", x, 6)))
        x = jnp.concatenate([x, y], axis=-1)
    x = jnp.tanh(net.conv("transition", x, 8, 1))
    return net.dense("head", x.mean((1, 2)), 5)


def separable(net: Net, x: jax.Array) -> jax.Array:
    """Inverted residuals with depthwise convolutions."""
    x = net.conv("stem", x, 8, stride=2)
    for name in "ab":
        y = jax.nn.relu6(net.norm(f"{name}_bn1", net.conv(f"{name}_1", x, 16, 1)))
        y = jax.nn.relu6(net.norm(f"{name}_bn2", net.conv(f"{name}_2", y, 16, groups=16)))
        x += net.norm(f"{name}_bn3", net.conv(f"{name}_3", y, 8, 1))
    return net.dense("head", x.mean((1, 2)), 5)


def attention(net: Net, x: jax.Array, *, fused: bool) -> jax.Array:
    """Two heads of width 4 and gated hidden units; how many heads follows from the kernels."""
    x = net.conv("patch", x, 8, 4, 4, bias=True)
    x = x.reshape(x.shape[0], -1, x.shape[-1])
    y = jnp.tanh(x)
    if fused:
        qkv = net.dense3("qkv", y, 24)
        q, k, v = jnp.moveaxis(qkv.reshape(*qkv.shape[:2], 3, -1, 4), 2, 0)
    else:  # with one key and value for two heads
        q = net.dense3("q", y, 16).reshape(*y.shape[:2], -1, 4)
        k, v = (net.dense3(name, y, 8).reshape(*y.shape[:2], -1, 4) for name in "kv")
        k, v = (jnp.repeat(z, q.shape[2] // k.shape[2], 2) for z in (k, v))
    a = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / 2)
    y = jnp.einsum("bhqk,bkhd->bqhd", a, v)
    x += net.dense3("out", y.reshape(*y.shape[:2], -1), 8)
    gate, y = jnp.split(net.dense3("hidden", jnp.tanh(x), 12), 2, -1)
    x += net.dense3("down", jax.nn.sigmoid(gate) * y, 8)
    return net.dense("head", x.mean(1), 5)


def recurrent(net: Net, x: jax.Array) -> jax.Array:
    """A scan over the rows of the image, whose state starts as zeros; a branch; tied weights."""
    kernel = net.param("params/cell/kernel", (12 * 3, 6), 0, 0.2)
    again = net.param("params/cell/again", (6, 6), 0, 0.4)

    def step(h: jax.Array, row: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = jnp.tanh(row @ kernel + h @ again)
        return h, h * h

    rows = jnp.moveaxis(x, 1, 0).reshape(x.shape[1], x.shape[0], -1)
    h, seen = jax.lax.scan(step, jnp.zeros((x.shape[0], again.shape[0])), rows)
    h = jax.lax.cond(x.sum() > 0, jnp.sin, lambda h: 2 * h, h) + seen[-1]
    return net.dense("head", jnp.tanh(h @ again), 5)


def option_a(net: Net, x: jax.Array) -> jax.Array:
    """A ResNet for CIFAR: shortcuts that skip pixels and pad channels with zeros."""
    x = jax.nn.relu(net.norm("bn", net.conv("stem", x, 8)))
    for name, width in (("a", 8), ("b", 16)):
        stride = 2 if name == "b" else 1
        y = jax.nn.relu(net.norm(f"{name}_bn1", net.conv(f"{name}_1", x, width, 3, stride)))
        y = net.norm(f"{name}_bn2", net.conv(f"{name}_2", y, width))
        if stride > 1:
            x = jnp.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (4, 4)))
        x = jax.nn.relu(x + y)
    return net.dense("head", x.mean((1, 2)), 5)


def embedding(net: Net, x: jax.Array) -> jax.Array:
    """Tokens are looked up, and predicted by the same table."""
    tokens = (x[:, :, 0, 0] > 0).astype(int)
    table = net.param("params/table/embedding", (4, 8), 0, 1)
    y = jax.nn.gelu(net.dense3("hidden", table[tokens] * x[:, :, 0, :1], 6))
    return (jnp.tanh(net.dense3("down", y, 8)) @ table.T).mean(1)


NETS: dict[str, Callable[[Net, jax.Array], jax.Array]] = {
    "basic": basic_resnet,
    "bottleneck_v1": functools.partial(bottleneck_resnet, first=2),
    "bottleneck_v1.5": functools.partial(bottleneck_resnet, second=2, remat=True),
    "matmul": functools.partial(bottleneck_resnet, first=2, matmul=True),
    "squeeze_excite": functools.partial(bottleneck_resnet, second=2, excite=True),
    "grouped": functools.partial(bottleneck_resnet, second=2, groups=4),
    "preactivation": preactivation_resnet,
    "vgg": vgg,
    "vgg_channels_first": vgg_channels_first,
    "concatenations": concatenations,
    "separable": separable,
    "attention": functools.partial(attention, fused=True),
    "attention, keys shared": functools.partial(attention, fused=False),
    "recurrent": recurrent,
    "option_a": option_a,
    "embedding": embedding,
}


@functools.cache
def build(name: str, train: bool = False) -> tuple[Callable[..., jax.Array], Any, jax.Array]:
    """A function of (variables, images), its variables, and images."""
    rng = np.random.default_rng(sum(map(ord, name)))
    x = jnp.asarray(rng.normal(size=(3, 12, 12, 3)), jnp.float32)
    variables = made(NETS[name], Net(rng, train=train), x)
    return lambda v, x: NETS[name](Net(None, v, train), x), variables, x


def made(function: Callable[[Net, jax.Array], jax.Array], net: Net, x: jax.Array) -> Any:
    """The parameters that a first pass makes; nothing is computed."""
    jax.eval_shape(functools.partial(function, net), x)
    return jax.tree.map(jnp.asarray, net.variables)


# None of them normalises over channels: the widest scope is the second.
SCOPES = [(name, scope) for name in NETS for scope in ("filters", "channels")]
SCOPES.remove(("recurrent", "filters"))  # all of it is the final representation


@pytest.mark.parametrize(
    ("name", "scope", "ratio"),
    [
        *((name, scope, 0.4) for name, scope in SCOPES),
        *(pytest.param(name, "channels", 0.8, marks=pytest.mark.slow) for name in NETS),
    ],
)
def test_pruned_is_full_with_channels_cut_off(check_exact, name, scope, ratio):
    apply_fn, variables, x = build(name)
    check_exact(apply_fn, variables, x, criteria=("l1", "l2"), scope=scope, ratio=ratio)


def test_round_to(check_exact):
    groups = check_exact(*build("basic"), ratio=0.5, round_to=4)
    assert {group.size for group in groups.values()} == {8, 12}


def test_batch_statistics_of_the_batch(check_exact):
    """Train mode: BatchNorm subtracts the mean of its channels; that is no residual addition."""
    groups = check_exact(*build("basic", train=True), scope="filters", ratio=0.5)
    assert set(groups.in_scope("filters")) == {f"params/{name}_1/kernel" for name in "ab"}


def _branch(net: Net, name: str, x: jax.Array) -> jax.Array:
    y = jax.nn.relu(net.norm(f"{name}_bn", net.conv(f"{name}_1", x, 5)))
    return net.conv(f"{name}_2", y, x.shape[-1], 1)


def _halves(net: Net, name: str, x: jax.Array) -> jax.Array:
    half = x.shape[-1] // 2
    return jnp.concatenate([x[..., half:], jnp.tanh(_branch(net, name, x[..., :half]))], -1)


def _gated(net: Net, name: str, x: jax.Array) -> jax.Array:
    gate, y = jnp.split(net.conv(name, x, 2 * x.shape[-1], 1), 2, -1)
    return jax.nn.sigmoid(gate) * y


def _shuffled(net: Net, name: str, x: jax.Array) -> jax.Array:
    return x.reshape(*x.shape[:3], 2, -1).swapaxes(3, 4).reshape(x.shape)


def _excited(net: Net, name: str, x: jax.Array) -> jax.Array:
    gate = jax.nn.relu(net.dense(f"{name}_down", x.mean((1, 2)), 3))
    return x * jax.nn.sigmoid(net.dense(f"{name}_up", gate, x.shape[-1]))[:, None, None]


def _grouped(net: Net, name: str, x: jax.Array) -> jax.Array:
    return jax.nn.relu(net.conv(name, x, 8, groups=2, bias=True))


# Each turns a map into a map, of a number of channels that stays even.
STEPS: dict[str, Callable[[Net, str, jax.Array], jax.Array]] = {
    "conv": lambda net, name, x: jax.nn.relu(net.conv(name, x, 6, bias=True)),
    "pointwise": lambda net, name, x: jax.nn.silu(net.matmul_conv(name, x, 10)),
    "norm": lambda net, name, x: net.norm(name, x),
    "pool": lambda net, name, x: pool(x, stride=1),
    "add": lambda net, name, x: x + _branch(net, name, x),
    "subtract": lambda net, name, x: _branch(net, name, x) - x,
    "multiply": lambda net, name, x: x * _branch(net, name, x),
    "concatenate": lambda net, name, x: jnp.concatenate([_branch(net, name, x), x], -1),
    "depthwise": lambda net, name, x: net.conv(name, x, x.shape[-1], groups=x.shape[-1]),
    "grouped": _grouped,
    "gated": _gated,
    "halves": _halves,
    "shuffle": _shuffled,
    "excite": _excited,
    "reverse": lambda net, name, x: x[..., ::-1],
    "remat": lambda net, name, x: jax.checkpoint(jnp.sin)(x),
}


@st.composite
def random_nets(draw) -> Callable[[Net, jax.Array], jax.Array]:
    """A stem, steps in any order, a flattened or an averaged readout."""
    steps = draw(st.lists(st.sampled_from(list(STEPS)), min_size=1, max_size=5))
    flatten = draw(st.booleans())

    def net(net: Net, x: jax.Array) -> jax.Array:
        x = net.conv("stem", x, 8, bias=True)
        for i, step in enumerate(steps):
            x = STEPS[step](net, str(i), x)
        x = jnp.tanh(net.conv("last", x, 4, 1))
        return net.dense("head", x.reshape(x.shape[0], -1) if flatten else x.mean((1, 2)), 2)

    return net


@pytest.mark.parametrize("examples", [6, pytest.param(10, marks=pytest.mark.slow)])
def test_random_networks(check_exact, examples):
    @settings(max_examples=examples, deadline=None, derandomize=True)
    @given(net=random_nets(), ratio=st.sampled_from([0.35, 0.6]), seed=st.integers(0, 99))
    def check(net, ratio, seed):
        rng = np.random.default_rng(seed)
        x = jnp.asarray(rng.normal(size=(2, 5, 5, 2)), jnp.float32)
        variables = made(net, Net(rng), x)
        apply_fn = lambda v, x: net(Net(None, v), x)  # noqa: E731
        # "last" is read by the head alone: there is always a group.
        check_exact(apply_fn, variables, x, ratio=ratio, gradients=examples > 6)

    check()
