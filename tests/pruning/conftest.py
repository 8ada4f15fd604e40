"""The test that matters: a pruned network is the full one with channels cut off their readers."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctl_jax import pruning

Check = Callable[..., pruning.Groups]


@pytest.fixture(scope="session")
def check_exact() -> Check:
    """`check_exact(apply_fn, variables, x, criteria=, scope=, ratio=)`; returns the groups."""
    return _check_exact


def _check_exact(
    apply_fn: Callable[[Any, jax.Array], jax.Array],
    variables: Any,
    x: jax.Array,
    *,
    criteria: Iterable[str] = ("l2",),
    scope: str = "channels",
    ratio: float = 0.5,
    round_to: int = 1,
    gradients: bool = True,
    masked_apply: Callable[..., jax.Array] | None = None,
) -> pruning.Groups:
    """Compares outputs and gradients, in the weights and in the input, to 1e-4 relative.

    With one and the same `apply_fn` the full network compiles once for all choices, and the pruned
    one once for all criteria, which keep different channels but as many. `masked_apply(variables,
    x, masks)` is the full network normalising over those positions of each parameter axis that
    `masks` has, for networks that normalise over channels.
    """
    groups = pruning.trace(apply_fn, variables, x)
    for criterion in criteria:
        scores = pruning.score(groups, variables, criterion)
        keep = pruning.select(groups, scores, ratio=ratio, scope=scope, round_to=round_to)
        for name in groups.in_scope(scope):
            assert ratio == 0 or len(keep[name]) < groups[name].size or round_to > 1
        _compare(apply_fn, variables, x, groups, keep, ratio, gradients, masked_apply)
    return groups


def _compare(
    apply_fn: Callable[..., jax.Array],
    variables: Any,
    x: jax.Array,
    groups: pruning.Groups,
    keep: pruning.Keep,
    ratio: float,
    gradients: bool,
    masked_apply: Callable[..., jax.Array] | None,
) -> None:
    small = pruning.prune(variables, groups, keep)
    assert sum(leaf.size for leaf in jax.tree.leaves(small)) == groups.costs.params(keep)
    masked = cut_off_readers(variables, groups, keep)
    evaluate = _evaluator(apply_fn, gradients)
    full_out, _ = evaluate(variables, x)
    out, small_grads = evaluate(small, x)
    if masked_apply is None:
        expected, full_grads = evaluate(masked, x)
    else:
        expected, full_grads = _evaluator(masked_apply, gradients)(
            masked, x, kept_positions(groups, keep)
        )
    assert_near(out, expected, np.abs(expected).max())
    assert ratio == 0 or np.abs(full_out - expected).max() > 1e-3  # the cut is no trifle
    if not gradients:
        return
    (grad, grad_x), (full_grad, expected_x) = small_grads, full_grads
    assert_near(grad_x, expected_x, np.abs(expected_x).max())
    pruned_grad = pruning.prune(full_grad, groups, keep)
    largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(pruned_grad))
    # What BatchNorm makes zero (the gradient of a bias before it) is zero but for rounding.
    jax.tree.map(
        lambda a, b: assert_near(a, b, max(np.abs(b).max(), 1e-2 * largest)), grad, pruned_grad
    )


@functools.cache
def _evaluator(apply_fn: Callable[..., jax.Array], gradients: bool) -> Callable[..., Any]:
    def evaluate(variables: Any, x: jax.Array, *masks: Any) -> Any:
        if not gradients:
            return apply_fn(variables, x, *masks), ()
        out, pullback = jax.vjp(lambda v, x: apply_fn(v, x, *masks), variables, x)
        cotangent = jnp.cos(jnp.arange(out.size, dtype=out.dtype)).reshape(out.shape)
        return out, pullback(cotangent)

    # Compiling is what these tests spend their time on: also of the comparison's operations, one
    # by one for each shape, if these were no arrays of NumPy.
    compiled = jax.jit(evaluate)
    return lambda *args: jax.device_get(compiled(*args))


def cut_off_readers(variables: Any, groups: pruning.Groups, keep: pruning.Keep) -> Any:
    """The full variables, with zeros where a kernel reads a channel that is dropped."""
    flat, tree = jax.tree_util.tree_flatten_with_path(variables)
    leaves = {
        jax.tree_util.keystr(p, simple=True, separator="/"): np.array(leaf) for p, leaf in flat
    }
    for name, group in groups.items():
        dropped = np.setdiff1d(np.arange(group.size), keep[name])
        for member in group.members:
            # What looks tokens up may also read them, at the same place: a tied embedding.
            if member.role == "in" or member.path.endswith("embedding"):
                rows = np.moveaxis(leaves[member.path], member.axis, 0)  # a view
                rows[member.positions[dropped].ravel()] = 0
    return tree.unflatten([jnp.asarray(leaf) for leaf in leaves.values()])


def kept_positions(groups: pruning.Groups, keep: pruning.Keep) -> dict[str, jax.Array]:
    """For each parameter, which positions of its last axis stay."""
    masks = {path: np.ones(shape[-1:], bool) for path, shape in groups.shapes.items()}
    for name, group in groups.items():
        dropped = np.setdiff1d(np.arange(group.size), keep[name])
        for member in group.members:
            if member.axis == len(groups.shapes[member.path]) - 1:
                masks[member.path][member.positions[dropped].ravel()] = False
    return {path: jnp.asarray(mask) for path, mask in masks.items()}


def assert_near(actual: Any, expected: Any, scale: Any) -> None:
    assert actual.shape == expected.shape
    assert float(np.abs(actual - expected).max()) <= 1e-4 * float(scale)
