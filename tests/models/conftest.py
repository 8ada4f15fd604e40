"""Networks and variables that several files use."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctl_jax import compute, models

KEY = jax.random.key(0)
KERAS_FILE = "pretrained/resnet50_imagenet_keras_conv1-conv4.npz"


def _random_variables(module, seed=0):
    """Variables with every array random, the head and the statistics too."""
    shapes = jax.eval_shape(lambda key: models.init(module, key, 32), jax.random.key(0))
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        name = path[-1].key
        if name == "kernel":
            fan_in = np.prod(leaf.shape[:-1])
            value = rng.normal(0, np.sqrt(2 / fan_in), leaf.shape)
        elif name in ("scale", "var"):
            value = rng.uniform(0.5, 1.5, leaf.shape)
        else:
            value = rng.normal(0, 0.2, leaf.shape)
        return jax.numpy.asarray(value, leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, shapes)


@pytest.fixture(scope="session")
def random_variables():
    """module -> variables; a module's `init` leaves out what a test of equality needs."""
    return _random_variables


@pytest.fixture(scope="session")
def small():
    """A bottleneck ResNet of a few thousand parameters and its random variables."""
    module = models.create("resnet50", 5, stages=(1, 2), width=4, version="v1", conv_bias=True)
    return module, _random_variables(module)


@pytest.fixture(scope="session")
def keras_file(shared_dir):
    """Real ImageNet weights, of a developer's machine."""
    path = shared_dir / KERAS_FILE
    if not path.is_file():
        pytest.skip(f"no {path}")
    return path


@pytest.fixture(scope="session")
def keras_module():
    """The network that those weights are for."""
    return models.create(
        "resnet50", 7, stages=(3, 4, 6), version="v1", conv_bias=True, epsilon=1.001e-5
    )


class TorchLayers:
    """A network's layers in functional torch, by the paths of our variables.

    Attributes:
      train: BatchNorm normalises by the batch.
      epsilon: of BatchNorm.
      padding: of convolutions of a stride, as `layers.Padding`.
    """

    def __init__(self, variables, train=False):
        self.torch = pytest.importorskip("torch")
        self.variables, self.train = variables, train
        self.epsilon, self.padding = 1e-5, "symmetric"

    def tensor(self, array):
        return self.torch.from_numpy(np.array(array, np.float32))

    def images(self, images):
        """[B, H, W, C] -> [B, C, H, W]."""
        return self.tensor(images).permute(0, 3, 1, 2)

    def arrays(self, kind, path, *names):
        tree = functools.reduce(lambda tree, key: tree[key], path.split("/"), self.variables[kind])
        return [self.tensor(tree[name]) if name in tree else None for name in names]

    def conv(self, x, path, stride=1):
        weight, bias = self.arrays("params", path, "kernel", "bias")
        weight = weight.permute(3, 2, 0, 1)
        groups, size = x.shape[1] // weight.shape[1], weight.shape[-1]
        functional = self.torch.nn.functional
        pads = []
        for side in reversed(x.shape[2:]):
            missing = size - 1
            if self.padding == "same":
                missing = max(0, (-(-side // stride) - 1) * stride + size - side)
            elif self.padding == "end":
                missing = size - stride
            pads += [missing // 2, missing - missing // 2]
        x = functional.pad(x, pads)
        return functional.conv2d(x, weight, bias, stride, groups=groups)

    def batch_norm(self, x, path, epsilon=None):
        gamma, beta = self.arrays("params", path, "scale", "bias")
        mean, var = self.arrays("batch_stats", path, "mean", "var")
        norm = self.torch.nn.functional.batch_norm
        epsilon = epsilon or self.epsilon
        return norm(x, mean, var, gamma, beta, training=self.train, eps=epsilon)

    def conv_bn(self, x, path, stride=1):
        """Layers {path}_conv and {path}_bn."""
        return self.batch_norm(self.conv(x, f"{path}_conv", stride), f"{path}_bn")

    def dense(self, x, path):
        kernel, bias = self.arrays("params", path, "kernel", "bias")
        return x @ kernel + bias


@pytest.fixture(scope="session")
def torch_layers():
    """variables, train -> TorchLayers."""
    return TorchLayers


def _check_torch(module, features, sizes=((32, 32), (45, 38)), contrast=1.0):
    variables = _random_variables(module)
    rng = np.random.default_rng(1)
    for size in sizes:
        images = (contrast * rng.normal(size=(3, *size, 3))).astype(np.float32)
        layers = TorchLayers(variables)
        expected = features(layers, layers.images(images)).numpy()
        got = jax.jit(functools.partial(models.features, module))(variables, images)
        chex.assert_trees_all_close(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    layers = TorchLayers(variables, train=True)
    expected = layers.dense(features(layers, layers.images(images)), "head").numpy()
    got, _ = jax.jit(functools.partial(models.apply, module, train=True))(variables, images)
    chex.assert_trees_all_close(got, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


@pytest.fixture(scope="session")
def check_torch():
    """Asserts that a module equals `features(layers, images NCHW)` in torch.

    In evaluation mode at images of `sizes`, and in training mode at the last of them.
    """
    return _check_torch


def _check_size(module, params, flops):
    """Parameters and forward FLOPs of one image of 224x224."""
    shapes = jax.eval_shape(functools.partial(models.init, module, image_size=224), KEY)
    assert models.count_params(shapes) == params
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    assert compute.flops(functools.partial(models.apply, module), shapes, images) == flops


@pytest.fixture(scope="session")
def check_size():
    """Asserts parameters and forward FLOPs of one image of 224x224."""
    return _check_size
