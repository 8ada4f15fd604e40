"""DenseNets in other libraries' files."""

import functools
import re

import chex
import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from ctl_jax import models
from ctl_jax.errors import UserError
from ctl_jax.models import matching, names

GROWTH, WIDTH, STAGES, CLASSES = 4, 6, (2, 1), 5


def shapes_of_torchvision():
    """Names and shapes as torchvision's `state_dict()` has them."""
    found = {"features.conv0.weight": (WIDTH, 3, 7, 7)}

    def norm(name, channels):
        arrays = ("weight", "bias", "running_mean", "running_var")
        found.update({f"features.{name}.{array}": (channels,) for array in arrays})

    norm("norm0", WIDTH)
    channels = WIDTH
    for i, layers in enumerate(STAGES, start=1):
        for j in range(1, layers + 1):
            layer = f"denseblock{i}.denselayer{j}"
            norm(f"{layer}.norm1", channels)
            found[f"features.{layer}.conv1.weight"] = (4 * GROWTH, channels, 1, 1)
            norm(f"{layer}.norm2", 4 * GROWTH)
            found[f"features.{layer}.conv2.weight"] = (GROWTH, 4 * GROWTH, 3, 3)
            channels += GROWTH
        if i < len(STAGES):
            norm(f"transition{i}.norm", channels)
            found[f"features.transition{i}.conv.weight"] = (channels // 2, channels, 1, 1)
            channels //= 2
    norm("norm5", channels)
    return found | {"classifier.weight": (CLASSES, channels), "classifier.bias": (CLASSES,)}


def random_arrays():
    rng = np.random.default_rng(0)

    def draw(name, shape):
        if re.search(r"norm\d?\.weight|running_var", name):
            return rng.uniform(0.5, 1.5, shape)
        fan_in = np.prod(shape[1:]) if name.endswith("weight") else 1
        return rng.normal(0, np.sqrt(2 / fan_in), shape)

    return {k: draw(k, s).astype(np.float32) for k, s in shapes_of_torchvision().items()}


def of_keras(arrays, stem="conv1_", suffix=""):
    """The same arrays in Keras's names and layout; in its first files the stem is "conv1/"."""
    layers = {
        r"features\.(?:conv|norm)0": stem + "{0}",
        r"features\.denseblock(\d)\.denselayer(\d)\.norm1": "conv{next}_block{2}_0_bn",
        r"features\.denseblock(\d)\.denselayer(\d)\.conv(\d)": "conv{next}_block{2}_{3}_conv",
        r"features\.denseblock(\d)\.denselayer(\d)\.norm2": "conv{next}_block{2}_1_bn",
        r"features\.transition(\d)\.\w+": "pool{next}_{0}",
        r"features\.norm5": "bn",
        r"classifier": "predictions",
    }
    last = {"running_mean": "moving_mean", "running_var": "moving_variance", "bias": "beta"}
    found = {}
    for name, array in arrays.items():
        layer, _, kind = name.rpartition(".")
        (match, template), *_ = [
            (match, template)
            for pattern, template in layers.items()
            if (match := re.fullmatch(pattern, layer))
        ]
        is_norm = "norm" in layer
        following = int(match[1]) + 1 if match.groups() else 0
        values = ("bn" if is_norm else "conv", *match.groups())
        key = template.format(*values, next=following)
        if kind == "weight":
            kind = "gamma" if is_norm else "kernel"
            axes = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}[array.ndim]
            array = array.transpose(axes)
        elif is_norm:
            kind = last[kind]
        found[f"{key}/{kind}{suffix}"] = array
    return found


def load(arrays, folder, file="weights", **options):
    np.savez(folder / f"{file}.npz", **arrays)
    return models.load_pretrained(folder / f"{file}.npz", **options)


def written(model, library):
    (naming,) = names.of_module(model.module, library)
    return names.write(naming, flatten_dict(model.variables, sep="/"))


def test_torchvision(tmp_path):
    arrays = random_arrays()
    model = load(arrays | {"features.norm0.num_batches_tracked": np.int64(3)}, tmp_path)
    module = model.module
    assert (module.stages, module.growth, module.width) == (STAGES, GROWTH, WIDTH)
    assert (str(model.preprocess), model.image_size) == ("imagenet", 224)
    chex.assert_trees_all_equal(written(model, "torchvision"), arrays)


def test_torchvisions_first_names(tmp_path):
    arrays = random_arrays()
    old = {re.sub(r"(r\d\.(norm|conv))(\d)", r"\1.\3", name): a for name, a in arrays.items()}
    assert old.keys() != arrays.keys()
    model = load(old, tmp_path)
    chex.assert_trees_all_equal(written(model, "torchvision"), arrays)


@pytest.mark.parametrize(("stem", "suffix"), [("conv1_", ""), ("conv1/", ":0")])
def test_keras(stem, suffix, tmp_path):
    arrays = random_arrays()
    model = load(of_keras(arrays, stem, suffix), tmp_path)
    assert (model.module.epsilon, str(model.preprocess)) == (1.001e-5, "imagenet")
    chex.assert_trees_all_equal(model.variables, load(arrays, tmp_path, "other").variables)
    chex.assert_trees_all_equal(written(model, "keras"), of_keras(arrays))


def torch_form(torch, arrays):
    """A function of images [B, 3, H, W] and whether to train, to logits, in functional torch."""
    functional = torch.nn.functional
    state = {name.removeprefix("features."): torch.from_numpy(a) for name, a in arrays.items()}

    def forward(x, train=False):
        def norm_relu(x, name):
            mean, var, weight, bias = (
                state[f"{name}.{array}"].clone()
                for array in ("running_mean", "running_var", "weight", "bias")
            )
            return functional.batch_norm(x, mean, var, weight, bias, train).relu()

        x = functional.conv2d(x, state["conv0.weight"], stride=2, padding=3)
        x = functional.max_pool2d(norm_relu(x, "norm0"), 3, 2, 1)
        for i, layers in enumerate(STAGES, start=1):
            for j in range(1, layers + 1):
                layer = f"denseblock{i}.denselayer{j}"
                y = functional.conv2d(
                    norm_relu(x, f"{layer}.norm1"), state[f"{layer}.conv1.weight"]
                )
                y = functional.conv2d(
                    norm_relu(y, f"{layer}.norm2"), state[f"{layer}.conv2.weight"], padding=1
                )
                x = torch.cat([x, y], 1)
            if f"transition{i}.conv.weight" in state:
                x = norm_relu(x, f"transition{i}.norm")
                x = functional.avg_pool2d(
                    functional.conv2d(x, state[f"transition{i}.conv.weight"]), 2
                )
        if "norm5.weight" in state:
            x = norm_relu(x, "norm5")
        weight, bias = state["classifier.weight"], state["classifier.bias"]
        return functional.linear(x.mean((2, 3)), weight, bias)

    return forward


@pytest.mark.parametrize("truncated", [False, True])
def test_logits_equal_torchs(truncated, tmp_path):
    """Also of a network whose last norm was cut off with its last stages."""
    torch = pytest.importorskip("torch")
    arrays = random_arrays()
    if truncated:
        arrays = {name: array for name, array in arrays.items() if "norm5" not in name}
    model = load(arrays, tmp_path)
    assert model.module.last_norm is not truncated
    images = np.random.default_rng(1).normal(size=(3, 45, 38, 3)).astype(np.float32)
    forward = torch_form(torch, arrays)
    apply = functools.partial(models.apply, model.module)
    for train in (False, True):
        expected = forward(torch.from_numpy(images).permute(0, 3, 1, 2), train).numpy()
        got = jax.jit(functools.partial(apply, train=train))(model.variables, images)
        got = got[0] if train else got
        chex.assert_trees_all_close(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_what_does_not_fit_is_listed(tmp_path):
    arrays = random_arrays()
    arrays["features.transition1.norm.beta"] = arrays.pop("features.transition1.norm.bias")
    with pytest.raises(
        UserError, match=r"missing: features.transition1.norm.bias \(nearest: .*beta"
    ):
        load(arrays, tmp_path)


def test_kerass_resnet_is_no_densenet():
    """Its layers are called alike."""
    resnet = models.create("resnet50", 1, stages=(1,), version="v1", conv_bias=True)
    (naming,) = names.of_module(resnet, "keras")
    shapes = matching.shapes_of(resnet, 32)
    zeros = {path: np.zeros(shape, np.float32) for path, shape in shapes.items()}
    theirs = {name: array.shape for name, array in names.write(naming, zeros).items()}
    (densenet,) = names.of_module(models.create("densenet121", 1), "keras")
    assert densenet.recognise(theirs, "") is None
