"""Errors of the machine become one line that says what to do."""

import errno
import os
import resource

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctl_jax import failures, files
from ctl_jax.finetune import Snapshot, TrainState
from ctl_jax.finetune.checkpoints import Checkpoint, Checkpoints


def caught(function, *arguments):
    """What the function raises."""
    try:
        function(*arguments)
    except Exception as error:
        return error
    pytest.fail("nothing was raised")


def write_to_full_disk(path):
    with open(path, "wb", buffering=0) as file:
        file.write(b"1")


def test_a_full_disk():
    line = failures.explain(caught(write_to_full_disk, "/dev/full"))
    assert line == (
        "No space left on device; free some space or choose another --workdir; then the same "
        "command goes on, and nothing done is lost"
    )


@pytest.fixture
def small_files():
    """No file may be larger than 4 kB, as on a disk that is nearly full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_cannot_be_written(small_files, tmp_path):
    line = failures.explain(caught(files.write_bytes, tmp_path / "x", bytes(5000)))
    assert line.startswith("File too large; raise the limit on the size of files")
    assert not list(tmp_path.iterdir())


def test_a_folder_where_a_file_should_be_and_the_reverse(tmp_path):
    (tmp_path / "results.csv").mkdir()
    (tmp_path / "figures").write_text("x")
    for path in (tmp_path / "results.csv", tmp_path / "figures" / "x.png"):
        line = failures.explain(caught(files.write_bytes, path, b"x"))
        named = tmp_path / path.relative_to(tmp_path).parts[0]
        assert line.startswith(f"{named}: ")
        assert "expected a file where a folder is, or the reverse: move it away" in line


def test_a_checkpoint_that_cannot_be_written(small_files, tmp_path):
    noise = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    state = TrainState(jnp.int32(1), {"w": noise}, {}, {}, jax.random.key(0))

    def save():
        with Checkpoints(tmp_path / "trial") as checkpoints:
            checkpoints.save(Checkpoint(Snapshot(state, (), 0.0)))

    line = failures.explain(caught(save))
    assert line.startswith("File too large while saving a checkpoint; raise the limit")
    # And nothing that could be taken for one is there.
    with Checkpoints(tmp_path / "trial") as checkpoints:
        assert checkpoints.newest(lambda phase: state) is None


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO])
def test_the_file_is_named(number):
    error = OSError(number, os.strerror(number), "/runs/x/config.json")
    line = failures.explain(error)
    assert line.startswith(f"/runs/x/config.json: {os.strerror(number)}; ")
    assert "\n" not in line


def test_a_missing_file_is_another_matter():
    assert failures.explain(caught(open, "/nowhere")) is None
    assert failures.explain(ValueError("No such thing")) is None


def test_too_little_memory_of_the_host():
    line = failures.explain(caught(np.zeros, 1 << 60, np.uint8))
    assert line.startswith("the machine is out of memory (Unable to allocate 1.00 EiB")
    assert "config.finetune.batch_size" in line
    assert failures.explain(MemoryError()).startswith("the machine is out of memory; expected")


def test_too_little_memory_of_the_device():
    """XLA's own error, of an array that no machine has room for."""
    zeros = jax.jit(lambda: jnp.zeros((1 << 20, 1 << 20, 64), jnp.float32))
    error = caught(lambda: zeros().block_until_ready())
    line = failures.explain(error)
    assert line.startswith("the device cpu is out of memory (it was asked for ")
    assert "config.finetune.batch_size" in line
    assert "\n" not in line


def test_what_caused_an_error_counts():
    def fail():
        try:
            write_to_full_disk("/dev/full")
        except OSError as error:
            raise RuntimeError("could not save") from error

    assert failures.explain(caught(fail)).startswith("No space left on device; ")
    assert failures.explain(caught(lambda: 1 / 0)) is None
