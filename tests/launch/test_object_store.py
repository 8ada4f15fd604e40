"""Two workers on an object store, one killed and the store away for a while: nothing is lost."""

import os
import pathlib
import subprocess
import sys
import time
import urllib.request

import pytest

from ..quickly import FLAGS

pytest.importorskip("gcsfs")
pytest.importorskip("gcp_storage_emulator")

from .object_store import BUCKET, ObjectStore

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = """\
from ctl_jax.experiment import default_config

def get_config():
    config = default_config()
    config.stream.variant = "digits"
    config.data.image_size, config.data.max_eval_examples = 16, 40
    config.model.name, config.model.stages, config.model.width = "resnet18", (1, 1), 8
    config.methods = ("scratch",)
    config.budgets.min_flops, config.budgets.max_flops, config.budgets.num = 4e7, 1.2e8, 2
    config.finetune.batch_size = 8
    config.finetune.learning_rates = (0.02, 0.2)
    return config
"""
WORKDIR = f"--workdir=gs://{BUCKET}/run"


@pytest.fixture
def start(tmp_path):
    """Starts the command with some arguments, and the environment of a store."""
    (tmp_path / "config.py").write_text(CONFIG)
    started = []

    def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "ctl_jax.main", f"--config={tmp_path}/config.py"]
        process = subprocess.Popen(
            [*command, *arguments],
            cwd=ROOT,
            text=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": FLAGS, **environment},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def _wait_for_claims(store: ObjectStore, workers: list[subprocess.Popen[str]]) -> None:
    """Returns when each worker has a trial, whose lease names its process."""
    waiting = list(workers)
    while waiting:
        for worker in waiting:
            assert worker.poll() is None, worker.communicate()[1]
        waiting = [w for w in waiting if not any(f", {w.pid}, " in b for b in store.created)]
        time.sleep(0.005)


@pytest.mark.slow
def test_disturbed_workers_end_like_a_run_that_was_left_alone(start, tmp_path):
    with ObjectStore() as store:
        environment = {"STORAGE_EMULATOR_HOST": store.address}
        workers = [start(WORKDIR, f"--worker={i}/2", **environment) for i in range(2)]
        _wait_for_claims(store, workers)
        workers[0].kill()
        store.away = True
        time.sleep(5)
        store.away = False
        _, errors = workers[1].communicate(timeout=300)
        assert workers[1].returncode == 0, errors
        # The client asks again for half a minute, and is heard within it.
        assert errors == ""
        results = _read(store, "results.csv")

        # What is finished is looked at in a few requests, four of them for its trials.
        for arguments, most in (("--plan",), 10), ((), 36):
            store.requests.clear()
            again = start(WORKDIR, *arguments, **environment)
            assert again.communicate(timeout=300)[1] == ""
            assert len(store.requests) <= most, store.requests
        assert _read(store, "results.csv") == results

    alone = start(f"--workdir={tmp_path}/run")
    assert alone.wait(timeout=300) == 0
    assert (tmp_path / "run" / "results.csv").read_bytes() == results


def _read(store: ObjectStore, name: str) -> bytes:
    address = f"{store.address}/download/storage/v1/b/{BUCKET}/o/run%2F{name}?alt=media"
    with urllib.request.urlopen(address) as answer:
        return answer.read()
