"""Arrays over four devices; `test_sharding` runs this file where there are four."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.sharding_impls import GSPMDSharding  # what such a sharding is
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from ctl_jax import pruning
from ctl_jax.pruning import _arrays
from ctl_jax.pruning._arrays import cut_all, fitting

AXIS_TYPES = {
    "auto": (AxisType.Auto, AxisType.Auto),
    "explicit": (AxisType.Explicit, AxisType.Explicit),
    "mixed": (AxisType.Explicit, AxisType.Auto),
}
FULL = np.arange(8 * 12, dtype=np.float32).reshape(8, 12)
ROWS, THREE = np.array([0, 1, 5, 7]), np.array([0, 2, 3])
EVEN, ODD = np.array([1, 2, 3, 7, 8, 10]), np.array([1, 2, 3, 7, 10])

# What the array's spec is, what stays of its axes, and its spec thereafter.
SPECS = {
    "same": (P("data", "model"), {0: ROWS, 1: EVEN}, P("data", "model")),
    "one axis": (P("data", "model"), {1: EVEN}, P("data", "model")),
    "odd columns": (P("data", "model"), {0: ROWS, 1: ODD}, P("data", None)),
    "odd rows": (P("data", "model"), {0: THREE, 1: EVEN}, P(None, "model")),
    "rows over both": (P(("data", "model")), {0: ROWS}, P(("data", "model"))),
    "fewer rows over both": (P(("data", "model")), {0: ROWS[:2]}, P(("data",))),
    "columns over both": (P(None, ("data", "model")), {1: EVEN}, P(None, ("data",))),
    "odd rows over both": (P(("data", "model")), {0: THREE}, P(None)),
    "one row": (P("data", "model"), {0: ROWS[:1]}, P(None, "model")),
    "replicated": (P(), {0: THREE, 1: ODD}, P()),
}


def expected(stays):
    leaf = FULL
    for axis, indices in stays.items():
        leaf = np.take(leaf, indices, axis)
    return leaf


@pytest.fixture(params=AXIS_TYPES)
def mesh(request):
    return jax.make_mesh((2, 2), ("data", "model"), axis_types=AXIS_TYPES[request.param])


def test_there_are_four_devices():
    assert jax.device_count() >= 4


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("where", ["host", "devices"])
def test_sharded_arrays_stay_sharded(mesh, name, where, monkeypatch):
    """Cut on the host, and as an array must be that no single process has whole."""
    if where == "devices":
        monkeypatch.setattr(_arrays, "_by_host", lambda leaf: False)
    spec, stays, after = SPECS[name]
    leaf = jax.device_put(FULL, NamedSharding(mesh, spec))
    (small,) = cut_all([leaf], [stays])
    assert small.sharding == NamedSharding(mesh, after)
    assert small.committed
    np.testing.assert_array_equal(small, expected(stays))


@pytest.mark.parametrize("name", SPECS)
def test_abstract_arrays_stay_sharded(mesh, name):
    spec, stays, after = SPECS[name]
    leaf = jax.ShapeDtypeStruct(FULL.shape, np.float16, sharding=NamedSharding(mesh, spec))
    (small,) = cut_all([leaf], [stays])
    assert small.sharding == NamedSharding(mesh, after)
    assert (small.shape, small.dtype) == (expected(stays).shape, np.float16)


@pytest.mark.parametrize("name", SPECS)
def test_under_jit(mesh, name):
    """Where shardings are part of the types, the pruned types have them."""
    spec, stays, after = SPECS[name]
    leaf = jax.device_put(FULL, NamedSharding(mesh, spec))
    cut = jax.jit(lambda leaf: cut_all([leaf], [stays])[0])
    np.testing.assert_array_equal(cut(leaf), expected(stays))
    if AxisType.Auto not in mesh.axis_types:
        for small in (cut(leaf), jax.eval_shape(cut, leaf)):
            spec = small.sharding.spec
            assert NamedSharding(mesh, spec).is_equivalent_to(NamedSharding(mesh, after), 2)


def test_memory_kind_stays(mesh):
    kind = "unpinned_host"
    if kind not in {memory.kind for memory in jax.devices()[0].addressable_memories()}:
        kind = "pinned_host"
    sharding = NamedSharding(mesh, P("data", "model"), memory_kind=kind)
    for stays in ({0: ROWS}, {0: THREE}):
        (small,) = cut_all([jax.device_put(FULL, sharding)], [stays])
        assert small.sharding.memory_kind == kind
        assert fitting(sharding, small.shape).memory_kind == kind


def test_what_no_mesh_splits():
    """Shardings that jitted functions make up themselves."""
    mesh = jax.make_mesh((4,), ("all",), axis_types=(AxisType.Auto,))
    named = NamedSharding(mesh, P("all"))
    split = GSPMDSharding(tuple(jax.devices()[:4]), named._to_xla_hlo_sharding(2))
    leaf = jax.make_array_from_callback(FULL.shape, split, lambda index: FULL[index])
    same, copied = cut_all([leaf, leaf], [{0: ROWS}, {0: THREE}])
    assert same.sharding == split
    assert copied.sharding.is_fully_replicated
    assert copied.sharding.device_set == split.device_set
    np.testing.assert_array_equal(same, expected({0: ROWS}))
    np.testing.assert_array_equal(copied, expected({0: THREE}))


def test_a_network(mesh):
    """Parameters split by their columns, as tensor parallelism does."""

    def net(v, x):
        return jnp.tanh(x @ v["up"] + v["bias"]) @ v["down"]

    rng = np.random.default_rng(0)
    shapes = {"up": (4, 16), "bias": (1, 16), "down": (16, 8)}
    specs = {"up": P(None, "model"), "bias": P(None, "model"), "down": P("model", "data")}
    full = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    split = {
        name: jax.device_put(leaf, NamedSharding(mesh, specs[name])) for name, leaf in full.items()
    }
    x = np.ones((2, 4), np.float32)
    groups = pruning.trace(net, full, x)
    keep = pruning.select(groups, pruning.score(groups, full), ratio=0.5, scope="channels")
    small = pruning.prune(split, groups, keep)
    chex.assert_trees_all_equal(small, pruning.prune(full, groups, keep))
    assert {name: leaf.sharding.spec for name, leaf in small.items()} == specs
