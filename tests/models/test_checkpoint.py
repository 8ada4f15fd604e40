"""Checkpoints come back as they were, or not at all."""

import hashlib
import pathlib
import shutil
import subprocess
import threading

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctl_jax import files, home, models
from ctl_jax.errors import UserError


def test_round_trip(small, tmp_path):
    _, variables = small
    path = tmp_path / "new" / "checkpoint"
    models.save_checkpoint(path, variables)
    loaded = models.load_checkpoint(str(path))
    chex.assert_trees_all_equal(loaded, variables)
    chex.assert_trees_all_equal_shapes_and_dtypes(loaded, variables)
    assert models.content_hash(loaded) == models.content_hash(variables)
    assert [p.name for p in path.parent.iterdir()] == ["checkpoint"]


def test_folders_that_are_not_utf8(small, tmp_path, monkeypatch):
    monkeypatch.setattr(home, "_stand_in", lambda: tmp_path)
    _, variables = small
    path = tmp_path / "caf\udce9" / "na\udcefve"
    models.save_checkpoint(path, variables)
    chex.assert_trees_all_equal(models.load_checkpoint(path), variables)
    assert [p.name for p in path.parent.iterdir()] == ["na\udcefve"]


def test_pruned_shapes_need_no_template(tmp_path, random_variables):
    pruned = random_variables(models.create("resnet50", 2, stages=(1, 2), width=1))
    models.save_checkpoint(tmp_path / "c", pruned)
    loaded = models.load_checkpoint(tmp_path / "c")
    chex.assert_trees_all_equal(loaded, pruned)
    wide = models.create("resnet50", 5, stages=(1, 2), width=4)
    images = np.ones((1, 24, 24, 3), np.float32)
    assert jax.jit(models.apply, static_argnums=0)(wide, loaded, images).shape == (1, 2)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.int32, jnp.float32])
def test_dtypes(dtype, tmp_path):
    tree = {"params": {"x": jnp.arange(6, dtype=dtype).reshape(2, 3), "scalar": dtype(3)}}
    models.save_checkpoint(tmp_path / "c", tree)
    loaded = models.load_checkpoint(tmp_path / "c")
    assert loaded["params"]["x"].dtype == dtype
    chex.assert_trees_all_equal(loaded["params"]["x"], tree["params"]["x"])


def test_replaces_and_leaves_nothing_behind(small, tmp_path):
    _, variables = small
    models.save_checkpoint(tmp_path / "c", variables)
    changed = models.with_head(variables, 2)
    models.save_checkpoint(tmp_path / "c", changed)
    chex.assert_trees_all_equal(models.load_checkpoint(tmp_path / "c"), changed)
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_takes_over_what_a_killed_run_left(small, tmp_path):
    _, variables = small
    for name in (".c.tmp", ".c.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rubbish").write_text("x")
    for _ in range(2):
        models.save_checkpoint(tmp_path / "c", variables)
    chex.assert_trees_all_equal(models.load_checkpoint(tmp_path / "c"), variables)
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_a_failed_save_keeps_the_old_one(small, tmp_path, monkeypatch):
    _, variables = small
    models.save_checkpoint(tmp_path / "c", variables)

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(pathlib.Path, "write_text", fail)
    with pytest.raises(OSError, match="disk full"):
        models.save_checkpoint(tmp_path / "c", models.with_head(variables, 3))
    chex.assert_trees_all_equal(models.load_checkpoint(tmp_path / "c"), variables)


def test_closes_its_threads(small, tmp_path):
    before = threading.active_count()
    models.save_checkpoint(tmp_path / "c", small[1])
    models.load_checkpoint(tmp_path / "c")
    assert threading.active_count() <= before


def test_in_an_object_store(small, bucket, tmp_path):
    _, variables = small
    path = files.path(f"{bucket}/run") / "pretrained"
    with pytest.raises(UserError, match=r"checkpoint gs://bucket/run/pretrained: no SHA256SUMS"):
        models.load_checkpoint(path)
    models.save_checkpoint(path, models.with_head(variables, 3))
    models.save_checkpoint(path, variables)
    chex.assert_trees_all_equal(models.load_checkpoint(str(path)), variables)
    names = files.tree(path)
    assert "SHA256SUMS" in names
    # Names that lead out of the directory are not followed.
    files.write_text(f"{path}/../../{tmp_path.name}/escaped", "x")
    files.write_text(f"{path}/a/../../../../../../{tmp_path}/escaped", "x")
    for name in ["SHA256SUMS", max(names, key=lambda name: len(files.read_bytes(path / name)))]:
        content = files.read_bytes(path / name)
        files.write_bytes(path / name, content[: len(content) // 2])
        with pytest.raises(UserError, match=r"is damaged: its file|no SHA256SUMS"):
            models.load_checkpoint(path)
        files.remove(path / name)
        with pytest.raises(UserError, match=r"is damaged: its file|no SHA256SUMS"):
            models.load_checkpoint(path)
        files.write_bytes(path / name, content)
    chex.assert_trees_all_equal(models.load_checkpoint(path), variables)
    assert list(tmp_path.iterdir()) == []


def test_missing(tmp_path):
    with pytest.raises(UserError, match=r"checkpoint .*/nowhere: no such directory"):
        models.load_checkpoint(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no SHA256SUMS; expected what save_checkpoint wrote"):
        models.load_checkpoint(tmp_path)


def test_damage(small, tmp_path):
    """Whatever file is lost, truncated or changed in one bit."""
    path = tmp_path / "c"
    models.save_checkpoint(path, small[1])
    found = sorted(p for p in path.rglob("*") if p.is_file())
    assert len(found) > 5
    for file in found:
        content = file.read_bytes()
        flipped = bytearray(content)
        flipped[len(content) // 2] ^= 1
        for damaged in (None, b"", content[: len(content) // 2], bytes(flipped)):
            file.unlink()
            if damaged is not None:
                file.write_bytes(damaged)
            with pytest.raises(UserError, match=r"is damaged: its file|no SHA256SUMS") as caught:
                models.load_checkpoint(path)
            assert "\n" not in str(caught.value)
            file.unlink(missing_ok=True)
            file.write_bytes(content)
    chex.assert_trees_all_equal(models.load_checkpoint(path), small[1])


def test_sums_are_those_of_sha256sum(small, tmp_path):
    models.save_checkpoint(tmp_path / "c", small[1])
    command = shutil.which("sha256sum")
    if command is None:
        pytest.skip("no sha256sum on this machine")
    subprocess.run(
        [command, "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=tmp_path / "c", check=True
    )


def test_content_hash():
    tree = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": {"c": np.ones(2)}}
    known = models.content_hash(tree)
    assert len(known) == 64
    reordered = {"b": {"c": jnp.ones(2)}, "a": np.asfortranarray(tree["a"])}
    reordered["b"]["c"] = np.asarray(reordered["b"]["c"], np.float64)
    assert models.content_hash(reordered) == known
    for other in (
        {**tree, "a": tree["a"].reshape(3, 2)},
        {**tree, "a": tree["a"].astype(np.int32)},
        {**tree, "a": tree["a"] + 1},
        {"a2": tree["a"], "b": tree["b"]},
        {"a": tree["a"]},
    ):
        assert models.content_hash(other) != known


def test_files_of_something_else_with_a_list_of_sums(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "SHA256SUMS").write_text(f"{hashlib.sha256(b'x').hexdigest()}  notes.txt\n")
    with pytest.raises(UserError, match="no variables; expected what save_checkpoint wrote"):
        models.load_checkpoint(tmp_path)
