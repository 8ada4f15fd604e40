"""Features of whole splits: each image's own, whatever the batches, the head and the view."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctl_jax import finetune, models
from ctl_jax.errors import UserError

SIZE = 16
MODULE = models.create("resnet18", num_outputs=1, stages=(1, 1), width=4, stem="cifar")


@pytest.fixture(scope="module")
def variables():
    shapes = jax.eval_shape(lambda: models.init(MODULE, jax.random.key(0), SIZE))
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda a: rng.uniform(0, 1, a.shape).astype(np.float32), shapes)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(2).integers(0, 256, (13, SIZE, SIZE, 3)).astype(np.uint8)


def expected(variables, images, head="taps"):
    x = models.PREPROCESS["nevis"](jnp.asarray(images))
    return jax.jit(models.representation, static_argnums=(0, 3))(MODULE, variables, x, head)


def test_each_image_once(variables, images, tmp_path):
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    exact = expected(variables, images)
    extract = functools.partial(finetune.extract, MODULE, "nevis", variables, batch_size=8)
    for where, count in ((mapped, 13), (images, 8), (images, 3)):
        found = extract(where[:count], head="taps", dtype=np.float32)
        chex.assert_trees_all_close(found, np.asarray(exact)[:count], rtol=1e-5, atol=1e-6)
    halves = extract(images)
    assert halves.dtype == np.float16
    last = np.asarray(exact)[:, : halves.shape[1]]
    chex.assert_trees_all_close(halves.astype(np.float32), last, rtol=1e-3, atol=1e-4)


def test_one_program_for_all_heads_sizes_and_views(variables, images):
    extract = functools.partial(finetune.extract, MODULE, "nevis", batch_size=4)
    extract(variables, images)
    lowered = finetune.extract.__globals__["_compiled"](finetune.make_mesh())
    before = lowered._cache_size()
    extract(models.with_head(variables, 7), images[:5], view=3)
    extract(models.new_head(MODULE, variables, 7, SIZE, "taps"), images[:2], view=1)
    assert lowered._cache_size() == before


def test_views(variables, images):
    """Mirrored, and moved by a sixteenth with the last row and column repeated."""
    around = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    moved = {"down and right": around[:, :-2, :-2], "up and left": around[:, 2:, 2:]}
    extract = functools.partial(
        finetune.extract, MODULE, "nevis", variables, head="taps", dtype=np.float32
    )
    for view, seen in (
        (1, images[:, :, ::-1]),
        (2, moved["down and right"]),
        (5, moved["up and left"][:, :, ::-1]),
    ):
        found = extract(images, view=view)
        chex.assert_trees_all_close(found, expected(variables, seen), rtol=1e-5, atol=1e-6)
    views = [extract(images[:1], view=view) for view in range(finetune.VIEWS)]
    assert len({view.tobytes() for view in views}) == finetune.VIEWS


def test_beyond_the_range_of_float16(variables, images):
    large = jax.tree.map(lambda leaf: leaf * 1e3, variables["params"])
    found = finetune.extract(MODULE, "nevis", {**variables, "params": large}, images)
    assert np.isfinite(found).all()
    assert found.max() == np.finfo(np.float16).max


def test_nothing_to_extract(variables, images):
    extract = functools.partial(finetune.extract, MODULE, "nevis", variables)
    with pytest.raises(UserError, match="images to take features of: there are 0; expected some"):
        extract(images[:0])
    with pytest.raises(UserError, match="view is 8; expected 0 to 7"):
        extract(images, view=8)
    with pytest.raises(UserError, match="head is 'first'; expected 'last' or 'taps'"):
        extract(images, head="first")
