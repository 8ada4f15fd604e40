"""Cutting positions off arrays, wherever they are: on the host, on devices, abstract or traced."""

import collections
import concurrent.futures
import contextlib
import functools
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding

from ctl_jax.trees import Ints

try:
    from jax._src.interpreters.pxla import batched_device_put as fast_put  # for `_put`
except ImportError:  # it is not public
    fast_put = None  # type: ignore[assignment]

Stays = Mapping[int, Ints]  # axis -> the positions that stay, ascending

# XLA on CPU uses a host array in place, without a copy, if it is aligned to as many bytes; worth
# the trouble for arrays of so many.
ALIGNMENT = 64
IN_PLACE = 64 << 10
# One thread for as many bytes to cut: below, it costs more than it saves.
IN_PARALLEL = 1 << 20
# Bytes from which an accelerator cuts its own arrays. It compiles a gather for each shape, which
# takes longer than to copy smaller ones to the host and back.
ON_DEVICE = 64 << 20


def cut_all(leaves: Sequence[Any], stays: Sequence[Stays]) -> list[Any]:
    """Cuts each leaf to what stays of its axes.

    Args:
      leaves: arrays: of NumPy, of JAX, tracers, or `jax.ShapeDtypeStruct`.
      stays: for each of them, which positions stay on the axes that lose some.

    Returns:
      The cut leaves, of the same types and dtypes, placed as before; see `fitting` for sharded
      ones.
    """
    results: list[Any] = [None] * len(leaves)
    on_host = []
    for i, (leaf, axes) in enumerate(zip(leaves, stays, strict=True)):
        if isinstance(leaf, jax.ShapeDtypeStruct):
            results[i] = _abstract(leaf, axes)
        elif isinstance(leaf, jax.core.Tracer):
            results[i] = _gather(leaf, tuple(axes.values()), tuple(axes))
        elif isinstance(leaf, jax.Array) and not _by_host(leaf):
            results[i] = _by_device(leaf, axes)
        else:
            on_host.append(i)
    cut = _take_all(_fetch([leaves[i] for i in on_host]), [stays[i] for i in on_host])
    for i, array in zip(on_host, cut, strict=True):
        results[i] = _put(array, leaves[i]) if isinstance(leaves[i], jax.Array) else array
    return results


def fitting(sharding: Sharding, shape: Sequence[int]) -> Any:
    """The sharding of an array after it was cut to `shape`: the same wherever that is possible.

    Of the mesh axes that a dimension is split over, the last ones are left away until the others
    divide it. What is not split by a mesh and can not stay gets a full copy on each device.
    """
    if isinstance(sharding, NamedSharding):
        # A spec may be shorter than the shape.
        split = zip(sharding.spec, shape, strict=False)
        spec = [_dividing(sharding, entry, size) for entry, size in split]
        if spec == list(sharding.spec):
            return sharding
        kind = sharding.memory_kind
        return NamedSharding(sharding.mesh, PartitionSpec(*spec), memory_kind=kind)
    with contextlib.suppress(ValueError):
        sharding.shard_shape(tuple(shape))
        return sharding
    device_set: Any = sharding.device_set
    devices = sorted(device_set, key=lambda device: device.id)
    return NamedSharding(Mesh(np.array(devices), "all"), PartitionSpec())


def _dividing(sharding: NamedSharding, entry: Any, size: int) -> Any:
    """An entry of a spec, without the mesh axes that do not divide `size`."""
    if entry is None or entry is PartitionSpec.UNCONSTRAINED:
        return entry
    names = [entry] if isinstance(entry, str) else list(entry)
    while names and size % math.prod(sharding.mesh.shape[name] for name in names):
        names.pop()
    if isinstance(entry, str) or not names:
        return names[0] if names else None
    return tuple(names)


def _cut_shape(shape: Sequence[int], stays: Stays) -> tuple[int, ...]:
    return tuple(len(stays[i]) if i in stays else n for i, n in enumerate(shape))


def _abstract(leaf: jax.ShapeDtypeStruct, stays: Stays) -> jax.ShapeDtypeStruct:
    shape = _cut_shape(leaf.shape, stays)
    if leaf.sharding is None or (sharding := fitting(leaf.sharding, shape)) is leaf.sharding:
        return leaf.update(shape=shape)
    return jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=sharding, weak_type=leaf.weak_type)


def _gather(leaf: jax.Array, stays: Sequence[Ints], axes: Sequence[int]) -> jax.Array:
    """The cut as XLA does it."""
    for indices, axis in zip(stays, axes, strict=True):
        sharding: NamedSharding = jax.typeof(leaf).sharding
        explicit = AxisType.Explicit in sharding.mesh.axis_types
        shape = _cut_shape(leaf.shape, {axis: indices})
        leaf = leaf.at[(slice(None),) * axis + (indices,)].get(
            mode="clip",
            unique_indices=True,
            indices_are_sorted=True,
            # Where types say how arrays are split, the type of the result must be given.
            out_sharding=fitting(sharding, shape) if explicit else None,
        )
    return leaf


@functools.lru_cache(maxsize=256)
def _compiled_gather(sharding: Sharding | None) -> Any:
    return jax.jit(_gather, static_argnums=2, out_shardings=sharding)


def _by_device(leaf: jax.Array, stays: Stays) -> jax.Array:
    sharding = fitting(leaf.sharding, _cut_shape(leaf.shape, stays)) if leaf.committed else None
    return _compiled_gather(sharding)(leaf, tuple(stays.values()), tuple(stays))


def _by_host(leaf: jax.Array) -> bool:
    """Whether to cut it in the host's memory, where nothing has to be compiled."""
    if leaf.weak_type or not leaf.is_fully_addressable:
        return False
    return _platform(leaf.sharding) == "cpu" or leaf.nbytes < ON_DEVICE


@functools.lru_cache(maxsize=256)
def _platform(sharding: Sharding) -> str:
    device: Any = next(iter(sharding.device_set))
    return device.platform


def _fetch(leaves: Sequence[Any]) -> list[np.ndarray]:
    """The leaves in the host's memory; those of a CPU are not copied."""
    for leaf in leaves:
        if isinstance(leaf, jax.Array) and _platform(leaf.sharding) != "cpu":
            leaf.copy_to_host_async()
    return [np.asarray(leaf) for leaf in leaves]


def _take_all(arrays: Sequence[np.ndarray], stays: Sequence[Stays]) -> list[np.ndarray]:
    """The cut in the host's memory, the largest first; NumPy takes without Python's lock."""
    results: list[Any] = [None] * len(arrays)
    queue = collections.deque(sorted(range(len(arrays)), key=lambda i: -arrays[i].nbytes))

    def work() -> None:
        while True:
            try:
                i = queue.popleft()
            except IndexError:
                return
            results[i] = _take(arrays[i], stays[i])

    helpers = min(sum(x.nbytes for x in arrays) // IN_PARALLEL, os.cpu_count() or 1, 16) - 1
    if helpers < 1:
        work()
    else:
        with concurrent.futures.ThreadPoolExecutor(helpers) as pool:
            helped = [pool.submit(work) for _ in range(helpers)]
            work()
            for each in helped:
                each.result()
    return results


def _take(array: np.ndarray, stays: Stays) -> np.ndarray:
    *first, last = sorted(stays)
    # Rows first: the outer an axis, the longer the pieces that are copied at once.
    for axis in first:
        array = array.take(stays[axis], axis)
    if array.nbytes < IN_PLACE:
        return array.take(stays[last], last)
    out = _aligned(_cut_shape(array.shape, {last: stays[last]}), array.dtype)
    # "clip": with an `out`, the other modes go by another copy.
    return array.take(stays[last], last, out=out, mode="clip")


def _aligned(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.__array_interface__["data"][0] % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


@functools.lru_cache(maxsize=4096)
def _type(shape: tuple[int, ...], dtype: np.dtype) -> jax.core.ShapedArray:
    return jax.core.ShapedArray(shape, dtype)


def _put(array: np.ndarray, full: jax.Array) -> jax.Array:
    """The array where `full` is; not committed to its device if `full` is not."""
    sharding, devices = full.sharding, list(full.sharding.device_set)
    if len(devices) > 1:
        return jax.device_put(array, fitting(sharding, array.shape))
    if fast_put is None:
        with jax.default_device(devices[0]):
            return jax.device_put(array, sharding if full.committed else None)
    # What `jax.device_put` comes to, without its 20 microseconds of Python an array, which took as
    # long as the cuts: ResNet-50 has 267.
    return fast_put(_type(array.shape, array.dtype), sharding, [array], devices, full.committed)
