"""Models of all families, whole and pruned, and graphs computed by numpy."""

import functools
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from ctl_jax import models, pruning

# Each family small, with what is particular to it: name, options, image size.
SMALL = {
    "resnet": ("resnet50", {"stages": [1, 1], "width": 8}, 32),
    "resnet_cifar": ("resnet20", {"stages": [1, 1], "width": 8}, 16),
    "vgg": ("vgg11_bn", {"stages": [1, 1], "width": 8, "hidden": 8, "pool": 2}, 16),
    "densenet": ("densenet121", {"stages": [2, 1], "growth": 8, "width": 8}, 32),
    "mobilenet_v1": ("mobilenet_v1", {"stages": [1, 1], "width_multiplier": 0.25}, 32),
    "mobilenet_v2": ("mobilenet_v2", {"stages": [1, 2], "width_multiplier": 0.25}, 32),
    "mobilenet_v3": (
        "mobilenet_v3_small", {"stages": [1, 1], "width_multiplier": 0.25, "padding": "same"}, 33,
    ),
    "efficientnet": ("efficientnet_b0", {"stages": [1, 1], "width_multiplier": 0.25}, 32),
    "squeezenet": ("squeezenet1_1", {"stages": [1, 1], "width": 8, "stem_width": 8}, 32),
    "shufflenet_v1": (
        "shufflenet_v1_g2", {"stages": [1, 1], "groups": 2, "width": 16, "stem_width": 8}, 32,
    ),
    "shufflenet_v2": (
        "shufflenet_v2_x1_0", {"stages": [2], "width": 16, "stem_width": 8, "last_width": 8}, 32,
    ),
    "unet": ("unet", {"depth": 1, "width": 8}, 9),
    "convnext": ("convnext_tiny", {"stages": [1, 1], "width": 8}, 32),
    "vit": ("vit_s16", {"heads": 2, "depth": 1, "head_width": 4, "patch": 8}, 16),
    "vit_scan": (
        "vit_s16", {"heads": 2, "depth": 2, "head_width": 4, "patch": 8, "scan": True}, 16,
    ),
    "deit": ("deit_s16_distilled", {"heads": 2, "depth": 1, "head_width": 4, "patch": 8}, 16),
    "dinov2": (
        "vit_s14_reg4_dinov2",
        {"heads": 2, "depth": 1, "head_width": 4, "patch": 8, "pool": "token+mean"},
        16,
    ),
    "mixer": ("mixer_s16", {"width": 8, "depth": 1, "token_hidden": 8, "patch": 8}, 16),
    "ensemble": ("resnet50", {"stages": [1, 1], "width": 8}, 32),
}  # fmt: skip


@functools.cache
def build(case: str, pruned: bool) -> models.Model:
    """A model with random weights, perhaps with half of its filters."""
    name, options, size = SMALL[case]
    module = models.create(name, 3, **options)
    init = functools.partial(models.init, module, image_size=size)
    shapes = jax.eval_shape(init, jax.random.key(0))
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        if path[-1].key in ("scale", "var"):
            value = rng.uniform(0.5, 1.5, leaf.shape)
        else:
            value = rng.normal(0, np.sqrt(2 / max(1, np.prod(leaf.shape[:-1]))), leaf.shape)
        return jnp.asarray(value, leaf.dtype)

    variables = jax.tree_util.tree_map_with_path(fill, shapes)
    if pruned:
        image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
        groups = pruning.trace(functools.partial(models.apply, module), variables, image)
        scores = pruning.score(groups, variables, criterion="l2")
        keep = pruning.select(groups, scores, ratio=0.5, scope="filters", round_to=1)
        variables = pruning.prune(variables, groups, keep)
    if case == "ensemble":
        variables = _ensemble(module, variables, size)
    classes = ("ant", "bee", "chê")
    return models.Model(name, options, variables, "imagenet", size, classes)


def _ensemble(module, variables, size):
    """Two networks, whose heads are of forms that no library's network has."""
    rng = np.random.default_rng(2)
    headed = models.new_head(module, variables, 3, size, "taps")
    rows = headed["params"]["head"]["kernel"].shape[0]

    def layer(inputs, outputs):
        kernel = rng.normal(0, np.sqrt(1 / inputs), (inputs, outputs)).astype(np.float32)
        return {"kernel": kernel, "bias": np.ones(outputs, np.float32)}

    radial = {
        "landmarks": rng.normal(0, 1, (5, rows)).astype(np.float32),
        "scale": np.full(rows, 0.5 / np.sqrt(rows), np.float32),
    }
    first, second = (
        models.set_head(variables, head)
        for head in ({**layer(5, 3), "hidden": radial}, {**layer(5, 3), "hidden": layer(rows, 5)})
    )
    return {kind: {**first[kind], "ensemble": second[kind]} for kind in first}


def pytest_generate_tests(metafunc):
    """A test that takes a `case` is run with each of them."""
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", SMALL)


@pytest.fixture(scope="session")
def small():
    """(case, pruned) -> model."""
    return build


@pytest.fixture(scope="session")
def images():
    """A model, number -> uint8 images."""

    def make(model, count=2):
        shape = (count, model.image_size, model.image_size, 3)
        return np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)

    return make


@pytest.fixture(scope="session")
def check():
    """Asserts that logits of a model's images are those that it gives."""

    def check(model, images, found):
        pixels = model.preprocess(images)
        apply = jax.jit(functools.partial(models.apply, model.module))
        expected = np.asarray(apply(model.variables, pixels))
        chex.assert_equal_shape([np.asarray(found), expected])
        tolerance = 1e-4 * np.abs(expected).max()
        chex.assert_trees_all_close(np.asarray(found), expected, rtol=1e-4, atol=tolerance)

    return check


def _windows(x, window, strides, dilation=(1, 1)):
    """[B, H, W, C] -> [B, H', W', C, h, w]."""
    spread = [(n - 1) * d + 1 for n, d in zip(window, dilation, strict=True)]
    found = np.lib.stride_tricks.sliding_window_view(x, spread, (1, 2))
    return found[:, :: strides[0], :: strides[1], :, :: dilation[0], :: dilation[1]]


def _conv(x, kernel, strides, padding, dilation, groups):
    x = np.pad(x, [(0, 0), *((n, n) for n in padding), (0, 0)])
    seen = _windows(x, kernel.shape[:2], strides, dilation)
    parts = zip(np.split(seen, groups, 3), np.split(kernel, groups, 3), strict=True)
    return np.concatenate([np.einsum("bijchw,hwcf->bijf", *p, optimize=True) for p in parts], 3)


OPERATIONS = {
    "as_strided": lambda x, shape, strides, offset: np.lib.stride_tricks.as_strided(
        np.ravel(x)[offset:], shape, [4 * n for n in strides]
    ),
    "cast": lambda x, dtype: np.asarray(x).astype(dtype),
    "concatenate": lambda *parts, axis: np.concatenate(parts, axis),
    "conv": _conv,
    "div": np.true_divide,
    "einsum": lambda *parts, equation: np.einsum(equation, *parts),
    "erf": lambda x: np.asarray(scipy.special.erf(x), np.float32),
    "expand": lambda x, images, shape: np.broadcast_to(
        x, [len(images) if n == "batch" else n for n in shape]
    ),
    "max_pool": lambda x, window, strides: _windows(x, window, strides).max((4, 5)),
    "mul": np.multiply,
    "neg": np.negative,
    "pad": lambda x, before, after, value: np.pad(
        x, list(zip(before, after, strict=True)), constant_values=value
    ),
    "reshape": lambda x, shape: np.reshape(x, shape),
    "sigmoid": scipy.special.expit,
    "slice": lambda x, axis, start, stop, step: x[
        (slice(None),) * axis + (slice(start, stop, step),)
    ],
    "amax": lambda x, dim: np.max(x, tuple(dim)),
    "amin": lambda x, dim: np.min(x, tuple(dim)),
    "sub": np.subtract,
    "sum": lambda x, dim: np.sum(x, tuple(dim)),
    "sum_pool": lambda x, window, strides: _windows(x, window, strides).sum((4, 5)),
    "transpose": lambda x, axes: np.transpose(x, axes),
    "eq": np.equal,
    "lt": np.less,
    "gt": np.greater,
    "le": np.less_equal,
    "ge": np.greater_equal,
}


def _compute(graph: str, arrays: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    content = json.loads(graph)
    arrays = {**arrays, "images": images}
    for name, (dtype, values) in content["constants"].items():
        arrays[name] = np.asarray(values, dtype)
    for number, (operation, inputs, output, attributes) in enumerate(content["nodes"]):
        assert number >= content["static"] or "images" not in inputs
        function = OPERATIONS.get(operation) or getattr(np, operation)
        arrays[output] = np.asarray(function(*(arrays[name] for name in inputs), **attributes))
    return arrays[content["output"]]


@pytest.fixture(scope="session")
def compute():
    """graph.json, arrays of a file, images -> logits, independently of what reads it in torch."""
    return _compute
