"""A model comes back from its folder as it was, ready to be applied."""

import dataclasses
import functools
import hashlib
import io
import json

import chex
import jax
import numpy as np
import pytest
from PIL import Image

from ctl_jax import files, finetune, models
from ctl_jax.data.images import decode
from ctl_jax.errors import UserError

OPTIONS = {"stages": [1, 2], "width": 4, "version": "v1", "conv_bias": True}


@pytest.fixture(scope="module")
def model(small):
    return models.Model(
        "resnet50",
        OPTIONS,
        small[1],
        "caffe",
        image_size=24,
        classes=("ant", "bee", "cat", "dog", "élan"),
        compute_dtype="bfloat16",
        notes={"dev": 0.5, "spent": [1, 2]},
        keep='{"version": 2}\n',
    )


def check_equal(loaded, model):
    chex.assert_trees_all_equal(loaded.variables, model.variables)
    chex.assert_trees_all_equal_shapes_and_dtypes(loaded.variables, model.variables)
    for field in dataclasses.fields(model):
        if field.name != "variables":
            assert getattr(loaded, field.name) == getattr(model, field.name)
    assert (loaded.module, loaded.num_classes) == (model.module, model.num_classes)


def test_round_trip(model, small, tmp_path):
    models.save(tmp_path / "new" / "m", model)
    loaded = models.load(str(tmp_path / "new" / "m"))
    check_equal(loaded, model)
    assert loaded.module == small[0]
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["m"]
    # A checkpoint like any other.
    chex.assert_trees_all_equal(models.load_checkpoint(tmp_path / "new" / "m"), model.variables)
    weights = models.load_weights(tmp_path / "new" / "m", loaded.module, loaded.variables)
    chex.assert_trees_all_equal(weights, models.with_head(model.variables, 5))


def test_again_the_same(model, tmp_path):
    models.save(tmp_path / "a", model)
    models.save(tmp_path / "b", models.load(tmp_path / "a"))
    for name in ("model.json", "keep.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert json.loads((tmp_path / "a" / "model.json").read_bytes())["versions"]["jax"]


def picture(height, width):
    rng = np.random.default_rng(height)
    small = rng.integers(0, 256, (4, 5, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def test_called(model):
    model = dataclasses.replace(model, compute_dtype="float32")
    pictures = [picture(24, 24), picture(31, 90), picture(64, 20)]
    files = []
    for each in pictures:
        files.append(io.BytesIO())
        Image.fromarray(each).save(files[-1], "png")
    # As a run's images are decoded, and as a run evaluates.
    batch = np.stack([decode(file.getvalue(), 24) for file in files])
    images = model.preprocess(batch)
    expected = jax.jit(functools.partial(models.apply, model.module))(model.variables, images)
    got = model(pictures)
    assert (got.dtype, got.shape) == (np.float32, (3, 5))
    chex.assert_trees_all_close(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    chex.assert_trees_all_equal(model(batch), got)
    assert model(batch[:0]).shape == (0, 5)
    # More than go through it at once.
    many = model(np.concatenate([batch] * 23))
    chex.assert_trees_all_close(many, np.tile(got, (23, 1)), rtol=1e-5, atol=1e-5)


def test_accuracy_is_the_runs(model):
    images = np.random.default_rng(0).integers(0, 256, (9, 24, 24, 3)).astype(np.uint8)
    labels = np.asarray(model(images)).argmax(-1).astype(np.int32)
    labels[:3] = (labels[:3] + 1) % 5
    scores = finetune.evaluate(
        model.module,
        model.preprocess,
        model.variables,
        images,
        labels,
        num_classes=5,
        compute_dtype=model.compute_dtype,
    )
    assert scores.value == pytest.approx(6 / 9)


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32), "photo.jpg"]
)
def test_no_image(model, image):
    with pytest.raises(UserError, match=r"an image is .*; expected uint8 \[height, width, 3\]"):
        model([image])


def test_pruned_and_without_names(random_variables, tmp_path):
    pruned = random_variables(models.create("resnet50", 2, **OPTIONS | {"width": 1}))
    model = models.Model("resnet50", OPTIONS, pruned, "nevis", image_size=24)
    models.save(tmp_path / "m", model)
    loaded = models.load(tmp_path / "m")
    check_equal(loaded, model)
    images = np.ones((1, 24, 24, 3), np.float32)
    logits = jax.jit(functools.partial(models.apply, loaded.module))(loaded.variables, images)
    assert logits.shape == (1, 2)


def test_without_statistics(random_variables, tmp_path):
    options = {"heads": 2, "depth": 1, "head_width": 4, "patch": 16}
    variables = random_variables(models.create("vit_s16", 3, **options))
    model = models.Model("vit_s16", options, variables, "nevis", image_size=32)
    models.save(tmp_path / "m", model)
    check_equal(models.load(tmp_path / "m"), model)


def test_in_an_object_store(model, bucket):
    folder = files.path(f"{bucket}/run") / "model"
    models.save(folder, model)
    check_equal(models.load(str(folder)), model)
    chex.assert_trees_all_equal(models.load_checkpoint(folder), model.variables)


def test_damage(model, tmp_path):
    models.save(tmp_path / "m", model)
    file = tmp_path / "m" / "model.json"
    file.write_bytes(file.read_bytes().replace(b"caffe", b"nevis"))
    with pytest.raises(UserError, match=r"is damaged: its file 'model.json' is not the one in"):
        models.load(tmp_path / "m")


def rewrite(folder, **changed):
    """Another model.json, with sums that are right."""
    old = (folder / "model.json").read_bytes()
    new = json.dumps(json.loads(old) | changed).encode()
    (folder / "model.json").write_bytes(new)
    sums = (folder / "SHA256SUMS").read_text()
    digests = (hashlib.sha256(content).hexdigest() for content in (old, new))
    (folder / "SHA256SUMS").write_text(sums.replace(*digests))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"format": 2}, "its model.json is not of format 1"),
        ({"num_classes": 7}, "its head has 5 outputs; expected 7"),
        ({"architecture": "resnet5"}, "unknown model 'resnet5'; expected one of"),
        ({"options": {"depth": 2}}, "unknown option 'depth' of model resnet50"),
    ],
)
def test_of_another_version(model, tmp_path, changed, said):
    models.save(tmp_path / "m", model)
    rewrite(tmp_path / "m", **changed)
    with pytest.raises(UserError, match=rf"^model .*/m: {said}"):
        models.load(tmp_path / "m")


def test_no_model(model, tmp_path):
    models.save_checkpoint(tmp_path / "c", model.variables)
    with pytest.raises(UserError, match=r"model .*/c: no model.json; expected what models.save"):
        models.load(tmp_path / "c")
    with pytest.raises(UserError, match="nowhere: no such directory"):
        models.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"preprocess": "x"}, "preprocess is 'x'; expected one of nevis, caffe, imagenet"),
        ({"compute_dtype": "float16"}, "compute_dtype is 'float16'; expected one of float32, "),
        ({"classes": ("a",)}, "1 names of classes; expected 5, as many as the head has outputs"),
        ({"options": {"width": 0}}, "option width of model resnet50 is 0; expected a positive"),
    ],
)
def test_what_there_is_not(model, changed, said):
    with pytest.raises(UserError, match=said):
        dataclasses.replace(model, **changed)
