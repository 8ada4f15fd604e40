"""Real weights carry over to real images: a linear probe on frozen features."""

import functools
import io
import zipfile

import jax
import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import RidgeClassifier

from ctl_jax import models

PER_CLASS = 16


def scenes(path, split):
    """The first images of each class, at 64x64."""
    images, labels = [], []
    with zipfile.ZipFile(path) as file:
        names = sorted(n for n in file.namelist() if f"/{split}/" in n and not n.endswith("/"))
        by_class = {}
        for name in names:
            by_class.setdefault(name.split("/")[2], []).append(name)
        for label, members in enumerate(by_class.values()):
            for name in members[:PER_CLASS]:
                image = Image.open(io.BytesIO(file.read(name))).convert("RGB").resize((64, 64))
                images.append(np.asarray(image))
                labels.append(label)
    return np.stack(images), np.array(labels)


def probe(module, variables, path):
    """Accuracy on the test images of ridge regression on the training images' features."""
    fn = jax.jit(functools.partial(models.features, module))
    sets = []
    for split in ("train", "test"):
        images, labels = scenes(path, split)
        batches = np.split(images, range(48, len(images), 48))
        features = [fn(variables, models.PREPROCESS["caffe"](batch)) for batch in batches]
        sets.append((np.concatenate(features), labels))
    (x, y), (x_test, y_test) = sets
    mean, scale = x.mean(0), x.std(0) + 1e-6
    model = RidgeClassifier(alpha=100.0).fit((x - mean) / scale, y)
    return model.score((x_test - mean) / scale, y_test)


@pytest.mark.slow
def test_far_above_random_weights(keras_file, keras_module, shared_dir):
    path = shared_dir / "real_data/folders/scenes15.zip"
    if not path.is_file():
        pytest.skip(f"no {path}")
    random = models.init(keras_module, jax.random.key(0), 64)
    pretrained = models.load_weights(keras_file, keras_module, random)
    accuracy = {
        "random": probe(keras_module, random, path),
        "pretrained": probe(keras_module, pretrained, path),
    }
    print(accuracy)
    assert accuracy["pretrained"] > 0.6, accuracy
    assert accuracy["pretrained"] > accuracy["random"] + 0.25, accuracy
