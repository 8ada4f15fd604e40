"""VGGs in other libraries' files: places in "features", the order of a flattened map."""

import functools

import chex
import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from ctl_jax import models
from ctl_jax.models import names

WIDTH, HIDDEN, POOL, CLASSES = 4, 6, 3, 5
# Of stages (1, 2): of "features" without and with BatchNorms.
PLACES = {False: ("0", "3", "5"), True: ("0", "4", "7")}


def shapes_of_torchvision(norm=False):
    """Names and shapes as torchvision's `state_dict()` has them, of stages (1, 2)."""
    found, inputs = {}, 3
    for place, outputs in zip(PLACES[norm], (WIDTH, 2 * WIDTH, 2 * WIDTH), strict=True):
        found |= {
            f"features.{place}.weight": (outputs, inputs, 3, 3),
            f"features.{place}.bias": (outputs,),
        }
        if norm:
            arrays = ("weight", "bias", "running_mean", "running_var")
            found |= {f"features.{int(place) + 1}.{array}": (outputs,) for array in arrays}
        inputs = outputs
    sizes = (POOL**2 * inputs, HIDDEN, HIDDEN, CLASSES)
    for i, layer in enumerate((0, 3, 6)):
        found[f"classifier.{layer}.weight"] = (sizes[i + 1], sizes[i])
        found[f"classifier.{layer}.bias"] = (sizes[i + 1],)
    return found


def random_arrays(norm=False):
    rng = np.random.default_rng(0)

    def draw(name, shape):
        if len(shape) == 1 and name.endswith(("weight", "var")):
            return rng.uniform(0.5, 1.5, shape)
        fan_in = np.prod(shape[1:]) if name.endswith("weight") else 1
        return rng.normal(0, np.sqrt(2 / fan_in), shape)

    return {k: draw(k, s).astype(np.float32) for k, s in shapes_of_torchvision(norm).items()}


def of_timm(arrays):
    """The dense layers are convolutions, the first one of the whole map."""
    found = {}
    for name, array in arrays.items():
        name = name.replace("classifier.6", "head.fc")
        name = name.replace("classifier.0", "pre_logits.fc1").replace(
            "classifier.3", "pre_logits.fc2"
        )
        if name == "pre_logits.fc1.weight":
            array = array.reshape(HIDDEN, -1, POOL, POOL)
        elif name == "pre_logits.fc2.weight":
            array = array[:, :, None, None]
        found[name] = array
    return found


def of_keras(arrays):
    """Kernels [height, width, inputs, outputs]; the map is flattened channels last."""
    layers = {
        "features.0": "block1_conv1",
        "features.3": "block2_conv1",
        "features.5": "block2_conv2",
        "classifier.0": "fc1",
        "classifier.3": "fc2",
        "classifier.6": "predictions",
    }
    found = {}
    for name, array in arrays.items():
        layer, _, kind = name.rpartition(".")
        if layer == "classifier.0" and kind == "weight":
            array = np.moveaxis(array.reshape(HIDDEN, -1, POOL, POOL), 1, -1).reshape(HIDDEN, -1)
        if kind == "weight":
            array = array.transpose((2, 3, 1, 0) if array.ndim == 4 else (1, 0))
        found[f"{layers[layer]}/{kind.replace('weight', 'kernel')}"] = array
    return found


def load(arrays, folder, file="weights"):
    np.savez(folder / f"{file}.npz", **arrays)
    return models.load_pretrained(folder / f"{file}.npz")


def written(model, library):
    (naming,) = names.of_module(model.module, library)
    return names.write(naming, flatten_dict(model.variables, sep="/"))


@pytest.mark.parametrize("norm", [False, True])
def test_torchvision(norm, tmp_path):
    arrays = random_arrays(norm)
    model = load(arrays, tmp_path)
    expected = {"stages": (1, 2), "norm": norm, "width": WIDTH, "hidden": HIDDEN, "pool": POOL}
    assert {key: getattr(model.module, key) for key in expected} == expected
    assert (str(model.preprocess), model.image_size) == ("imagenet", 224)
    chex.assert_trees_all_equal(written(model, "torchvision"), arrays)


@pytest.mark.parametrize(
    ("library", "convert", "preprocess"),
    [("timm", of_timm, "imagenet"), ("keras", of_keras, "caffe")],
)
def test_other_libraries(library, convert, preprocess, tmp_path):
    arrays = random_arrays()
    model = load(convert(arrays), tmp_path)
    assert (model.notes["library"], str(model.preprocess)) == (library, preprocess)
    chex.assert_trees_all_equal(model.variables, load(arrays, tmp_path, "other").variables)
    chex.assert_trees_all_equal(written(model, library), convert(arrays))


@pytest.mark.parametrize("convert", [dict, of_keras])
def test_without_dense_layers(convert, tmp_path):
    """The representation is the mean of the last map."""
    arrays = convert(random_arrays())
    theirs = {name: a for name, a in arrays.items() if name.startswith(("features", "block"))}
    module = load(theirs, tmp_path).module
    assert (module.stages, module.hidden, module.pool) == ((1, 2), 0, 1)


def test_one_dense_layer(tmp_path):
    """As in CIFAR's VGGs."""
    arrays = {n: a for n, a in random_arrays(norm=True).items() if n.startswith("features")}
    arrays["classifier.weight"] = np.ones((CLASSES, 2 * WIDTH), np.float32)
    arrays["classifier.bias"] = np.ones(CLASSES, np.float32)
    model = load(arrays, tmp_path)
    assert (model.module.hidden, model.module.pool, model.num_classes) == (0, 1, CLASSES)
    assert (model.image_size, model.notes["library"]) == (32, "pytorch-cifar")
    chex.assert_trees_all_equal(written(model, "pytorch-cifar"), arrays)


@pytest.mark.parametrize(
    ("places", "norm", "expected"),
    [
        # torchvision's vgg11 and vgg16, and both with BatchNorms.
        ((0, 3, 6, 8, 11, 13, 16, 18), False, "vgg11"),
        ((0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), False, "vgg16"),
        ((0, 4, 8, 11, 15, 18, 22, 25), True, "vgg11_bn"),
        # BatchNorms that are folded into the convolutions left their places.
        ((0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40), False, "vgg16_bn"),
        ((0, 4, 6), False, None),
    ],
)
def test_structure_by_places(places, norm, expected):
    naming, *_ = names.of_module(models.create("vgg16", 1), "torchvision")
    shapes = {f"features.{place}.weight": (64, 3, 3, 3) for place in places}
    if norm:
        shapes["features.1.running_mean"] = (64,)
    found = naming.recognise(shapes, "")
    assert (found and found.name) == expected


def test_a_squeezenet_is_no_vgg():
    naming, *_ = names.of_module(models.create("vgg16", 1), "torchvision")
    shapes = {
        "features.0.weight": (64, 3, 3, 3),
        "features.0.bias": (64,),
        "features.3.squeeze.weight": (16, 64, 1, 1),
    }
    assert naming.recognise(shapes, "") is None


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_of_pruned_widths(library, tmp_path):
    """The first dense layer reads the channels that are left, at each place of the map."""
    model = load(random_arrays(), tmp_path)
    flat = flatten_dict(model.variables, sep="/")
    shapes = {path: array.shape for path, array in flat.items()}
    keep = np.array([0, 2, 5])
    flat["params/stage2_conv2/kernel"] = flat["params/stage2_conv2/kernel"][..., keep]
    flat["params/stage2_conv2/bias"] = flat["params/stage2_conv2/bias"][keep]
    dense = flat["params/hidden1/kernel"].reshape(POOL, POOL, -1, HIDDEN)[:, :, keep]
    flat["params/hidden1/kernel"] = dense.reshape(-1, HIDDEN)
    (naming,) = names.of_module(model.module, library)
    theirs = names.write(naming, flat)
    first = "classifier.0" if library == "torchvision" else "pre_logits.fc1"
    original = random_arrays()["classifier.0.weight"].reshape(HIDDEN, -1, POOL, POOL)[:, keep]
    chex.assert_trees_all_equal(theirs[f"{first}.weight"].reshape(original.shape), original)
    for entry in naming.entries(shapes):
        arrays = [theirs[name] for name in entry.theirs]
        ours = entry.read(arrays, [shapes[path] for path in entry.ours])
        chex.assert_trees_all_equal(list(ours), [flat[path] for path in entry.ours])


def torch_form(torch, arrays):
    """A function of images [B, 3, H, W] and whether to train, to logits, in functional torch."""
    functional = torch.nn.functional
    state = {name: torch.from_numpy(array) for name, array in arrays.items()}

    def forward(x, train=False):
        norm = "features.1.weight" in state
        for i, place in enumerate(PLACES[norm]):
            weight, bias = state[f"features.{place}.weight"], state[f"features.{place}.bias"]
            x = functional.conv2d(x, weight, bias, padding=1)
            if norm:
                names = ("running_mean", "running_var", "weight", "bias")
                values = [state[f"features.{int(place) + 1}.{name}"].clone() for name in names]
                x = functional.batch_norm(x, *values, train)
            x = x.relu()
            if i in (0, 2):
                x = functional.max_pool2d(x, 2)
        x = functional.adaptive_avg_pool2d(x, POOL).flatten(1)
        for layer in (0, 3, 6):
            weight, bias = state[f"classifier.{layer}.weight"], state[f"classifier.{layer}.bias"]
            x = functional.linear(x, weight, bias)
            x = x if layer == 6 else x.relu()
        return x

    return forward


@pytest.mark.parametrize("norm", [False, True])
def test_logits_equal_torchs(norm, tmp_path):
    torch = pytest.importorskip("torch")
    arrays = random_arrays(norm)
    model = load(arrays, tmp_path)
    images = np.random.default_rng(1).normal(size=(3, 17, 12, 3)).astype(np.float32)
    forward = torch_form(torch, arrays)
    apply = functools.partial(models.apply, model.module)
    for train in (False, True):
        expected = forward(torch.from_numpy(images).permute(0, 3, 1, 2), train).numpy()
        got = jax.jit(functools.partial(apply, train=train))(model.variables, images)
        got = got[0] if train else got
        chex.assert_trees_all_close(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
