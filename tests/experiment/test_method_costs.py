"""What a step and a forward pass cost."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctl_jax import compute, finetune, models, pruning
from ctl_jax.errors import UserError
from ctl_jax.experiment.method_costs import cost_by_classes
from ctl_jax.finetune import Augmentation, Hyper, Phase, Recipe

BATCH, SIZE = 8, 32
TOKENS = {"heads": 2, "depth": 2, "head_width": 4, "patch": 16}
MODELS = {
    "resnet18": {"stages": (1, 1), "width": 8},
    "densenet121": {"stages": (1, 2), "width": 4, "growth": 4},
    "vgg11": {"stages": (1, 1), "width": 4, "hidden": 8, "pool": 2},
    "vit_s16": {**TOKENS, "scan": True, "remat": True},
    "deit_s16_distilled": TOKENS,
}
PHASES = {
    "all": Phase(),
    "linear probe": Phase(("head/*",), "frozen"),
    "kernels but the head's": Phase(("*[0-9]*/kernel",)),
    "scales and head": Phase(("*/scale", "head/*")),
}


@functools.cache
def build(name):
    module = models.create(name, 1, **MODELS[name])
    init = functools.partial(models.init, module, image_size=SIZE)
    return module, jax.eval_shape(init, jax.random.key(0))


def counted(module, recipe, variables, num_classes):
    """Each number by itself."""
    headed = jax.eval_shape(functools.partial(models.with_head, num_outputs=num_classes), variables)
    state = jax.eval_shape(functools.partial(finetune.init_state, recipe, seed=0), headed)
    images = jax.ShapeDtypeStruct((BATCH, SIZE, SIZE, 3), jnp.uint8)
    labels = jax.ShapeDtypeStruct((BATCH,), jnp.int32)
    step = functools.partial(finetune.train_step, module, recipe)
    image = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)
    return (
        compute.flops(step, state, images, labels, Hyper(0.1, 9, 1, num_classes)),
        compute.flops(functools.partial(models.apply, module), headed, image),
        models.count_params(headed),
    )


@pytest.mark.parametrize(
    ("name", "phase"),
    [(n, p) for n in MODELS for p in PHASES if (n, p) != ("vgg11", "scales and head")],
)
def test_cost_of_any_number_of_classes_is_what_counting_it_gives(name, phase):
    module, variables = build(name)
    recipe = Recipe("nevis", Augmentation(), phase=PHASES[phase])
    cost = cost_by_classes(module, recipe, variables, batch_size=BATCH, image_size=SIZE)
    for num_classes in (1, 37):
        found = cost(num_classes)
        expected = counted(module, recipe, variables, num_classes)
        assert (found.step, found.forward, found.params) == expected


def test_of_a_pruned_network():
    module, variables = build("resnet18")
    images = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)
    groups = pruning.trace(functools.partial(models.apply, module), variables, images)
    scores = {name: np.zeros(group.size) for name, group in groups.items()}
    keep = pruning.select(groups, scores, ratio=0.5, scope="channels")
    small = pruning.prune(variables, groups, keep)
    recipe = Recipe("nevis", Augmentation())
    cost = cost_by_classes(module, recipe, small, batch_size=BATCH, image_size=SIZE)(5)
    assert (cost.step, cost.forward, cost.params) == counted(module, recipe, small, 5)


def test_a_batch_that_batch_norm_cannot_normalise():
    module, variables = build("resnet18")
    with pytest.raises(UserError, match=r"^a batch_size of 1 at an image_size of 8: BatchNorm"):
        cost_by_classes(
            module, Recipe("nevis", Augmentation()), variables, batch_size=1, image_size=8
        )
