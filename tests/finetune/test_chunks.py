"""Several updates a call of the device: the numbers of one after the other, and one program."""

import dataclasses

import chex
import jax
import numpy as np
import pytest

from ctl_jax import finetune, models
from ctl_jax.finetune import Augmentation, Hyper, Recipe, _batches, _compiled_step, sharding

RECIPE = Recipe("nevis", Augmentation())


def fit(step, variables, split, *, steps=23, rate=0.1, seed=0, classes=3, **options):
    return finetune.fit(
        [finetune.Leg(step, RECIPE, Hyper(rate, steps, steps // 10, classes))],
        variables,
        *split,
        batch_size=8,
        seed=seed,
        log_every=options.pop("log_every", 10),
        **options,
    )


def test_chunks_give_the_numbers_of_single_updates(plain, chunked, variables, split):
    calls = []
    one = fit(plain, variables, split)
    many = fit(chunked, variables, split, on_chunk=lambda step, snapshot: calls.append(step))
    assert calls == [4, 8, 10, 14, 18, 20, 23]
    assert [entry.step for entry in many.history] == [10, 20, 23]
    assert one.steps == many.steps == 23
    for a, b in zip(one.history, many.history, strict=True):
        assert a[:3] == pytest.approx(b[:3], rel=1e-4)
    chex.assert_trees_all_close(one.variables, many.variables, rtol=1e-3, atol=1e-4)


def test_streamed_chunks_are_the_same(chunked, variables, split):
    kept, streamed = (fit(chunked, variables, split, device_bytes=n) for n in (1 << 30, 0))
    chex.assert_trees_all_equal(kept.variables, streamed.variables)


def test_metrics_of_updates_that_do_not_count_are_no_numbers(chunked, variables, split):
    state = sharding.replicate(chunked.mesh, finetune.init_state(RECIPE, variables, 0))
    parts = [array[:32].reshape(4, 8, *array.shape[1:]) for array in split]
    parts = sharding.shard(chunked.mesh, parts, axis=1)
    hyper = Hyper(np.float32(0.1), *map(np.int32, (9, 0, 3)), *map(np.float32, (1, 0)))
    values = sharding.replicate(chunked.mesh, (hyper, np.int32(3)))
    state, metrics = chunked(state, *parts, *values)
    assert state.step == 3
    assert np.isfinite(metrics.loss).tolist() == [True, True, True, False]
    assert np.isfinite(metrics.learning_rate).tolist() == [True, True, True, False]


def test_divergence_ends_chunks(chunked, variables, split):
    result = fit(chunked, variables, split, steps=100, rate=1e30)
    assert result.diverged
    assert result.steps == result.history[-1].step < 100


@pytest.mark.parametrize("name", ["plain", "chunked"])
def test_one_program_serves_a_stream_of_tasks(request, name, variables, split):
    """Sizes, class counts, rates, budgets, seeds, and where the images are make no difference."""
    step, (images, labels) = request.getfixturevalue(name), split
    fit(step, variables, split)
    fit(step, variables, split, steps=3, rate=0.3, seed=5, classes=7)
    fit(step, variables, (images[:33], labels[:33]), steps=2, device_bytes=0)
    fit(step, jax.tree.map(np.asarray, variables), split, steps=11)
    # What training left goes into the next one.
    snapshots = []
    last = fit(step, variables, split, steps=6, on_chunk=lambda _, now: snapshots.append(now()))
    fit(step, last.variables, split, steps=2)
    fit(step, variables, split, steps=6, start=snapshots[0])
    # A second trace is an error (see `make_step_once`); nor was anything compiled twice.
    assert step.program._cache_size() == 1


def test_one_program_a_loss_and_a_head(monkeypatch, module, variables, split):
    """What the programs compute is no matter here."""

    @chex.assert_max_traces(n=3)
    def train_step(module, recipe, state, *args):
        nothing = jax.numpy.float32(0)
        return state._replace(step=state.step + 1), finetune.Metrics(nothing, nothing)

    monkeypatch.setattr(_compiled_step, "train_step", train_step)
    images, labels = split
    several = np.zeros((60, 16), np.uint8)
    step = finetune.make_step(module, RECIPE, chunk=1)
    for classes in (3, 9):
        fit(step, variables, (images, several), steps=2, classes=classes)
        fit(step, variables, (images, labels), steps=2, classes=classes)
        fit(step, models.with_head(variables, 32), (images, labels), steps=2, classes=classes)
    assert step.program._cache_size() == 3


@pytest.mark.parametrize(
    ("held", "log_every", "length"), [(4, 10, 4), (2.9, 10, 2), (0.1, 10, 1), (4, 3, 3)]
)
def test_images_of_a_chunk_have_a_limit(
    monkeypatch, chunked, variables, split, held, log_every, length
):
    """Never less than one batch; and no more than are looked at together."""

    class Found(Exception):
        pass

    def recorded(*args, ends, **kwargs):
        raise Found(ends.length)

    monkeypatch.setattr(_batches, "chunks", recorded)
    monkeypatch.setattr(_batches, "CHUNK_BYTES", int(held * 8 * 8 * 8 * 3))
    with pytest.raises(Found, match=str(length)):
        fit(chunked, variables, split, log_every=log_every)


@pytest.mark.parametrize("where", ["feed", "step"])
def test_what_is_not_put_on_the_device_is_refused(monkeypatch, plain, variables, split, where):
    """An implicit transfer within the loop is an error."""

    def careless(*args, **kwargs):
        yield jax.numpy.sum(np.ones(3))

    step = plain
    if where == "feed":
        monkeypatch.setattr(_batches, "chunks", careless)
    else:
        step = dataclasses.replace(plain, program=lambda *args: next(careless()))
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        fit(step, variables, split, steps=2)
    jax.numpy.sum(np.ones(3))


def test_callbacks_may_transfer(plain, variables, split):
    found = []
    fit(
        plain,
        variables,
        split,
        steps=2,
        on_log=lambda entry: found.append(jax.numpy.square(np.float32(entry.step))),
        on_chunk=lambda step, snapshot: found.append(jax.numpy.square(np.float32(step))),
    )
    assert [float(value) for value in found] == [1, 4, 4]


@pytest.mark.parametrize(
    ("backend", "chunk", "dtype"),
    [("cpu", 1, "float32"), ("gpu", 10, "bfloat16"), ("tpu", 10, "bfloat16")],
)
def test_defaults_by_backend(backend, chunk, dtype):
    assert finetune.default_chunk(backend) == chunk
    assert finetune.default_dtype(backend) == dtype


def test_the_default_is_that_of_the_mesh(module):
    assert finetune.make_step(module, RECIPE).chunk == finetune.default_chunk(jax.default_backend())
