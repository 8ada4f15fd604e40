"""Equality with a ResNet in plain torch, written from the papers: outputs, gradients, FLOPs."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctl_jax import compute, models

torch = pytest.importorskip("torch")
F = torch.nn.functional
FlopCounterMode = pytest.importorskip("torch.utils.flop_counter").FlopCounterMode


def tensor(array):
    return torch.from_numpy(np.array(array, np.float32))


class TorchResNet:
    """Features and logits by functional torch.

    Attributes:
      fetch: "conv2_block1_0" (Keras' names; 0 the projection) -> weight OIHW, bias or None,
        gamma, beta, mean, var.
    """

    def __init__(self, fetch, stages, bottleneck, version, stem, epsilon, pad=False):
        self.fetch, self.stages, self.bottleneck = fetch, stages, bottleneck
        self.version, self.stem, self.epsilon, self.pad = version, stem, epsilon, pad

    def conv_bn(self, x, name, stride, train):
        weight, bias, gamma, beta, mean, var = self.fetch(name)
        groups = x.shape[1] // weight.shape[1]
        x = F.conv2d(x, weight, bias, stride, weight.shape[-1] // 2, groups=groups)
        if train:
            mean, var = torch.zeros_like(mean), torch.ones_like(var)
        return F.batch_norm(x, mean, var, gamma, beta, training=train, eps=self.epsilon)

    def block(self, x, name, stride, project, train):
        if self.pad and stride > 1:
            channels = x.shape[1] // 2
            shortcut = F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, channels, channels))
        else:
            shortcut = self.conv_bn(x, f"{name}_0", stride, train) if project else x
        if not self.bottleneck:
            x = self.conv_bn(x, f"{name}_1", stride, train).relu()
            return (self.conv_bn(x, f"{name}_2", 1, train) + shortcut).relu()
        s1, s3 = (stride, 1) if self.version == "v1" else (1, stride)
        x = self.conv_bn(x, f"{name}_1", s1, train).relu()
        x = self.conv_bn(x, f"{name}_2", s3, train).relu()
        return (self.conv_bn(x, f"{name}_3", 1, train) + shortcut).relu()

    def features(self, images, train=False):
        """[B, H, W, 3] -> [B, F]."""
        x = images.permute(0, 3, 1, 2)
        if self.stem == "imagenet":
            x = self.conv_bn(x, "conv1", 2, train).relu()
            x = F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 2)
        else:
            x = self.conv_bn(x, "conv1", 1, train).relu()
        for i, blocks in enumerate(self.stages):
            for j in range(blocks):
                stride = 2 if i > 0 and j == 0 else 1
                project = j == 0 and (i > 0 or self.bottleneck)
                x = self.block(x, f"conv{i + 2}_block{j + 1}", stride, project, train)
        return x.mean((2, 3))


def fetch_from_npz(file):
    """From Keras' file itself."""

    def fetch(name):
        conv, bn = f"{name}_conv", f"{name}_bn"
        names = [f"{conv}.weight", f"{conv}.bias"]
        names += [f"{bn}.{array}" for array in ("gamma", "beta", "mean", "var")]
        return [tensor(file[key]) for key in names]

    return fetch


def fetch_from_variables(variables):
    """From our variables."""

    def fetch(name):
        params, stats = variables["params"], variables["batch_stats"]
        if name == "conv1":
            conv, bn = "stem_conv", "stem_bn"
        else:
            stage, block, layer = name.split("_")
            place = f"stage{int(stage[4:]) - 1}_{block}"
            params, stats = params[place], stats[place]
            conv, bn = (f"{kind}{layer}" for kind in ("conv", "bn"))
            if layer == "0":
                conv, bn = "shortcut_conv", "shortcut_bn"
        weight = tensor(np.transpose(params[conv]["kernel"], (3, 2, 0, 1)))
        bias = tensor(params[conv]["bias"]) if "bias" in params[conv] else None
        gamma, beta = params[bn]["scale"], params[bn]["bias"]
        return weight, bias, *map(tensor, (gamma, beta, stats[bn]["mean"], stats[bn]["var"]))

    return fetch


def torch_twin(module, fetch):
    return TorchResNet(
        fetch,
        module.stages,
        module.bottleneck,
        module.version,
        module.stem,
        module.epsilon,
        module.shortcut == "pad",
    )


CASES = [
    ("resnet18", {}),
    ("resnet50", {"version": "v1.5"}),
    ("resnet50", {"version": "v1", "conv_bias": True, "stem": "cifar", "epsilon": 1e-3}),
    ("resnext50_32x4d", {"groups": 4, "width_per_group": 16}),
    ("resnet20", {}),
]


@pytest.mark.parametrize("size", [(32, 32), (45, 38)])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_features(name, options, size, random_variables):
    module = models.create(name, 5, stages=(1, 2), width=8, **options)
    variables = random_variables(module)
    images = np.random.default_rng(1).normal(size=(4, *size, 3)).astype(np.float32)
    theirs = torch_twin(module, fetch_from_variables(variables))
    got = jax.jit(functools.partial(models.features, module))(variables, images)
    chex.assert_trees_all_close(got, theirs.features(tensor(images)).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_training_mode(name, options, random_variables):
    """BatchNorm by the batch: the gradient of the images goes through all of it."""
    module = models.create(name, 5, stages=(1, 2), width=8, **options)
    variables = random_variables(module)
    images = np.random.default_rng(2).normal(size=(6, 24, 24, 3)).astype(np.float32)
    weights = np.random.default_rng(3).normal(size=(6, 5)).astype(np.float32)

    def loss(images):
        logits, _ = models.apply(module, variables, images, train=True)
        return jnp.sum(logits * weights)

    value, gradient = jax.jit(jax.value_and_grad(loss))(images)
    theirs = torch_twin(module, fetch_from_variables(variables))
    tensors = tensor(images).requires_grad_()
    kernel, bias = (tensor(variables["params"]["head"][key]) for key in ("kernel", "bias"))
    expected = ((theirs.features(tensors, train=True) @ kernel + bias) * tensor(weights)).sum()
    expected.backward()
    chex.assert_trees_all_close(value, expected.detach().numpy(), rtol=1e-3, atol=1e-3)
    # By norm: a ReLU whose input is nearly zero may open in one and close in the other.
    error = np.linalg.norm(gradient - tensors.grad.numpy())
    assert error < 0.02 * np.linalg.norm(tensors.grad.numpy())


def test_real_weights(keras_file, keras_module):
    images = np.random.default_rng(0).uniform(0, 255, (3, 64, 64, 3)).astype(np.float32)
    images = np.asarray(models.PREPROCESS["caffe"](images))
    template = jax.eval_shape(lambda key: models.init(keras_module, key, 64), jax.random.key(0))
    variables = models.load_weights(keras_file, keras_module, template)
    with np.load(keras_file, allow_pickle=False) as file:
        theirs = torch_twin(keras_module, fetch_from_npz(file)).features(tensor(images)).numpy()
    got = jax.jit(functools.partial(models.features, keras_module))(variables, images)
    assert got.shape == (3, 1024)
    chex.assert_trees_all_close(got, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("resnet18", "v1.5"),
        pytest.param("resnet34", "v1.5", marks=pytest.mark.slow),
        pytest.param("resnet50", "v1", marks=pytest.mark.slow),
        ("resnet50", "v1.5"),
        pytest.param("resnet101", "v1.5", marks=pytest.mark.slow),
        pytest.param("resnet152", "v1", marks=pytest.mark.slow),
    ],
)
def test_flops(name, version):
    """Forward and backward at full size, on torch's meta device."""
    module = models.create(name, 1000, version=version)
    shapes = jax.eval_shape(lambda key: models.init(module, key, 64), jax.random.key(0))
    zeros = fetch_from_variables(jax.tree.map(lambda x: np.broadcast_to(0.0, x.shape), shapes))

    def fetch(name):
        weight, _, *batch_norm = (None if x is None else x.to("meta") for x in zeros(name))
        return weight.requires_grad_(), None, *batch_norm

    with FlopCounterMode(display=False) as counter:
        images = torch.empty((2, 64, 64, 3), device="meta")
        features = torch_twin(module, fetch).features(images, train=True)
        kernel = torch.empty((features.shape[1], 1000), device="meta", requires_grad=True)
        logits = features @ kernel
    forward = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        logits.sum().backward()
    backward = counter.get_total_flops()

    def gradient(variables, images):
        def loss(params):
            logits, _ = models.apply(module, {**variables, "params": params}, images, train=True)
            return jnp.sum(logits)

        return jax.grad(loss)(variables["params"])

    images = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    assert compute.flops(functools.partial(models.apply, module), shapes, images) == forward
    assert compute.flops(gradient, shapes, images) == forward + backward
