"""Low-rank adapters: exact and cheap; trainings with them are in test_feature_maps.py."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctl_jax import compute, finetune, models
from ctl_jax.errors import UserError
from ctl_jax.finetune import Augmentation, Hyper, Phase, Recipe, _adapters, phases
from ctl_jax.trees import leaf_paths

RANK, BATCH, SIZE, CLASSES = 2, 4, 8, 3
LORA = Phase(("head/*",), "frozen", lora=RANK)
PLAIN = Augmentation(crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0), flip=False)
RECIPE = Recipe("nevis", PLAIN, phase=LORA)
# Strides and projections; groups that pruning could have left; attention and dense layers.
NETWORKS = {
    "resnet50": {"stages": (1, 1), "width": 4, "stem": "cifar"},
    "shufflenet_v1_g2": {"stages": (1,), "width": 8, "stem_width": 4},
    "vit_ti16": {"depth": 1, "heads": 2, "head_width": 4, "patch": 4},
}


def random_like(tree, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.uniform(0.1, 0.5, leaf.shape), jnp.float32), tree
    )


def adapters_of(params, rank=RANK, phase=LORA):
    _, frozen = phases.partition(phase, params)
    return _adapters.init(params, frozen, rank, jax.random.key(0))


def shapes_of(name, **options):
    module = models.create(name, CLASSES, **(NETWORKS[name] | options))
    init = functools.partial(models.init, module, image_size=16)
    return module, jax.eval_shape(init, jax.random.key(0))


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_with_changes_are_the_network_of_merged_kernels(name):
    module, variables = shapes_of(name)
    variables = random_like(variables)
    changes = random_like(jax.eval_shape(adapters_of, variables["params"]), 1)
    images = np.random.default_rng(2).normal(size=(2, 16, 16, 3)).astype(np.float32)

    @jax.jit
    def both(variables, changes):
        with _adapters.added(changes):
            added = models.apply(module, variables, images)
        merged = {**variables, "params": _adapters.merged(variables["params"], changes)}
        return added, models.apply(module, merged, images), models.apply(module, variables, images)

    added, merged, plain = both(variables, changes)
    chex.assert_trees_all_close(added, merged, rtol=1e-3)
    assert np.abs(added - plain).max() > 1e-2 * np.abs(plain).max()


@pytest.mark.parametrize("name", NETWORKS)
def test_each_frozen_kernel_with_a_rank_has_one(name):
    _, variables = shapes_of(name)
    params = variables["params"]
    changes = jax.eval_shape(adapters_of, params)
    kernels = {
        path.removesuffix("/kernel"): leaf
        for path, leaf in leaf_paths(params)
        if path.endswith("/kernel") and not path.startswith("head/") and leaf.shape[-2] > 1
    }
    assert {layer: change.change.shape for layer, change in random_like(changes).items()} == {
        layer: leaf.shape for layer, leaf in kernels.items()
    }
    for change in changes.values():
        assert change.down.shape[-1] == change.up.shape[0] == RANK


def test_the_first_update_is_expected_to_be_that_of_the_kernel():
    """E[A A^T] = I: then A (A^T dW), what B's gradient makes of the kernel, is dW on average."""
    params = {"layer": {"kernel": jnp.zeros((6, 4))}, "head": {"kernel": jnp.zeros((4, 2))}}
    change = adapters_of(params, rank=20_000)["layer"]
    chex.assert_trees_all_close(change.down @ change.down.T, jnp.eye(6), atol=0.05)
    chex.assert_trees_all_equal(change.up, jnp.zeros_like(change.up))


@pytest.fixture(scope="module")
def network():
    module = models.create("resnet18", 1, stages=(1,), width=4, stem="cifar")
    return module, random_like(models.with_head(models.init(module, jax.random.key(0), SIZE), 3))


def test_flops_have_no_gradient_of_a_frozen_kernel(network):
    module, variables = network
    state = jax.eval_shape(functools.partial(finetune.init_state, RECIPE, seed=0), variables)
    found = compute.flops(
        functools.partial(finetune.train_step, module, RECIPE),
        state,
        jax.ShapeDtypeStruct((BATCH, SIZE, SIZE, 3), jnp.uint8),
        jax.ShapeDtypeStruct((BATCH,), jnp.int32),
        Hyper(0.1, 1, 0, CLASSES),
    )
    stem, block, head = 9 * 3 * 4, 9 * 4 * 4, 4 * CLASSES
    pixels = BATCH * SIZE * SIZE
    # Forward, and to the inputs of all but the first layer; the head's weights, too.
    kernels = pixels * (stem + 4 * block) + 3 * BATCH * head
    # Forward, and both gradients, but of the images.
    down = pixels * RANK * (2 * 9 * 3 + 3 * 2 * 9 * 4)
    up = pixels * RANK * 4 * 3 * 3
    assert found == 2 * (kernels + down + up)


def test_without_a_rank_there_are_none(network):
    state = jax.eval_shape(
        functools.partial(finetune.init_state, Recipe("nevis", PLAIN), seed=0), network[1]
    )
    assert state.adapters is None
    assert _adapters.merged(network[1], None) is network[1]


def test_a_phase_that_freezes_no_kernel():
    with pytest.raises(UserError, match="lora is 2; expected a phase that leaves a kernel frozen"):
        adapters_of(shapes_of("resnet50")[1]["params"], phase=Phase())


def test_layers_that_can_have_no_change():
    module, variables = shapes_of("vit_ti16", depth=2, scan=True)

    def logits(variables):
        with _adapters.added(adapters_of(variables["params"])):
            return models.apply(module, variables, jnp.zeros((1, 16, 16, 3)))

    with pytest.raises(UserError, match=r"lora: blocks/.*/kernel is part of a loop; expected"):
        jax.eval_shape(logits, variables)

    layer = nn.ConvTranspose(2, (3, 3))
    params = {"up": jax.eval_shape(layer.init, jax.random.key(0), jnp.ones((1, 4, 4, 3)))["params"]}
    params["head"] = {"kernel": jnp.ones((2, 2))}
    said = "lora: no change can be added to up/kernel; expected the kernel of an nn.Conv, nn.Dense"
    changes = jax.eval_shape(adapters_of, params)
    with pytest.raises(UserError, match=said), _adapters.added(changes):
        pass
