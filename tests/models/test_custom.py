"""A user's own module: found by name, its head found, and used as any network is."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctl_jax import models, pruning
from ctl_jax.errors import UserError
from ctl_jax.models import _custom


class Block(nn.Module):
    """A residual block as Flax's examples write it."""

    width: int

    @nn.compact
    def __call__(self, x, train):
        y = nn.Conv(self.width, (3, 3), use_bias=False)(x)
        y = nn.BatchNorm(use_running_average=not train)(y)
        y = nn.Conv(x.shape[-1], (3, 3))(nn.relu(y))
        return nn.relu(x + y)


class Net(nn.Module):
    """A small network that nothing here was made for; 7 features, as many as a usual head."""

    num_classes: int = 5
    width: int = 8
    rate: float = 0.5

    @nn.compact
    def __call__(self, x, train: bool = True):
        x = nn.Conv(self.width, (3, 3), strides=2)(x)
        for _ in range(2):
            x = Block(2 * self.width)(x, train)
        x = jnp.mean(x, axis=(1, 2))
        x = nn.Dropout(self.rate, deterministic=not train)(x)
        x = nn.relu(nn.Dense(self.num_classes, name="before")(x))
        return nn.Dense(self.num_classes, name="classifier")(x)


class Nested(nn.Module):
    """Its head lies deeper, and it does not say how many outputs it has."""

    @nn.compact
    def __call__(self, images):
        x = jnp.mean(nn.Conv(4, (3, 3))(images), axis=(1, 2))
        return Top(name="top")(x)


class Top(nn.Module):
    """The end of `Nested`."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(6)(x)


class Headless(nn.Module):
    """No dense layer gives its outputs."""

    @nn.compact
    def __call__(self, x):
        return jnp.mean(nn.Conv(3, (3, 3))(x), axis=(1, 2))


class Odd(nn.Module):
    """A field that no file can hold."""

    activation: object = nn.relu

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(jnp.mean(x, axis=(1, 2)))


NAME = f"{__name__}:Net"


@pytest.fixture(scope="module")
def images():
    return jax.random.normal(jax.random.key(1), (4, 16, 16, 3))


@pytest.fixture(scope="module")
def net():
    shapes = jax.eval_shape(lambda: Net().init(jax.random.key(0), jnp.zeros((1, 16, 16, 3))))
    return Net(), filled(shapes)


def filled(shapes):
    """Arrays of those shapes: compiling an initialisation takes longer than all else here."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(0, 0.1, leaf.shape), "f4"), shapes)


def test_it_gives_what_the_module_gives(net, images):
    module, variables = net
    model = models.from_module(module, variables, image_size=16)
    assert model.architecture == NAME
    assert model.options == {"width": 8, "rate": 0.5, "head": "classifier"}
    assert model.num_classes == 5
    found = models.apply(model.module, model.variables, images)
    chex.assert_trees_all_close(found, module.apply(variables, images, train=False), rtol=1e-5)


def test_training_takes_the_statistics_of_the_batch(net, images):
    module, variables = net
    model = models.from_module(module, variables, image_size=16)
    _, updated = models.apply(model.module, model.variables, images, train=True)
    chex.assert_trees_all_equal_shapes(updated, variables["batch_stats"])
    for now, before in zip(*map(jax.tree.leaves, (updated, variables["batch_stats"])), strict=True):
        assert not np.allclose(now, before)


def test_a_pruned_one_computes_what_the_whole_one_does(net, images):
    module, variables = net
    model = models.from_module(module, variables, image_size=16)

    def apply_fn(variables, images):
        return models.apply(model.module, variables, images)

    groups = pruning.trace(apply_fn, model.variables, images[:1])
    scores = pruning.score(groups, model.variables, criterion="l2")
    keep = pruning.select(groups, scores, ratio=0.5, scope="filters", round_to=1)
    small = pruning.prune(model.variables, groups, keep)
    assert models.count_params(small) < models.count_params(model.variables)
    chex.assert_shape(apply_fn(small, images), (4, 5))


def test_created_by_name_it_has_the_head_that_is_asked_for(images):
    module = models.create(NAME, num_outputs=3, width=4)
    shapes = jax.eval_shape(lambda: models.init(module, jax.random.key(0), image_size=16))
    variables = filled(shapes)
    chex.assert_shape(models.apply(module, variables, images), (4, 3))
    chex.assert_shape(models.features(module, variables, images), (4, 3))
    assert hash(module) == hash(models.create(NAME, num_outputs=3, width=4))


def test_a_head_may_lie_deeper(images):
    module = models.create(f"{__name__}:Nested", num_outputs=2)
    variables = models.with_head(models.init(module, jax.random.key(0), image_size=16), 2)
    assert not variables["params"]["head"]["kernel"].any()
    assert module.inner_head == "top/Dense_0"
    chex.assert_shape(models.apply(module, variables, images), (4, 2))


def test_its_blocks_are_tapped(net, images):
    """Of layers that most are of a kind of: quarters and maxima of what enters both blocks."""
    model = models.from_module(*net, image_size=16)
    headed = models.new_head(model.module, model.variables, 3, 16, "taps")
    # What the last layer reads, behind the stem, and between blocks that keep its width.
    assert headed["params"]["head"]["kernel"].shape == (5 + 5 * 8 + 5 * 8, 3)
    head = filled(headed["params"]["head"])
    headed = models.set_head(headed, head)

    @jax.jit
    def both(variables, images):
        x = models.representation(model.module, variables, images, "taps")
        return models.apply_head(head, x), models.apply(model.module, variables, images)

    chex.assert_trees_all_close(*both(headed, images), rtol=1e-5)
    assert not models.reads_last(model.module, headed, 16)
    assert models.reads_last(model.module, model.variables, 16)


def test_it_comes_back_from_its_folder(net, images, tmp_path):
    module, variables = net
    model = models.from_module(module, variables, image_size=16, classes="abcde")
    models.save(tmp_path / "net", model)
    again = models.load(tmp_path / "net")
    assert (again.architecture, again.options) == (model.architecture, model.options)
    assert again.module == model.module
    chex.assert_trees_all_equal(again.variables, model.variables)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_package:Net", "unknown model 'no_such_package:Net': No module named"),
        (f"{__name__}:Nothing", "has no attribute 'Nothing'"),
        (f"{__name__}:models", "expected PACKAGE.MODULE:CLASS of a flax.linen.Module"),
        (f"{__name__}:Headless", "no dense layer gives its 3 outputs"),
    ],
)
def test_what_is_no_network_is_refused(name, message):
    with pytest.raises(UserError, match=message):
        models.create(name, num_outputs=2)


def test_an_unknown_option_is_refused():
    with pytest.raises(UserError, match=f"unknown option 'depth' of model {NAME}; expected one of"):
        _custom.create(NAME, 2, depth=3)


def test_a_field_that_is_no_plain_value_is_refused(images):
    variables = Odd().init(jax.random.key(0), images)
    with pytest.raises(UserError, match=r"field activation of .*Odd is .*; expected a number"):
        models.from_module(Odd(), variables)
