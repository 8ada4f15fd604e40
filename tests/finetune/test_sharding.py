"""Data parallelism, in processes of their own: eight devices of one, and two processes of two."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import chex
import jax
import numpy as np
import pytest

from ctl_jax import finetune
from ctl_jax.finetune import Augmentation, Hyper, Recipe, sharding

from ..quickly import FLAGS

HERE = pathlib.Path(__file__).parent


def environment(count):
    """Of a process that has so many devices."""
    flags = f"{FLAGS} --xla_force_host_platform_device_count={count}"
    return os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}


def test_on_eight_devices():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(HERE / "device_cases.py")],
        env=environment(8),
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]


@pytest.fixture(scope="module")
def group(split, tmp_path_factory):
    """What both processes of a group found, and their final variables."""
    folder = tmp_path_factory.mktemp("group")
    np.savez(folder / "given.npz", images=split[0], labels=split[1])
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(HERE / "group_member.py"), f"localhost:{port}"]
    members = [
        subprocess.Popen(
            [*command, str(index), str(folder / "given.npz"), str(folder)],
            env=environment(2) | {"PYTHONPATH": str(HERE.parents[1])},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(2)
    ]
    try:
        printed = [member.communicate(timeout=120)[0] for member in members]
    finally:
        for member in members:
            member.kill()
    assert [member.returncode for member in members] == [0, 0], "\n".join(printed)[-5000:]
    found = [json.loads((folder / f"{index}.json").read_text()) for index in range(2)]
    arrays = []
    for index in range(2):
        with np.load(folder / f"{index}.npz") as file:
            arrays.append([file[name] for name in file.files])
    return found, arrays


def test_two_processes_train_as_one(group, module, variables, split):
    recipe = Recipe("nevis", Augmentation())
    alone = finetune.fit(
        [finetune.Leg(finetune.make_step(module, recipe), recipe, Hyper(0.1, 12, 2, 3))],
        variables,
        *split,
        batch_size=16,
        seed=0,
        log_every=5,
    )
    score = finetune.evaluate(module, "nevis", alone.variables, *split, num_classes=3).value
    expected = finetune.extract(module, "nevis", alone.variables, split[0])
    for found, (*arrays, features) in zip(*group, strict=True):
        chex.assert_trees_all_close(features, expected, rtol=1e-2, atol=1e-3)
        for entry, other in zip(found["history"], alone.history, strict=True):
            assert entry == pytest.approx(list(other[:3]), rel=1e-4)
        chex.assert_trees_all_close(arrays, jax.tree.leaves(alone.variables), rtol=1e-3, atol=1e-4)
        assert found["score"] == pytest.approx(score)
    chex.assert_trees_all_equal(*group[1])


def test_a_group_goes_on_from_a_snapshot_on_streamed_images(group):
    assert [found["same"] for found in group[0]] == [True, True]


def test_a_group_stops_at_one_step_where_one_process_is_told(group):
    first, second = group[0]
    assert [first["told"], second["told"]] == [False, True]
    assert first["stopped"] == second["stopped"] >= 20


def test_one_process_agrees_with_itself():
    assert finetune.agree_to_stop(True, 1)
    assert not finetune.agree_to_stop(False, 1)


def test_arrays_that_are_in_place_are_not_copied():
    mesh = sharding.make_mesh()
    placed = sharding.replicate(mesh, {"a": np.ones(3), "key": jax.random.key(0)})
    again = sharding.replicate(mesh, placed)
    assert all(again[name] is placed[name] for name in placed)
    copy = sharding.local_copy(placed)
    chex.assert_trees_all_equal(copy, placed)
    placed["a"].delete()
    np.testing.assert_array_equal(copy["a"], np.ones(3))
