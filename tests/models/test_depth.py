"""Networks without their later stages: what is left computes what it did."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctl_jax import compute, models
from ctl_jax.errors import UserError
from ctl_jax.models import depth

from .networks import OPTIONS, SIZE, build

# One of each family.
NAMES = [
    next(name for name in models.NAMES if name.startswith(family))
    for family in OPTIONS
    if family not in ("unet", "vgg")
]
# The first layer of the last stage, where its name is not the first of its stage's.
FIRST = {"convnext_atto": "stage2_norm"}
IMAGES = jax.ShapeDtypeStruct((2, SIZE, SIZE, 3), jnp.float32)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_left_computes_what_it_did(name):
    module, variables = build(name)
    count = len(depth.numbers(variables["params"]))
    assert count > 1
    short = models.shorten(variables, count - 1)
    assert set(models.stages(short)) == set(models.stages(variables)) - {f"stage{count}"}
    assert models.stages(short)["head"] == ("head",)
    new = functools.partial(models.new_head, module, num_outputs=3, image_size=SIZE, head="taps")
    headed = jax.eval_shape(new, short)
    # A forward pass of its own costs less, and all that reads it takes it as it is.
    whole, less = (
        compute.flops(functools.partial(models.apply, module), each, IMAGES)
        for each in (variables, headed)
    )
    assert 0 < less < whole
    beyond = FIRST.get(name, models.stages(variables)[f"stage{count}"][0])
    rng = np.random.default_rng(0)
    random = jax.tree.map(
        lambda leaf: jnp.asarray(rng.uniform(0.1, 0.5, leaf.shape), jnp.float32), variables
    )
    images = rng.normal(size=IMAGES.shape).astype(np.float32)

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def compare(variables, images):
        entering = models.entering(module, variables, images, beyond)
        short = models.shorten(variables, count - 1)
        return entering, models.representation(module, short, images, "taps")

    entering, found = compare(random, images)
    most = np.max(entering, axis=tuple(range(1, entering.ndim - 1)))
    chex.assert_trees_all_close(found[:, -most.shape[1] :], most, rtol=1e-5)
    assert found.shape[1] == headed["params"]["head"]["kernel"].shape[0]


def test_a_network_is_shortened_after_a_cut_and_again(small):
    module, variables = small
    once = models.new_head(module, models.shorten(variables, 1), 5, 32)
    logits = models.apply(module, once, jnp.zeros((1, 32, 32, 3)))
    assert logits.shape == (1, 5)
    trained, statistics = models.apply(module, once, jnp.ones((2, 32, 32, 3)), train=True)
    chex.assert_trees_all_equal_shapes(statistics, once["batch_stats"])
    assert trained.shape == (2, 5)
    with pytest.raises(UserError, match=r"^1 stages of a network that has 1; expected a network"):
        models.shorten(once, 1)


@pytest.mark.parametrize("count", [0, 2, 5])
def test_there_must_be_more_stages(small, count):
    with pytest.raises(UserError, match=rf"^{count} stages of a network that has 2; expected 1 to"):
        models.shorten(small[1], count)


@pytest.mark.parametrize(
    ("name", "more"), [("unet", {}), ("vgg11", {}), ("vit_s16", {"scan": True})]
)
def test_networks_that_cannot_be_shortened_say_so(name, more):
    name = next(each for each in models.NAMES if each.startswith(name))
    _, variables = build(name, **more)
    with pytest.raises(UserError, match="expected a network of several stages"):
        models.shorten(variables, 1)
