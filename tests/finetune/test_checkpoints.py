"""Checkpoints: the same bits come back, and what is damaged does not."""

import functools
import json
import logging
import pathlib
import shutil

import chex
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from hypothesis import strategies as st

from ctl_jax import files, finetune, home, interrupts, object_store
from ctl_jax.finetune import Hyper, Snapshot
from ctl_jax.finetune._loop import LogEntry
from ctl_jax.finetune.checkpoints import Checkpoint, Checkpoints, check, pack, unpack

STEPS = (3, 4, 6)


@pytest.fixture(scope="module")
def state(recipe, variables):
    """With values that arithmetic would change."""
    state = finetune.init_state(recipe, variables, seed=7)
    odd = jnp.array([-0.0, jnp.nan, jnp.inf, 1e-42] * 4, jnp.float32)
    params = {**state.params, "head": {**state.params["head"], "bias": odd}}
    return state._replace(params=params)


@pytest.fixture(scope="module")
def like(recipe, variables):
    init = functools.partial(finetune.init_state, recipe, seed=0)
    return lambda phase: jax.eval_shape(init, variables)


def at(state, step):
    history = tuple(LogEntry(k, 1 / 3 + k, 0.1, 0.5 * k) for k in range(1, step))
    best = {"params": state.params, "batch_stats": state.batch_stats} if step > 3 else None
    snapshot = Snapshot(state._replace(step=jnp.asarray(step)), history, step / 7)
    return Checkpoint(snapshot, best, {"dev": [[step, 0.1, None]]})


@pytest.fixture(scope="module")
def saved(tmp_path_factory, state):
    """A folder after three checkpoints."""
    folder = tmp_path_factory.mktemp("checkpoints") / "trial"
    with Checkpoints(folder) as checkpoints:
        for step in STEPS:
            checkpoints.save(at(state, step))
    return folder


def test_folders_that_are_not_utf8(tmp_path, monkeypatch, state, like):
    monkeypatch.setattr(home, "_stand_in", lambda: tmp_path)
    folder = tmp_path / "caf\udce9"
    with Checkpoints(folder / "trial") as checkpoints:
        checkpoints.save(at(state, 3))
    assert (folder / "trial").is_dir()
    with Checkpoints(folder / "trial") as checkpoints:
        assert_same(checkpoints.newest(like), at(state, 3))


def assert_same(found, expected):
    for one, other in (
        (found.snapshot.state, expected.snapshot.state),
        (found.best, expected.best),
    ):
        chex.assert_trees_all_equal_shapes_and_dtypes(one, other)
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            if jax.dtypes.issubdtype(b.dtype, jax.dtypes.prng_key):
                a, b = map(jax.random.key_data, (a, b))
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    assert found.snapshot[1:] == expected.snapshot[1:]
    assert found.notes == expected.notes


def test_the_last_two_stay_and_the_newest_comes_back_bit_for_bit(saved, state, like):
    assert {path.name for path in saved.iterdir()} == {"4", "6"}
    with Checkpoints(saved, warn=pytest.fail) as checkpoints:
        found = checkpoints.newest(like)
    assert found.step == 6
    assert_same(found, at(state, 6))


@hypothesis.settings(max_examples=25)
@hypothesis.given(st.data())
def test_damage_of_any_file_is_noticed_or_harmless(tmp_path_factory, saved, state, like, data):
    folder = tmp_path_factory.mktemp("damaged") / "trial"
    shutil.copytree(saved, folder)
    files = sorted(path for path in (folder / "6").rglob("*") if path.is_file())
    path = data.draw(st.sampled_from(files))
    content = bytearray(path.read_bytes())
    hypothesis.assume(content)
    place = data.draw(st.integers(0, len(content) - 1))
    kind = data.draw(st.sampled_from(["flip", "cut", "remove"]))
    if kind == "flip":
        content[place] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(content)
    elif kind == "cut":
        path.write_bytes(content[:place])
    else:
        path.unlink()
    lines = []
    with Checkpoints(folder, warn=lines.append) as checkpoints:
        found = checkpoints.newest(like)
        assert_same(found, at(state, 4 if lines else 6))
        # And the training goes on from there.
        checkpoints.save(at(state, found.step + 1))
    with Checkpoints(folder, warn=pytest.fail) as checkpoints:
        assert checkpoints.newest(like).step == found.step + 1
    for line in lines:
        assert line.startswith(f"checkpoint {folder}/6 is damaged: ")
        assert "\n" not in line


class Away(ConnectionError):
    """What a store says that is away for a while."""


def test_a_store_that_is_away_costs_checkpoints_and_not_the_training(
    tmp_path, state, like, monkeypatch
):
    lines, manager = [], ocp.CheckpointManager

    def fail(*args, **kwargs):
        raise Away

    with Checkpoints(tmp_path / "trial", warn=lines.append) as checkpoints:
        checkpoints.save(at(state, 3))
        checkpoints.wait()
        with monkeypatch.context() as patch:
            patch.setattr(manager, "save", fail)
            checkpoints.save(at(state, 4))
            patch.setattr(interrupts, "requested", lambda: True)
            with pytest.raises(Away):
                checkpoints.save(at(state, 5))
        checkpoints.save(at(state, 6))
        checkpoints.wait()
        monkeypatch.setattr(manager, "close", fail)
    assert lines == [f"a checkpoint in {tmp_path}/trial could not be written (Away)"] * 2
    monkeypatch.undo()
    with Checkpoints(tmp_path / "trial", warn=pytest.fail) as checkpoints:
        assert_same(checkpoints.newest(like), at(state, 6))


def test_what_a_store_that_is_away_does_not_give_is_not_damaged(bucket, state, like, monkeypatch):
    folder, times = f"{bucket}/trial", []
    monkeypatch.setattr(object_store.time, "sleep", times.append)
    files.write_text(f"{folder}/3/it", "")
    monkeypatch.setattr(Checkpoints, "_open", lambda self: FakeManager())

    def fail(self, *args):
        if len(times) < 2:
            raise Away
        return "checkpoint"

    monkeypatch.setattr(Checkpoints, "_read", fail)
    assert Checkpoints(folder, warn=pytest.fail).newest(like) == "checkpoint"
    monkeypatch.setattr(object_store, "PATIENCE_S", 0)
    times.clear()
    with pytest.raises(object_store.Unreachable):
        Checkpoints(folder, warn=pytest.fail).newest(like)


class FakeManager:
    """Of one checkpoint, which stays."""

    def all_steps(self):
        return [3]


STRAYS = (
    *(".DS_Store", "._6", "Thumbs.db", "desktop.ini", "6 (1)", "6~", "x.part", "6.sync-conflict-1"),
    *(
        ".6.swp",
        ".nfs0001",
        ".fuse_hidden0001",
        "7",
        "007",
        "-3",
        "6.0",
        "1e3",
        "\N{SUPERSCRIPT TWO}",
    ),
    *("descriptor", "_CHECKPOINT_METADATA", "state", "default"),
)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_strays_are_nobodys_damage(saved, state, like, tmp_path, kind):
    folder = shutil.copytree(saved, tmp_path / "trial")
    places = (folder, folder / "6", folder / "6" / "state", folder / "6" / "meta")
    for stray in (place / name for place in places for name in STRAYS):
        if stray.exists():
            continue
        if kind == "file":
            stray.write_bytes(b"\0stray")
        else:
            (stray / "inside").mkdir(parents=True)
    lines = []
    with Checkpoints(folder, warn=lines.append) as checkpoints:
        assert_same(checkpoints.newest(like), at(state, 6))
        checkpoints.save(at(state, 9))
    # A folder of that name might be one.
    assert {line.partition(" is damaged")[0][-2:] for line in lines} <= {"/7"}
    with Checkpoints(folder, warn=lines.append) as checkpoints:
        assert checkpoints.newest(like).step == 9


def test_a_changed_array_falls_back_with_a_warning(saved, state, like, tmp_path):
    """Orbax itself reads it without complaint."""
    folder = shutil.copytree(saved, tmp_path / "trial")
    with Checkpoints(folder) as checkpoints:
        content, meta = pack(at(state, 6))
        content[100] ^= 1
        checkpoints._open().delete(6)
        checkpoints._write(6, content, meta)
    lines = []
    with Checkpoints(folder, warn=lines.append) as checkpoints:
        assert checkpoints.newest(like).step == 4
    assert lines == [f"checkpoint {folder}/6 is damaged: its arrays are not what was written"]


def test_all_damaged(saved, state, like, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "trial")
    for path in folder.glob("*/meta/metadata"):
        path.write_text("{")
    lines = []
    with Checkpoints(folder, warn=lines.append) as checkpoints:
        assert checkpoints.newest(like) is None
        checkpoints.save(at(state, 2))
        checkpoints.wait()
        assert checkpoints.newest(like).step == 2
    assert [line.split()[1] for line in lines] == [f"{folder}/6", f"{folder}/4"]


def test_half_a_checkpoint_is_not_one(saved, state, like, tmp_path, caplog):
    """What a process that was killed while it wrote leaves behind."""
    folder = shutil.copytree(saved, tmp_path / "trial")
    shutil.copytree(folder / "6", folder / "8.orbax-checkpoint-tmp")
    with caplog.at_level(logging.WARNING), Checkpoints(folder, warn=pytest.fail) as checkpoints:
        assert checkpoints.newest(like).step == 6
        # Waits for Orbax to tidy up, which it does in the background.
        checkpoints.save(at(state, 8))
    assert not (folder / "8.orbax-checkpoint-tmp").exists()
    with Checkpoints(folder, warn=pytest.fail) as checkpoints:
        assert checkpoints.newest(like).step == 8


def test_of_another_training(saved, recipe, variables, like):
    params = {**variables["params"], "extra": {"kernel": jnp.zeros(3)}}
    other = finetune.init_state(recipe, {**variables, "params": params}, seed=0)
    lines = []
    with Checkpoints(saved, warn=lines.append) as checkpoints:
        content, meta = pack(checkpoints.newest(like))
    assert not lines
    with pytest.raises(ValueError, match="another network"):
        unpack(content, meta, lambda phase: other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": 5}, "its log is not what was written"),
        ({"format": 1}, "expected format 2"),
        ({"more": 1}, "its log is not what was written"),
    ],
)
def test_a_changed_log_is_noticed(state, change, message):
    _, meta = pack(at(state, 4))
    meta = json.loads(json.dumps(meta))
    check(meta)
    with pytest.raises(ValueError, match=message):
        check(meta | change)


def test_nothing_is_touched_without_need(tmp_path, like):
    with Checkpoints(tmp_path / "trial") as checkpoints:
        assert not checkpoints.exist()
        assert checkpoints.newest(like) is None
        assert not checkpoints.busy
        checkpoints.wait()
    assert not (tmp_path / "trial").exists()


def test_a_relative_folder(tmp_path, monkeypatch, state, like):
    monkeypatch.chdir(tmp_path)
    with Checkpoints(pathlib.Path("runs", "trial")) as checkpoints:
        checkpoints.save(at(state, 1))
    with Checkpoints("runs/trial") as checkpoints:
        assert checkpoints.newest(like).step == 1


def test_a_failure_to_write_is_raised_once(tmp_path, state, like, monkeypatch):
    """And not instead of another error; but whoever is told to stop is told of it."""
    checkpoints = Checkpoints(tmp_path / "trial")
    checkpoints.save(at(state, 1))
    checkpoints.wait()

    def fail():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints._manager, "close", fail)
    with pytest.raises(OSError, match="No space"):
        checkpoints.__exit__(None, None, None)
    with pytest.raises(OSError, match="No space"):
        checkpoints.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    checkpoints.__exit__(ValueError, ValueError("first"), None)


def test_a_training_goes_on_from_its_checkpoint(recipe, variables, split, plain, like, tmp_path):
    fit = functools.partial(
        finetune.fit,
        [finetune.Leg(plain, recipe, Hyper(0.1, 12, 2, 3))],
        variables,
        *split,
        batch_size=8,
        seed=0,
        log_every=5,
    )

    class Stop(Exception):
        pass

    def stop(step, snapshot):
        if step == 7:
            checkpoints.save(Checkpoint(snapshot()))
            raise Stop

    whole = fit()
    with Checkpoints(tmp_path / "trial") as checkpoints, pytest.raises(Stop):
        fit(on_chunk=stop)
    with Checkpoints(tmp_path / "trial") as checkpoints:
        rest = fit(start=checkpoints.newest(like).snapshot)
    chex.assert_trees_all_equal(rest.variables, whole.variables)
    assert [entry[:3] for entry in rest.history] == [entry[:3] for entry in whole.history]
