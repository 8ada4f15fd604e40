"""Anybody's weights: the network that they are of, found by itself, and the same logits."""

import dataclasses
import json
import re
import sys
import types

import chex
import flax.serialization
import jax
import numpy as np
import pytest
import safetensors.numpy
from flax.traverse_util import flatten_dict

from ctl_jax import models
from ctl_jax.errors import UserError
from ctl_jax.models import names
from ctl_jax.object_store import Unreachable

OPTIONS = {"stages": (1, 2), "width": 4}
IMAGES = np.random.default_rng(0).normal(size=(2, 24, 24, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def module():
    return models.create("resnet18", 5, **OPTIONS)


@pytest.fixture(scope="module")
def variables(module, random_variables):
    return random_variables(module)


@pytest.fixture(scope="module")
def arrays(module, variables):
    """By torchvision's names."""
    return written(module, variables, "torchvision")


def written(module, variables, library):
    flat = {path: np.asarray(a) for path, a in flatten_dict(variables, sep="/").items()}
    return names.write(names.of_module(module, library)[0], flat)


@pytest.fixture
def save(tmp_path, arrays):
    """Writes a safetensors file of the arrays but for some changes; returns its path."""

    def write(content=None, metadata=None, name="weights.safetensors", **changes):
        content = {**(arrays if content is None else content), **changes}
        content = {key: array for key, array in content.items() if array is not None}
        safetensors.numpy.save_file(content, tmp_path / name, metadata)
        return tmp_path / name

    return write


def check(path, variables, module, **kwargs):
    found = models.load_pretrained(path, **kwargs)
    assert found.module == module
    chex.assert_trees_all_equal(found.variables, variables)
    chex.assert_trees_all_equal_shapes_and_dtypes(found.variables, variables)
    return found


def test_found_by_itself(save, module, variables):
    found = check(save(), variables, module)
    assert (found.architecture, found.num_classes, found.image_size) == ("resnet18", 5, 224)
    assert found.preprocess == models.PREPROCESS["imagenet"]
    assert found.notes["library"] == "torchvision"
    assert "remarks" not in found.notes


@pytest.mark.parametrize("library", ["pytorch-cifar", "huggingface"])
def test_other_libraries(save, module, variables, library):
    found = check(save(written(module, variables, library)), variables, module)
    assert found.notes["library"] == library


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_precisions(save, arrays, dtype, variables, module):
    def rounded(array):
        return np.asarray(array).astype(dtype)

    expected = jax.tree.map(lambda leaf: rounded(leaf).astype("float32"), variables)
    check(save({name: rounded(array) for name, array in arrays.items()}), expected, module)


@pytest.mark.parametrize("prefix", ["module.", "module._orig_mod.", "model.", "net.encoder."])
def test_wrapped(save, arrays, variables, module, prefix):
    counter = {"bn1.num_batches_tracked": np.array([3])}
    path = save({prefix + name: array for name, array in {**arrays, **counter}.items()})
    check(path, variables, module)


def test_other_parts_of_a_wrapper(save, arrays, variables, module):
    content = {f"backbone.{name}": array for name, array in arrays.items() if "fc" not in name}
    path = save(content, **{"projector.weight": np.ones((2, 2), "f4")})
    found = models.load_pretrained(path)
    assert found.notes["remarks"] == ["1 other arrays were passed over: projector.weight"]
    chex.assert_trees_all_equal(found.variables, models.with_head(variables, 1))


def test_without_a_classifier(save, variables):
    found = models.load_pretrained(save(**{"fc.weight": None, "fc.bias": None}))
    chex.assert_trees_all_equal(found.variables, models.with_head(variables, 1))
    assert (found.num_classes, found.classes) == (1, ())


def test_without_the_last_stage(save, arrays):
    content = {k: a for k, a in arrays.items() if not k.startswith(("layer2", "fc"))}
    found = models.load_pretrained(save(content))
    assert found.options["stages"] == (1,)
    assert found.variables["params"]["head"]["kernel"].shape == (4, 1)


def folded(arrays, epsilon=1e-5):
    """As torch's fuse_conv_bn_eval does it."""
    found = {key: array for key, array in arrays.items() if key.startswith("fc")}
    for key, kernel in arrays.items():
        if kernel.ndim == 4:
            conv = key.removesuffix(".weight")
            norm = re.sub(r"conv(\d)$", r"bn\1", conv).replace("downsample.0", "downsample.1")
            gamma, beta, mean, var = (
                arrays[f"{norm}.{array}"]
                for array in ("weight", "bias", "running_mean", "running_var")
            )
            factor = gamma / np.sqrt(var + epsilon)
            found[key] = kernel * factor[:, None, None, None]
            found[f"{conv}.bias"] = beta - mean * factor
    return found


def test_folded_norms(save, arrays, variables, module):
    found = models.load_pretrained(save(folded(arrays)))
    assert found.module == module
    assert found.notes["remarks"] == ["8 BatchNorms were folded into convolutions"]
    apply = jax.jit(models.apply, static_argnums=0)
    expected = apply(module, variables, IMAGES)
    got = apply(module, found.variables, IMAGES)
    chex.assert_trees_all_close(got, expected, rtol=1e-4, atol=1e-4)
    # The norms change nothing at all.
    bn = {k: v["stem_bn"] for k, v in found.variables.items()}
    factor = jax.lax.rsqrt(bn["batch_stats"]["var"] + np.float32(module.epsilon))
    chex.assert_trees_all_equal(factor, np.ones(4, "f4"))


TIMM = {
    "architecture": "resnet18",
    "num_classes": 5,
    "pretrained_cfg": {
        "input_size": [3, 176, 176],
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "interpolation": "bicubic",
        "label_names": ["n1", "n2", "n3", "n4", "n5"],
        "label_descriptions": {"n1": "ant"},
    },
}
HUGGINGFACE = {
    "model_type": "resnet",
    "architectures": ["ResNetForImageClassification"],
    "id2label": {"1": "bee", "0": "ant", "2": "cat", "3": "dog", "4": "elk"},
}
PROCESSOR = {
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.25, 0.25, 0.25],
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 176},
}
CONFIGURED = models.Preprocess(255.0, (0.5,) * 3, (0.25,) * 3, interpolation="bicubic")


def test_what_timm_says(save, tmp_path):
    path = save(name="model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(TIMM))
    for each in (path, tmp_path):
        found = models.load_pretrained(each)
        assert (found.preprocess, found.image_size) == (CONFIGURED, 176)
        assert found.classes == ("ant", "n2", "n3", "n4", "n5")
    (tmp_path / "config.json").unlink()
    found = models.load_pretrained(save(metadata={"config": json.dumps(TIMM)}))
    assert (found.preprocess, found.image_size) == (CONFIGURED, 176)


def test_what_hugging_face_says(save, tmp_path, random_variables):
    module = models.create("resnet50", 5, stages=(1,), width=4, version="v1")
    variables = random_variables(module)
    save(written(module, variables, "huggingface"), name="model.safetensors")
    config = HUGGINGFACE | {"downsample_in_bottleneck": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    found = check(tmp_path, variables, module)
    assert (found.preprocess, found.image_size) == (CONFIGURED, 176)
    assert found.classes == ("ant", "bee", "cat", "dog", "elk")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config.json", "{", "its config.json is no JSON"),
        ("config.json", "[1]", "its config.json holds .1.; expected an object"),
        ("config.json", '{"mean": [1], "std": [1]}', "mean is .1.; expected 3 numbers"),
        ("config.json", '{"mean": 0.5, "std": 0}', "expected .* positive standard deviations"),
    ],
)
def test_bad_configs(save, tmp_path, name, content, said):
    save(name="model.safetensors")
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=said) as caught:
        models.load_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def test_names_of_other_classes(save, tmp_path):
    save(name="model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"label_names": ["a", "b"]}))
    found = models.load_pretrained(tmp_path)
    assert found.classes == ()
    assert "2 names of classes were left out: it has 5" in found.notes["remarks"]


def test_what_the_user_says(save, variables):
    found = models.load_pretrained(save(), options={"epsilon": 1e-3}, image_size=96)
    assert found.module == models.create("resnet18", 5, **OPTIONS, epsilon=1e-3)
    assert found.image_size == 96
    found = models.load_pretrained(save(), name="resnet34", options=OPTIONS)
    assert found.architecture == "resnet34"
    chex.assert_trees_all_equal(found.variables, variables)


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"options": {"width": 8}}, "as torchvision's resnet18: .* mis-shaped: bn1.bias has shape"),
        ({"options": {"depth": 8}}, "unknown option 'depth' of model resnet18"),
        ({"name": "resnet34"}, "as torchvision's resnet34: .* missing: layer1.1.bn1.bias"),
        ({"name": "vgg11"}, "it looks like torchvision's resnet18; expected a VGG, but by "),
        ({"name": "unet"}, "no library's names of a UNet are known"),
    ],
)
def test_what_is_not_so(save, kwargs, said):
    with pytest.raises(UserError, match=said) as caught:
        models.load_pretrained(save(), **kwargs)
    assert "\n" not in str(caught.value)


def test_all_that_does_not_fit_at_once(save):
    changes = {
        "layer1.0.bn1.weight": None,
        "layer1.0.bn_1.weight": np.ones(4, "f4"),
        "layer2.0.conv1.weight": np.ones((8, 4, 1, 1), "f4"),
        "fc.bias": None,
        "extra": np.ones(1, "f4"),
    }
    with pytest.raises(UserError) as caught:
        models.load_pretrained(save(**changes))
    for said in (
        "2 missing: fc.bias, layer1.0.bn1.weight (nearest: layer1.0.bn_1.weight)",
        "2 of nothing in the network: extra, layer1.0.bn_1.weight (nearest: layer1.0.bn1.weight)",
        "1 mis-shaped: layer2.0.conv1.weight has shape (8, 4, 1, 1); expected (8, 4, 3, 3)",
    ):
        assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_of_no_known_network(save):
    content = {"encoder.weight": np.ones((2, 2), "f4")}
    with pytest.raises(UserError, match=r"1 names of no network .* such as encoder.weight; expec"):
        models.load_pretrained(save(content))


def test_folders(save, tmp_path, variables, module):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no weights in this folder"):
        models.load_pretrained(tmp_path / "empty")
    save()
    check(tmp_path, variables, module)
    save(name="more.safetensors")
    said = r"a folder of 2 files \(more.safetensors, weights.safetensors\); expected one"
    with pytest.raises(UserError, match=said):
        models.load_pretrained(tmp_path)
    save(name="model.safetensors")
    check(tmp_path, variables, module)


def test_our_models(tmp_path, variables, module):
    model = models.Model("resnet18", OPTIONS, variables, models.PREPROCESS["nevis"], 24)
    models.save(tmp_path / "m", model)
    found = check(tmp_path / "m", variables, module)
    assert (found.preprocess, found.image_size) == (model.preprocess, 24)
    check(tmp_path / "m", variables, module, name="resnet18", options={"width": 4})
    for kwargs in ({"name": "resnet34"}, {"options": {"width": 8}}):
        with pytest.raises(UserError, match=r"expected (resnet34|8)"):
            models.load_pretrained(tmp_path / "m", **kwargs)


@pytest.mark.parametrize("kind", ["checkpoint", "msgpack"])
def test_our_arrays_alone(tmp_path, variables, module, kind):
    path = tmp_path / "c.msgpack"
    if kind == "checkpoint":
        models.save_checkpoint(path, variables)
    else:
        path.write_bytes(flax.serialization.to_bytes(variables))
    check(path, variables, module)
    check(path, variables, module, name="resnet18", options=OPTIONS)


def test_what_our_export_says(save, arrays, variables, module):
    """A pruned network's widths and options are not guessed."""
    narrow = jax.tree.map(lambda leaf: leaf, variables)
    block, stats = narrow["params"]["stage1_block1"], narrow["batch_stats"]["stage1_block1"]
    block["conv1"]["kernel"] = block["conv1"]["kernel"][..., :3]
    block["bn1"] = {key: array[:3] for key, array in block["bn1"].items()}
    stats["bn1"] = {key: array[:3] for key, array in stats["bn1"].items()}
    block["conv2"]["kernel"] = block["conv2"]["kernel"][:, :, :3]
    told = {
        "architecture": "resnet18",
        "options": {**OPTIONS, "epsilon": 1e-4},
        "preprocess": "caffe",
        "image_size": 48,
        "classes": list("abcde"),
        "shapes": {path: leaf.shape for path, leaf in flatten_dict(narrow, sep="/").items()},
    }
    content = written(module, narrow, "torchvision")
    found = models.load_pretrained(save(content, {"ctl_jax": json.dumps(told)}))
    chex.assert_trees_all_equal(found.variables, narrow)
    assert found.module == models.create("resnet18", 5, **told["options"])
    assert (found.preprocess, found.image_size) == (models.PREPROCESS["caffe"], 48)
    assert found.classes == tuple("abcde")
    for wrong in ({"options": 3}, {"shapes": 3}, {"shapes": {"params/x": [3]}}, {"preprocess": 3}):
        path = save(content, {"ctl_jax": json.dumps(told | wrong)})
        with pytest.raises(UserError, match=r"metadata is not what export wrote|preprocess is 3"):
            models.load_pretrained(path)


def test_position_embeddings_of_another_size(save, tmp_path, random_variables):
    options = {"heads": 1, "depth": 1, "patch": 8}
    module = models.create("vit_s16", 2, **options)
    shapes = jax.eval_shape(lambda key: models.init(module, key, 32), jax.random.key(0))
    variables = jax.tree.map(lambda leaf: np.ones(leaf.shape, "f4"), shapes)
    path = save(written(module, variables, "timm"))
    assert models.load_pretrained(path).image_size == 32
    found = models.load_pretrained(path, image_size=48)
    assert found.variables["params"]["position"].shape[1] == 37
    assert "pos_embed has shape (1, 17, 64); it was resized to (1, 37, 64)" in str(found.notes)
    models.save(tmp_path / "m", models.load_pretrained(path))
    again = models.load_pretrained(tmp_path / "m", image_size=48)
    chex.assert_trees_all_equal(again.variables, found.variables)
    # Both networks of an ensemble.
    model = models.load_pretrained(path)
    one = models.new_head(model.module, model.variables, 2, 32, "taps")
    both = {kind: {**one[kind], "ensemble": model.variables[kind]} for kind in one}
    models.save(tmp_path / "both", dataclasses.replace(model, variables=both))
    again = models.load_pretrained(tmp_path / "both", image_size=48).variables["params"]
    for params in (again, again["ensemble"]):
        chex.assert_trees_all_equal(params["position"], found.variables["params"]["position"])
    chex.assert_trees_all_equal(again["head"], one["params"]["head"])


def test_from_the_hub(save, tmp_path, monkeypatch, variables, module):
    save(name="model.safetensors")
    asked = []

    def download(repository, allow_patterns):
        asked.append((repository, allow_patterns[0]))
        return str(tmp_path)

    hub = types.SimpleNamespace(snapshot_download=download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    check("hf:timm/resnet18", variables, module)
    check("hf:timm/resnet18/model.safetensors", variables, module)
    with pytest.raises(UserError, match=r"hf:a/b/c.bin: no c.bin in that repository"):
        models.load_pretrained("hf:a/b/c.bin")
    assert asked == [
        ("timm/resnet18", "model.safetensors"),
        ("timm/resnet18", "model.safetensors"),
        ("a/b", "c.bin"),
    ]


@pytest.mark.parametrize(
    ("hub", "path", "said"),
    [
        (None, "hf:timm/a", r"needs the package huggingface_hub: pip install 'ctl-jax\[hf\]'"),
        (OSError("no right\nto it"), "hf:timm/a", r"cannot be downloaded .*\(no right\)"),
        (ConnectionError(), "hf:timm", "expected hf:OWNER/REPOSITORY"),
    ],
)
def test_without_the_hub(monkeypatch, hub, path, said):
    def download(*args, **kwargs):
        raise hub

    fake = hub and types.SimpleNamespace(snapshot_download=download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    with pytest.raises(UserError, match=said) as caught:
        models.load_pretrained(path)
    assert "\n" not in str(caught.value)


def test_without_a_network_the_hub_may_answer_later(monkeypatch):
    def download(*args, **kwargs):
        try:
            raise ConnectionError("no route\nto host")
        except ConnectionError as error:
            raise FileNotFoundError("not in the cache") from error

    fake = types.SimpleNamespace(snapshot_download=download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    with pytest.raises(Unreachable, match=r"hf:timm/a: cannot be .* \(not in the cache\)$"):
        models.load_pretrained("hf:timm/a")


def test_real_keras_weights(keras_file, keras_module):
    found = models.load_pretrained(keras_file)
    assert found.module == keras_module.clone(num_outputs=1)
    assert (found.preprocess, found.image_size) == (models.PREPROCESS["caffe"], 224)


def test_real_cifar_weights(shared_dir):
    pytest.importorskip("torch")
    path = shared_dir / "pretrained" / "resnet20-12fca82f.th"
    if not path.exists():
        pytest.skip(f"no {path}")
    found = models.load_pretrained(path)
    assert (found.architecture, found.options, found.image_size) == ("resnet20", {}, 32)
    assert found.num_classes == 10
