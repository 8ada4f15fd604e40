"""What a group's first process tells the others; here one after the other, without a network.

What is broadcast goes one way, so that a list of what the first process said does for the others.
`test_sharding` and `test_kills` have groups of real processes.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctl_jax import finetune, interrupts
from ctl_jax.finetune import Snapshot, multihost, sharding
from ctl_jax.finetune._loop import LogEntry
from ctl_jax.finetune.checkpoints import Checkpoint, share


@pytest.fixture
def in_both(monkeypatch):
    """(function, its arguments in the first and in the second process) -> both results."""

    def run(function, *arguments):
        said, results = [], []

        def broadcast(value):
            if jax.process_index() == 0:
                said.append(np.array(value))
            assert said, "the second process asked for more than the first said"
            heard = said[-1] if jax.process_index() == 0 else said.pop(0)
            assert (heard.shape, heard.dtype) == (value.shape, value.dtype)
            return heard

        monkeypatch.setattr(jax, "process_count", lambda: 2)
        monkeypatch.setattr(multihost.multihost_utils, "broadcast_one_to_all", broadcast)
        for index, given in enumerate(arguments):
            monkeypatch.setattr(jax, "process_index", lambda index=index: index)
            results.append(function(*given))
        assert not said, "the first process said more than the second asked for"
        monkeypatch.undo()
        return results

    return run


def test_alone_nothing_is_sent():
    tree = {"a": jnp.ones(3)}
    assert multihost.is_first()
    assert multihost.of_first(-3) == -3
    assert multihost.bytes_of_first(None) is None
    assert multihost.tree_of_first(tree, None) is tree
    assert share(None, None) is None
    assert not multihost.stop_requested()


@pytest.mark.parametrize("number", [-3, 0, 7])
def test_a_number(in_both, number):
    assert in_both(multihost.of_first, (number,), (99,)) == [number, number]


@pytest.mark.parametrize("size", [None, 0, 1, 10, 11, 25])
def test_bytes_in_parts(in_both, monkeypatch, size):
    monkeypatch.setattr(multihost, "_PART", 10)
    content = None if size is None else np.arange(size, dtype=np.uint8)
    for got in in_both(multihost.bytes_of_first, (content,), (None,)):
        if size is None:
            assert got is None
        else:
            np.testing.assert_array_equal(got, content)
            assert got.dtype == np.uint8


def test_a_tree_to_the_last_bit(in_both):
    tree = {"a": jnp.array([-0.0, jnp.nan, 1e-42]), "b": [jnp.int32(5), jnp.zeros((2, 0))]}
    like = jax.eval_shape(lambda: tree)
    for got in in_both(multihost.tree_of_first, (tree, like), (None, like)):
        chex.assert_trees_all_equal_shapes_and_dtypes(got, tree)
        for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(tree), strict=True):
            assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


@pytest.mark.parametrize("with_best", [True, False])
def test_a_checkpoint(in_both, recipe, variables, with_best):
    init = functools.partial(finetune.init_state, recipe, seed=5)
    like, state = jax.eval_shape(init, variables), init(variables)
    best = {"params": state.params, "batch_stats": state.batch_stats} if with_best else None
    history = (LogEntry(2, 0.1, 0.2, 0.3),)
    given = Checkpoint(Snapshot(state, history, 4.5), best, {"dev": [[1, 0.5, None]]})
    for got in in_both(share, (given, lambda phase: like), (None, lambda phase: like)):
        assert (got.snapshot.history, got.snapshot.wall_s) == (history, 4.5)
        assert got.notes == given.notes
        chex.assert_trees_all_equal(got.best, best)
        chex.assert_trees_all_equal(
            *(s._replace(key=jax.random.key_data(s.key)) for s in (got.snapshot.state, state))
        )


def test_no_checkpoint(in_both, recipe, variables):
    assert in_both(share, (None, None), (None, None)) == [None, None]


def test_each_look_at_the_signals_has_its_number(monkeypatch):
    """A group finds the step to stop after by them, over all trials."""
    asked = []
    monkeypatch.setattr(sharding, "agree_to_stop", lambda *given: asked.append(given) or False)
    monkeypatch.setattr(interrupts, "requested", lambda: len(asked) == 2)
    for _ in range(3):
        multihost.stop_requested()
    assert [requested for requested, _ in asked] == [False, False, True]
    first = asked[0][1]
    assert [step for _, step in asked] == [first, first + 1, first + 2]
