"""Networks in two parts: they are the whole one, and cost no more."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctl_jax import compute, models
from ctl_jax.errors import UserError

from .networks import SIZE, build

# One of each way to be made of layers: with branches, gates, concatenations, tokens.
FAMILIES = ("resnet50", "mobilenet_v3_small", "densenet121", "vit_ti16", "convnext_tiny", "vgg11")
IMAGES = jax.ShapeDtypeStruct((2, SIZE, SIZE, 3), jnp.float32)


def last_stage(variables):
    stages = models.stages(variables)
    last = [title for title in stages if title.startswith("stage")][-1]
    return {*stages[last], *stages["head"]}


def flops(function, *args):
    return compute.flops(function, *args)


@pytest.mark.parametrize("name", FAMILIES)
def test_both_parts_are_the_network_and_cost_as_much(name):
    module, variables = build(name)
    changing = last_stage(variables)
    layer = models.entrance(module, variables, changing, SIZE)
    lower = functools.partial(models.entering, module, layer=layer)
    upper = functools.partial(models.apply_from, module, layer=layer, image_size=SIZE)
    value = jax.eval_shape(lower, variables, IMAGES)
    both = flops(lower, variables, IMAGES), flops(upper, variables, value)
    whole = flops(functools.partial(models.apply, module), variables, IMAGES)
    # But for what the parts have in common between two layers, such as a pooling.
    assert 0 < both[0] < whole
    assert sum(both) == whole
    # No parameter that changes is read below.
    params = variables["params"]
    zeros = {name: jax.tree.map(jnp.zeros_like, params[name]) for name in changing}
    rng = np.random.default_rng(0)
    random = jax.tree.map(
        lambda leaf: jnp.asarray(rng.uniform(0.1, 0.5, leaf.shape), jnp.float32), variables
    )
    images = rng.normal(size=IMAGES.shape).astype(np.float32)

    @jax.jit
    def compare(variables, images):
        below = {**variables, "params": {**variables["params"], **zeros}}
        return models.apply(module, variables, images), upper(variables, lower(below, images))

    one, other = compare(random, images)
    chex.assert_trees_all_close(other, one, rtol=1e-5)


def test_statistics_are_those_of_the_upper_part_alone():
    module, variables = build("resnet50")
    upper = functools.partial(models.apply_from, module, layer="stage2_block1", image_size=SIZE)
    value = jax.eval_shape(
        functools.partial(models.entering, module, layer="stage2_block1"), variables, IMAGES
    )
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), variables)
    by_batch = lambda path: path.startswith("stage2")  # noqa: E731
    _, statistics = jax.jit(functools.partial(upper, train=by_batch))(zeros, jnp.ones(value.shape))
    chex.assert_trees_all_equal_shapes(statistics, variables["batch_stats"])
    assert float(np.max(statistics["stage1_block1"]["bn1"]["var"])) == 0


@pytest.mark.parametrize(
    ("name", "changing", "layer"),
    [
        ("resnet50", {"head"}, "head"),
        ("resnet50", {"stage2_block2", "head"}, "stage2_block2"),
        ("resnet50", {"stem_conv"}, ""),
        ("densenet121", {"stage2_layer2", "head"}, "stage2_layer2"),
        # What a layer reads goes on beside it.
        ("unet", {"up1", "head"}, ""),
        # Not a layer's.
        ("vit_ti16", {"position", "head"}, ""),
    ],
)
def test_where_a_network_may_be_entered(name, changing, layer):
    module, variables = build(name)
    assert models.entrance(module, variables, changing, SIZE) == layer


def test_a_head_with_taps_reads_the_layers_below():
    module, variables = build("resnet50")
    tapped = jax.eval_shape(lambda: models.new_head(module, variables, 3, SIZE, "taps"))
    # The lowest tap is the end of the first stage.
    assert models.entrance(module, tapped, {"head"}, SIZE) == "stage1_block1"
    assert models.entrance(module, variables, {"head"}, SIZE) == "head"


def test_a_users_own_network():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(4, (3, 3), name="one")(x))
            x = nn.relu(nn.Conv(4, (3, 3), name="two")(x)).mean((1, 2))
            return nn.Dense(3, name="classifier")(x)

    module = models._custom.Own(Net(), "classifier")
    variables = jax.eval_shape(
        functools.partial(models.init, module, image_size=8), jax.random.key(0)
    )
    assert models.entrance(module, variables, {"head"}, 8) == "classifier"
    assert models.entrance(module, variables, {"two", "head"}, 8) == "two"


def test_a_layer_that_is_not_called():
    module, variables = build("resnet50")
    lower = functools.partial(models.entering, module, layer="stage9")
    with pytest.raises(UserError, match="no top-level layer 'stage9' of the ResNet is called"):
        jax.eval_shape(lower, variables, IMAGES)
