"""Networks without BatchNorm are finetuned, saved and read like any other."""

import functools

import jax
import numpy as np
import pytest

from ctl_jax import finetune, models

OPTIONS = {"heads": 2, "depth": 1, "head_width": 4, "patch": 4}


@pytest.mark.parametrize(("name", "pattern"), [("vit_s16", "*"), ("deit_s16_distilled", "head/*")])
def test_fit_and_checkpoint(name, pattern, tmp_path):
    module = models.create(name, 3, **OPTIONS)
    # One program: layer by layer each kernel's draw would be one of its own.
    init = functools.partial(models.init, module, image_size=8)
    variables = jax.jit(init)(jax.random.key(0))
    rng = np.random.default_rng(0)
    labels = np.arange(12, dtype=np.int32) % 3
    noise = rng.integers(0, 40, (12, 8, 8, 3))
    images = (100 * labels.reshape(-1, 1, 1, 1) // 2 + noise).astype(np.uint8)
    augmentation = finetune.Augmentation(crop_area=(1.0, 1.0), flip=False)
    recipe = finetune.Recipe("nevis", augmentation, phase=finetune.Phase((pattern,)))
    hyper = finetune.Hyper(0.05, 12, 2, 3)
    result = finetune.fit(
        [finetune.Leg(finetune.make_step(module, recipe), recipe, hyper)],
        variables,
        images,
        labels,
        batch_size=12,
        seed=0,
    )
    assert result.history[-1].loss < np.log(3)  # the head starts at zero
    assert result.variables["batch_stats"] == {}
    kernels = [tree["params"]["patch_conv"]["kernel"] for tree in (variables, result.variables)]
    assert np.any(kernels[0] != kernels[1]) == (pattern == "*")
    scores = finetune.evaluate(
        module, "nevis", result.variables, images, labels, num_classes=3, batch_size=12
    )
    x = models.PREPROCESS["nevis"](images)
    logits = jax.jit(functools.partial(models.apply, module))(result.variables, x)
    assert scores.value == np.mean(np.argmax(logits, -1) == labels)

    models.save_checkpoint(tmp_path / "c", result.variables)
    loaded = models.load_weights(tmp_path / "c", module, variables)
    expected = models.with_head(result.variables, 3)
    assert models.content_hash(loaded) == models.content_hash(expected)
    assert jax.tree.structure(loaded) == jax.tree.structure(expected)
