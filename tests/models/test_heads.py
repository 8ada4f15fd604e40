"""Heads of every form: what they read, and that a network with one computes what it says."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctl_jax import compute, models, pruning
from ctl_jax.errors import UserError
from ctl_jax.models import _elastic, heads, layers, taps

from .networks import SIZE, abstract, build

IMAGES = jax.ShapeDtypeStruct((2, SIZE, SIZE, 3), jnp.float32)


@functools.cache
def pixels():
    return np.random.default_rng(0).normal(size=(3, SIZE, SIZE, 3)).astype(np.float32)


def size(module, variables, head):
    read = functools.partial(models.representation, module, head=head)
    return jax.eval_shape(read, variables, IMAGES).shape[1]


@pytest.mark.parametrize("name", models.CLASSIFIERS)
def test_every_network(name):
    """Its own head's program is as it was; taps come behind what that reads, and cost nothing."""
    check(build(name)[0])


# Many names are of one network at these options.
@functools.cache
def check(module):
    variables = abstract(module)

    @functools.partial(jax.make_jaxpr)
    def plain(variables, images):
        with layers.normalising(lambda path: False):
            return _elastic.apply(module, variables, images).astype(jnp.float32)

    apply = functools.partial(models.apply, module)
    assert str(jax.make_jaxpr(apply)(variables, IMAGES)) == str(plain(variables, IMAGES))
    features = jax.eval_shape(functools.partial(models.features, module), variables, IMAGES)
    rows = {head: size(module, variables, head) for head in ("last", "taps")}
    assert (2, rows["last"]) == features.shape
    assert rows["taps"] > rows["last"]
    costs = set()
    for head, count in rows.items():
        headed = abstract_head(module, variables, head)
        assert headed["params"]["head"]["kernel"].shape == (count, 5)
        assert jax.eval_shape(apply, headed, IMAGES).shape == (2, 5)
        costs.add(compute.flops(apply, headed, IMAGES) - 2 * 2 * count * 5)
        read = functools.partial(models.representation, module, head=head)
        costs.add(compute.flops(read, headed, IMAGES))
        if head == "taps" and not getattr(module, "distilled", False):
            program = jax.make_jaxpr(
                lambda v, images, read=read: models.apply_head(v["params"]["head"], read(v, images))
            )
            assert str(jax.make_jaxpr(apply)(headed, IMAGES)) == str(program(headed, IMAGES))
    assert len(costs) == 1


def abstract_head(module, variables, head):
    new = functools.partial(models.new_head, module, num_outputs=5, image_size=SIZE, head=head)
    return jax.eval_shape(new, variables)


def random_head(rows, hidden=None, outputs=5, seed=1):
    rng = np.random.default_rng(seed)

    def array(*shape):
        return np.asarray(rng.normal(size=shape) / np.sqrt(shape[0]), np.float32)

    if hidden is None:
        return {"kernel": array(rows, outputs), "bias": array(outputs)}
    if hidden == "mlp":
        inner = {"kernel": array(rows, 7), "bias": array(7)}
    else:
        inner = {"landmarks": array(7, rows), "scale": np.abs(array(rows))}
    return {"kernel": array(7, outputs), "bias": array(outputs), "hidden": inner}


def expected_logits(head, x):
    """The formulas, in float64."""
    head = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), head)
    x = np.asarray(x, np.float64)
    if hidden := head.get("hidden"):
        if "kernel" in hidden:
            x = np.maximum(x @ hidden["kernel"] + hidden["bias"], 0)
        else:
            differences = (x[:, None] - hidden["landmarks"][None]) * hidden["scale"]
            x = np.exp(-np.sum(differences**2, axis=2))
    return x @ head["kernel"] + head["bias"]


@pytest.mark.parametrize("hidden", [None, "mlp", "rbf"])
def test_apply_head(hidden):
    head = random_head(11, hidden)
    x = np.random.default_rng(2).normal(3, 1, size=(4, 11)).astype(np.float32)
    chex.assert_trees_all_close(models.apply_head(head, x), expected_logits(head, x), rtol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "deit_s16_distilled"])
def test_heads_on_taps(name, random_variables):
    """A network's logits are those of the formula on what `representation` gives."""
    module, shapes = build(name)
    head = random_head(size(module, shapes, "taps"), "mlp")
    variables = models.set_head(random_variables(module), head)

    @jax.jit
    def both(variables, images):
        x = models.representation(module, variables, images, "taps")
        return x, models.apply(module, variables, images)

    x, logits = both(variables, pixels())
    chex.assert_trees_all_close(logits, expected_logits(head, x), rtol=1e-3, atol=1e-4)
    bfloat16 = functools.partial(models.apply, module, dtype=jnp.bfloat16)
    assert "bf16[" not in str(jax.make_jaxpr(functools.partial(models.apply_head, head))(x))
    assert jax.eval_shape(bfloat16, variables, pixels()).dtype == jnp.float32


def test_taps_are_quarters_and_maxima_of_what_enters_the_stages(random_variables):
    module = models.create("resnet50", 3, stages=(1, 1, 3), width=4)
    variables = random_variables(module)

    @jax.jit
    def both(variables, images):
        seen = {}

        def see(next_fun, args, kwargs, context):
            if context.method_name == "__call__":
                seen["/".join(context.module.path)] = args[0]
            return next_fun(*args, **kwargs)

        with nn.intercept_methods(see):
            last = models.features(module, variables, images)
        entered = [seen[f"stage{name}_block1"] for name in (2, 3)]
        return last, entered, models.representation(module, variables, images, "taps")

    last, entered, x = both(variables, pixels())
    expected = [last]
    for each in map(np.asarray, entered):
        half = each.shape[1] // 2
        quarters = [each[:, i : i + half, j : j + half] for i in (0, half) for j in (0, half)]
        expected += [np.mean(quarter, axis=(1, 2)) for quarter in quarters]
        expected.append(np.max(each, axis=(1, 2)))
    # Behind them, the maxima of the map whose mean the last features are.
    known = np.concatenate(expected, axis=1)
    width = known.shape[1]
    chex.assert_trees_all_close(x[:, :width], known, rtol=1e-5, atol=1e-5)
    assert x.shape[1] == width + last.shape[1]
    assert (np.asarray(x[:, width:]) >= np.asarray(last)).all()


@pytest.mark.parametrize(
    ("shape", "columns"),
    [
        ((2, 1, 1, 3), 15),
        ((2, 5, 7, 3), 15),
        ((2, 17, 3), 15),
        ((2, 16, 3), 15),
        ((2, 13, 3), 6),
    ],
)
def test_what_is_taken_of_a_tap(shape, columns):
    value = jnp.arange(np.prod(shape), dtype=jnp.float32).reshape(shape)
    found = taps.pooled(taps.Call(("stage2_conv1",), nn.Conv, value))
    assert found.shape == (2, columns)
    assert found.dtype == jnp.float32
    chex.assert_trees_all_equal(found[:, -shape[-1] :], value.reshape(2, -1, shape[-1]).max(axis=1))


def test_of_many_stages_a_few_are_tapped():
    module = models.create("vit_s16", 3, heads=2, depth=12, head_width=4)
    variables = abstract(module)
    assert size(module, variables, "taps") == (1 + 3 * 5) * size(module, variables, "last")


@pytest.mark.parametrize("more", [{"scan": True}, {"remat": True}])
def test_layers_that_cannot_be_tapped(more):
    module, variables = build("vit_s16", **more)
    assert size(module, variables, "taps") == size(module, variables, "last")
    with pytest.raises(UserError, match="head is 'best'; expected 'last' or 'taps'"):
        size(module, variables, "best")


def test_a_head_of_other_rows(small):
    module, variables = small
    headed = models.set_head(variables, random_head(7))
    with pytest.raises(UserError, match=r"the head reads 7 .*; expected 32, .*, or 144, that"):
        jax.eval_shape(functools.partial(models.apply, module), headed, pixels())


def test_no_taps_at_each_pixel():
    module, variables = build("unet")
    headed = jax.eval_shape(lambda v: models.set_head(v, random_head(99)), variables)
    with pytest.raises(UserError, match=r"reads an array \[2, 32, 32, 4\]; expected \[B, F\]"):
        jax.eval_shape(functools.partial(models.apply, module), headed, IMAGES)


@pytest.mark.parametrize("hidden", [None, "mlp", "rbf"])
def test_outputs_are_changed(hidden, small):
    module, variables = small
    head = random_head(144, hidden)
    headed = models.set_head(variables, head)
    zero = models.with_head(headed, 2)
    assert heads.inputs(zero["params"]["head"]) == 144
    x = np.random.default_rng(2).normal(size=(3, 144)).astype(np.float32)
    logits = models.apply_head(head, x)
    for count in (3, 5, 8):
        resized = models.resize_head(headed, count)["params"]["head"]
        expected = np.pad(logits, ((0, 0), (0, 3)))[:, :count]
        chex.assert_trees_all_close(models.apply_head(resized, x), expected, atol=1e-5)
    assert not np.any(models.apply_head(zero["params"]["head"], x))
    with pytest.raises(UserError, match="num_outputs is 0; expected a positive int"):
        models.resize_head(headed, 0)
    new = models.new_head(module, headed, 4, SIZE)
    chex.assert_trees_all_equal_shapes(new, models.with_head(variables, 4))
    assert not any(map(np.any, jax.tree.leaves(new["params"]["head"])))


def test_an_ensemble_adds_logits(small):
    """Of networks of one architecture, of other widths and heads; statistics stay apart."""
    module, variables = small
    groups = pruning.trace(functools.partial(models.apply, module), variables, pixels())
    keep = pruning.select(groups, pruning.score(groups, variables), ratio=0.5, scope="filters")
    second = models.set_head(pruning.prune(variables, groups, keep), random_head(144))
    both = {kind: {**variables[kind], "ensemble": second[kind]} for kind in variables}
    apply = functools.partial(models.apply, module)
    asked = []

    def by_batch(path):
        asked.append(path)
        return path.startswith("ensemble/")

    @jax.jit
    def results(one, two, both, images):
        alone = apply(one, images), apply(two, images)
        return (
            alone,
            apply(both, images),
            apply(two, images, train=True)[1],
            apply(both, images, train=by_batch),
        )

    alone, together, of_second, (_, statistics) = results(variables, second, both, pixels())
    expected = alone[0] + alone[1]
    chex.assert_trees_all_close(together, expected, atol=1e-5)
    assert {path.partition("/")[0] for path in asked} == set(both["batch_stats"])
    chex.assert_trees_all_equal(statistics["stem_bn"], variables["batch_stats"]["stem_bn"])
    chex.assert_trees_all_close(statistics["ensemble"], of_second, atol=1e-6)
    assert models.stages(both)["ensemble"] == ("ensemble",)
    assert list(models.stages(both))[:-1] == list(models.stages(variables))
    resized = models.resize_head(both, 3)["params"]
    shapes = [tree["head"]["kernel"].shape for tree in (resized, resized["ensemble"])]
    assert shapes == [(32, 3), (144, 3)]
    assert "ensemble" not in models.new_head(module, both, 3, SIZE)["params"]
