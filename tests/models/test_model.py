"""A model comes back from its folder as it was, ready to be applied."""

import dataclasses
import functools
import hashlib
import json

import chex
import jax
import numpy as np
import pytest

from ctl_jax import files, models
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
