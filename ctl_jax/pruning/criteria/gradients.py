"""Criteria that differentiate a loss: how much it is expected to change without a weight.

Both are sums over the weights of a slice, taken on the device: of each parameter that counts, only
one number a position of the axis comes back, whatever the size of the parameter. Only these
parameters are differentiated.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ctl_jax import compute
from ctl_jax.errors import UserError
from ctl_jax.pruning.criteria import criterion, slices
from ctl_jax.pruning.criteria.request import Parts, Request

Loss = Callable[[Sequence[jax.Array]], jax.Array]  # of the parameters that count
# From a loss, those parameters and a random key: the loss and, per weight, its importance.
Importance = Callable[[Loss, Sequence[jax.Array], jax.Array], tuple[jax.Array, Sequence[jax.Array]]]


def _flops_of_taylor(request: Request, batch: Any) -> int:
    """FLOPs of `taylor` on a batch, perhaps abstract."""
    return _flops(request, batch, _first_order)


def _flops_of_hessian(request: Request, batch: Any) -> int:
    """FLOPs of `hessian` on a batch, perhaps abstract."""
    return request.probes * _flops(request, batch, _second_order)


@criterion("taylor", needs="gradients", flops=_flops_of_taylor)
def taylor(request: Request) -> Parts:
    """mean over the batches of sum (w dL/dw)^2.

    The square of the first-order change of the loss L where a weight becomes zero, summed over the
    slice: Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning", the sum of
    individual importances. (Their joint contribution, the square of the sum, is zero by symmetry
    for a kernel that a BatchNorm in train mode follows.) Squared batch by batch, since gradients
    cancel over many batches where the network is trained.
    """
    return _expected(request, _first_order)


@criterion("hessian", needs="gradients", flops=_flops_of_hessian)
def hessian(request: Request) -> Parts:
    """mean over the batches of sum 1/2 w^2 d2L/dw2.

    The saliency of LeCun et al. 1990, "Optimal Brain Damage", summed over the slice. The diagonal
    of the Hessian H is estimated as the mean of v * Hv over vectors v of random signs (Hutchinson
    1990; Bekas et al. 2007), `probes` of them a batch, drawn from the seed and their number. The
    estimate is unbiased: below zero where the curvature, or chance, has it so; the error of a
    channel falls with the root of the number of vectors.
    """
    return _expected(request, _second_order, request.probes)


def _flops(request: Request, batch: Any, importance: Importance) -> int:
    members = (m for group in request.groups.values() for m in request.members(group))
    step = _step(request, importance, list(dict.fromkeys((m.path, m.axis) for m in members)))
    return compute.flops(step, request.variables, batch, np.uint32(0))


def _first_order(
    loss: Loss, weights: Sequence[jax.Array], key: jax.Array
) -> tuple[jax.Array, list[jax.Array]]:
    value, gradients = jax.value_and_grad(loss)(weights)
    return value, [jnp.square(_wide(w) * _wide(g)) for w, g in zip(weights, gradients, strict=True)]


def _second_order(
    loss: Loss, weights: Sequence[jax.Array], key: jax.Array
) -> tuple[jax.Array, list[jax.Array]]:
    keys = jax.random.split(key, len(weights))
    signs = [_signs(k, w) for k, w in zip(keys, weights, strict=True)]
    (value, _), (_, products) = jax.jvp(jax.value_and_grad(loss), (weights,), (signs,))
    return value, [
        0.5 * jnp.square(_wide(w)) * _wide(v) * _wide(hv)
        for w, v, hv in zip(weights, signs, products, strict=True)
    ]


def _signs(key: jax.Array, like: jax.Array) -> jax.Array:
    """1 or -1 for each element. As `jax.random.rademacher`, whose signs follow jax_enable_x64."""
    heads = jax.random.bernoulli(key, jnp.float32(0.5), like.shape)
    return jnp.where(heads, 1, -1).astype(like.dtype)


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _expected(request: Request, importance: Importance, samples: int = 1) -> Parts:
    """The mean over batches, and samples of each, of `importance` summed over members' slices."""
    members = {name: request.members(group) for name, group in request.groups.items()}
    slots = list(dict.fromkeys((m.path, m.axis) for found in members.values() for m in found))
    step = _step(request, importance, slots)
    totals = [np.zeros(request.groups.shapes[path][axis]) for path, axis in slots]
    count = 0
    for i, batch in enumerate(request.data()):
        for _ in range(samples):
            value, sums = jax.device_get(step(request.variables, batch, np.uint32(count)))
            if not np.isfinite(value):
                raise UserError(f"loss is {value} for batch {i}, expected a finite number")
            for total, found in zip(totals, sums, strict=True):
                total += found
            count += 1
    means = dict(zip(slots, (total / count for total in totals), strict=True))
    for (path, axis), mean in means.items():
        if not np.isfinite(mean).all():
            raise UserError(
                f"{path} has gradients that are NaN or infinite (on axis {axis}), expected none"
            )
    return {
        name: [slices.by_channel(means[m.path, m.axis], m) for m in found]
        for name, found in members.items()
    }


def _step(
    request: Request, importance: Importance, slots: Sequence[tuple[str, int]]
) -> Callable[[Any, Any, np.uint32], tuple[jax.Array, list[jax.Array]]]:
    """One numbered sample: the loss, and for each slot the importance at each position [size]."""
    paths = list(dict.fromkeys(path for path, _ in slots))
    order = {path: i for i, path in enumerate(request.leaves)}
    for path in paths:
        kind = jnp.result_type(request.leaves[path])
        if not jnp.issubdtype(kind, jnp.floating):
            raise UserError(
                f"{path} is {kind}, expected floating point to differentiate for criterion "
                f"{request.criterion!r}"
            )

    @jax.jit
    def step(variables: Any, batch: Any, number: Any) -> tuple[jax.Array, list[jax.Array]]:
        key = jax.random.fold_in(jax.random.key(request.seed), number)
        leaves, tree = jax.tree.flatten(variables)

        def loss(weights: Sequence[jax.Array]) -> jax.Array:
            here = list(leaves)
            for path, weight in zip(paths, weights, strict=True):
                here[order[path]] = weight
            assert request.loss is not None
            return _scalar(request.loss(jax.tree.unflatten(tree, here), batch))

        value, found = importance(loss, [leaves[order[path]] for path in paths], key)
        by_path = dict(zip(paths, found, strict=True))
        return value, [_along(by_path[path], axis) for path, axis in slots]

    return step


def _along(values: jax.Array, axis: int) -> jax.Array:
    return values.sum([i for i in range(values.ndim) if i != axis])


def _scalar(value: Any) -> jax.Array:
    scalar = isinstance(value, jax.Array) and value.shape == ()
    if not scalar or not jnp.issubdtype(value.dtype, jnp.floating):
        raise UserError(f"loss returns {value}, expected one number in floating point, of jax")
    return value
