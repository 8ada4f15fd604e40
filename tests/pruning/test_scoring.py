"""How slices are taken together, how groups are made comparable, and what is refused."""

import jax
import numpy as np
import pytest

from ctl_jax import pruning
from ctl_jax.errors import UserError
from ctl_jax.pruning.criteria import request


def apply(v, x):
    x = x @ v["params"]["stem"] + v["params"]["bias"][None] - v["batch_stats"]["mean"][None]
    x = x + jax.nn.relu(x @ v["params"]["one"]) @ v["params"]["alpha"]
    return x @ v["params"]["head"]


def loss(v, batch):
    return (apply(v, batch) ** 2).mean()


X = np.ones((2, 3), np.float32)


@pytest.fixture(scope="module")
def variables():
    rng = np.random.default_rng(0)
    shapes = {"stem": (3, 4), "bias": (4,), "one": (4, 6), "alpha": (6, 4), "head": (4, 2)}
    params = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return {"params": params, "batch_stats": {"mean": np.full(4, 9, np.float32)}}


@pytest.fixture(scope="module")
def groups(variables):
    return pruning.trace(apply, variables, X)


@pytest.fixture(scope="module")
def slices(variables):
    """sum |w| of each slice of the residual stream, by parameter."""
    wide = {name: np.abs(w.astype(np.float64)) for name, w in variables["params"].items()}
    return {
        "stem": wide["stem"].sum(axis=0),
        "alpha": wide["alpha"].sum(axis=0),
        "one": wide["one"].sum(axis=1),
        "head": wide["head"].sum(axis=1),
        "bias": wide["bias"],
    }


STREAM = "params/stem"


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=2e-6)


@pytest.mark.parametrize(
    ("aggregate", "plain"),
    [
        ("sum", lambda stem, alpha: stem + alpha),
        ("mean", lambda stem, alpha: (stem + alpha) / 2),
        ("max", np.maximum),
        ("first", lambda stem, alpha: stem),  # names the group, though alpha comes before it
    ],
)
def test_aggregates(groups, variables, slices, aggregate, plain):
    assert [m.path for m in groups[STREAM].members if m.role == "out"] == [
        "params/alpha",
        "params/stem",
    ]
    scores = pruning.score(groups, variables, "l1", aggregate=aggregate)
    close(scores[STREAM], plain(slices["stem"], slices["alpha"]))


@pytest.mark.parametrize(
    ("roles", "paths"),
    [
        (("out",), ["stem", "alpha"]),
        (("in",), ["one", "head"]),
        (("out", "in"), ["stem", "alpha", "one", "head"]),
        # The running mean is no weight.
        (["out", "in", "elementwise"], ["stem", "alpha", "one", "head", "bias"]),
    ],
)
def test_roles(groups, variables, slices, roles, paths):
    scores = pruning.score(groups, variables, "l1", roles=roles)
    close(scores[STREAM], sum(slices[path] for path in paths))


@pytest.mark.parametrize("statistic", ["bn/mean", "bn/var/value", "~/mean_ema/average"])
def test_statistics_are_told_by_name_and_role(statistic):
    keys = statistic.split("/")

    def normalised(v, x):
        leaf = v["norm"]
        for key in keys:
            leaf = leaf[key]
        return (jax.nn.relu(x @ v["mean"]) * leaf[None]) @ v["var"]  # the kernels' names are theirs

    leaf = np.full(4, 100, np.float32)
    for key in reversed(keys):
        leaf = {key: leaf}
    v = {"norm": leaf, "mean": np.ones((3, 4), np.float32), "var": np.ones((4, 2), np.float32)}
    groups = pruning.trace(normalised, v, X)
    (found,) = pruning.score(groups, v, "l1", roles=("out", "in", "elementwise")).values()
    np.testing.assert_array_equal(found, 3 + 2)


def test_an_axis_of_many_groups_is_summed_up_once(monkeypatch):
    def dense(v, x):
        parts = [jax.nn.relu(x @ v[f"part{i}"]) for i in range(5)]
        return jax.numpy.concatenate(parts, axis=1) @ v["head"]

    v = {f"part{i}": np.ones((3, 4), np.float32) for i in range(5)}
    v["head"] = np.arange(40, dtype=np.float32).reshape(20, 2)
    groups = pruning.trace(dense, v, X)
    calls = []
    monkeypatch.setattr(
        request.slices, "kernel_of", lambda path, leaves: calls.append(path) or leaves[path]
    )
    scores = pruning.score(groups, v, "l1", roles=("in",))
    assert calls == ["head"]
    found = np.concatenate([scores[f"part{i}"] for i in range(5)])
    np.testing.assert_array_equal(found, v["head"].sum(axis=1))


def test_normalise(groups, variables, slices):
    stem, alpha = slices["stem"], slices["alpha"]
    for name in ("mean", "max"):
        scores = pruning.score(groups, variables, "l1", normalise=name)
        close(scores[STREAM], (stem + alpha) / getattr(stem + alpha, name)())
        assert all(getattr(found, name)() == pytest.approx(1) for found in scores.values())
    scores = pruning.score(groups, variables, "l1", normalise="layer")
    close(scores[STREAM], stem / stem.mean() + alpha / alpha.mean())


def test_layers_are_normalised_before_the_root(groups, variables):
    stem, alpha = (
        np.square(variables["params"][name].astype(np.float64)).sum(axis=0)
        for name in ("stem", "alpha")
    )
    scores = pruning.score(groups, variables, normalise="layer")
    close(scores[STREAM], np.sqrt(stem / stem.mean() + alpha / alpha.mean()))


@pytest.mark.parametrize("normalise", ["mean", "max", "layer"])
def test_a_group_of_zeros_stays_zero(groups, variables, normalise):
    empty = {**variables, "params": variables["params"] | {"one": np.zeros((4, 6))}}
    scores = pruning.score(groups, empty, normalise=normalise)
    np.testing.assert_array_equal(scores["params/one"], 0)


def test_a_random_score_has_one_part_whatever_the_aggregate(groups, variables):
    plain = pruning.score(groups, variables, "random")
    for aggregate in ("mean", "max", "first"):
        scores = pruning.score(groups, variables, "random", aggregate=aggregate)
        np.testing.assert_array_equal(scores[STREAM], plain[STREAM])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"criterion": "l3"}, "criterion is 'l3', expected one of activation, taylor"),
        ({"criterion": ["l1"]}, r"criterion is \['l1'\], expected one of"),
        ({"aggregate": "prod"}, "aggregate is 'prod', expected one of sum, mean, max, first"),
        ({"normalise": True}, "normalise is True, expected one of none, mean, max, layer"),
        ({"roles": "out"}, "roles is 'out', expected a tuple of some of out, in, elementwise"),
        ({"roles": ()}, r"roles is \(\), expected a tuple"),
        ({"roles": ("output",)}, r"roles is \('output',\), expected a tuple"),
        ({"roles": 1}, "roles is 1, expected a tuple"),
        ({"roles": ("elementwise",)}, "group 'params/one' has no weights of role elementwise"),
        ({"criterion": "random", "roles": ("in",)}, "expected none with criterion 'random'"),
        ({"criterion": "bn_scale", "roles": ("in",)}, "expected none with criterion 'bn_scale'"),
        ({"seed": -1}, r"seed is -1, expected an integer of 0 to 2\*\*32"),
        ({"seed": 0.5}, "seed is 0.5, expected an integer"),
        ({"seed": True}, "seed is True, expected an integer"),
        ({"seed": 2**32}, "seed is 4294967296, expected an integer"),
        ({"probes": 0}, "probes is 0, expected an integer of 1 to"),
        ({"loss": loss}, "loss is given, expected none: criterion 'l2' would not look at it"),
        ({"batches": [X]}, "batches is given, expected none"),
        ({"apply_fn": apply}, "apply_fn is given, expected none"),
        ({"criterion": "taylor", "batches": [X]}, "loss is None, expected loss"),
        ({"criterion": "hessian", "loss": loss}, "batches is None, expected an iterable"),
        ({"criterion": "taylor", "loss": 3, "batches": [X]}, "loss is 3, expected loss"),
        ({"criterion": "taylor", "loss": loss, "batches": []}, "batches holds no batch"),
        ({"criterion": "taylor", "loss": loss, "batches": 3}, "batches is of type int, expected"),
        (
            {"criterion": "hessian", "loss": loss, "batches": {"image": X}},
            "batches is of type dict, expected an iterable of batches",
        ),
        ({"criterion": "activation"}, "batches is None, expected an iterable"),
        ({"criterion": "activation", "batches": [], "apply_fn": apply}, "batches holds no batch"),
        (
            {"criterion": "activation", "batches": [X], "loss": loss},
            "loss is given, expected none: criterion 'activation'",
        ),
    ],
)
def test_bad_arguments(groups, variables, arguments, message):
    with pytest.raises(UserError, match=message):
        pruning.score(groups, variables, **arguments)


@pytest.mark.parametrize("criterion", pruning.CRITERIA)
def test_a_tree_of_another_structure(groups, variables, criterion):
    data = {
        "taylor": {"loss": loss, "batches": [X]},
        "hessian": {"loss": loss, "batches": [X]},
        "activation": {"batches": [X]},
    }.get(criterion, {})
    params = variables["params"]
    other = {**variables, "params": params | {"alpha": np.ones((6, 3))}}
    with pytest.raises(UserError, match=r"alpha has shape \(6, 3\), expected \(6, 4\) as traced"):
        pruning.score(groups, other, criterion, **data)
    with pytest.raises(UserError, match="variables has no 'batch_stats/mean'"):
        pruning.score(groups, {"params": params}, criterion, **data)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), variables)
    if criterion != "random":
        with pytest.raises(UserError, match=r"is ShapeDtypeStruct.*without values"):
            pruning.score(groups, shapes, criterion, **data)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("criterion", ["l1", "l2", "linf", "fpgm", "lamp", "bn_scale"])
def test_values_that_are_not_finite(groups, variables, criterion, value):
    broken = variables["params"]["alpha"].copy()
    broken[1, 2] = value
    tree = {**variables, "params": variables["params"] | {"alpha": broken}}
    with pytest.raises(UserError, match="alpha has 1 values that are NaN or infinite"):
        pruning.score(groups, tree, criterion)
