"""Runs of a small experiment in children that are disturbed; run by test_kills.py, prints JSON.

The parent imports everything and then only forks: a child starts in milliseconds, and is a process
like any other. jax starts its threads in the children.

  python forked_runs.py FOLDER KILLS SEED
"""

import json
import os
import pathlib
import random
import resource
import signal
import socket
import sys
import time
import warnings
from typing import Any

from undrawn import fake_figures

from ctl_jax import data, main, models

CONFIG = """
from ctl_jax import experiment
from ctl_jax.experiment import tunings
from ctl_jax.finetune import Phase

@tunings.tuning("twice")
def twice(network):
    return Phase(("head/*",), "frozen", share=0.2), Phase(share=0.8, rate=0.1)

def get_config():
    config = experiment.default_config()
    config.stream.variant = "digits"
    config.data.image_size = 16
    config.data.max_eval_examples = 40
    config.model.name = "resnet18"
    config.model.stages = (1,)
    config.model.width = 8
    config.pruning.round_to = 1
    config.pretrain.task = "synthetic_source"
    config.pretrain.steps = 40
    config.pretrain.batch_size = 8
    config.methods = ("filters@0.5+twice", "dense", "probe")
    config.budgets.min_flops = config.budgets.max_flops = 1e8
    config.budgets.num = 1
    config.finetune.batch_size = 8
    config.finetune.learning_rates = (0.1,)
    config.keep_models = "best"
    config.finetune.log_every = 2
    config.finetune.evaluate_every = 6
    config.finetune.report = "best"
    # Whenever the one before is written.
    config.checkpoint.every_s = 1e-6
    return config
"""


class Runs:
    """Starts the command in children, in one folder after another."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.workdirs = 0
        self.errors = ""
        (folder / "config.py").write_text(CONFIG)
        self.renew()

    def renew(self) -> None:
        """Takes a new folder for the runs to come."""
        self.workdirs += 1
        self.workdir = self.folder / f"run{self.workdirs}"

    def start(self, *flags: str, most_bytes: int | None = None) -> int:
        """A child that runs the command; no file of it may be larger than `most_bytes`."""
        self.pipe, errors = os.pipe()
        if child := os.fork():
            os.close(errors)
            return child
        output = os.open(self.folder / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number, file in ((1, output), (2, errors)):
            os.dup2(file, number)
        if most_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
        paths = [f"--config={self.folder}/config.py", f"--workdir={self.workdir}"]
        main.interrupts.install()
        try:
            status = main.main(["main", *paths, *flags])
        finally:
            main.interrupts.ignore()
        if flags:
            sys.exit(status)  # jax waits for the others of a group at its exit.
        # Without half a second of tidying up a large program.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    def group(self) -> list[int]:
        """Two children that train each trial together."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        return [self.start(f"--group={address},{index}/2") for index in range(2)]

    def disturb(self, number: signal.Signals, after_s: float) -> int:
        """Starts a child, sends it the signal later, and gives its status (0: it was done)."""
        child = self.start()
        deadline = time.monotonic() + after_s
        while time.monotonic() < deadline:
            time.sleep(0.002)
            if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return self.end(child)
        os.kill(child, number)
        return self.end(child)

    def end(self, child: int) -> int:
        """Waits for a child; its status."""
        with open(self.pipe) as errors:
            self.errors = errors.read()
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def results(self) -> dict[str, Any]:
        """Runs to the end; `found`, or what went wrong."""
        status = self.end(self.start())
        if status or self.errors:
            return {"status": status, "errors": self.errors}
        return self.found()

    def found(self) -> dict[str, Any]:
        """What a finished run says: results, byte for byte, losses to the last bit; its models."""
        lines = map(json.loads, (self.workdir / "records.jsonl").read_text().splitlines())
        losses = {f"{x['trial']} {x['step']}": x["loss"] for x in lines if x["type"] == "train"}
        kept = sorted(map(str, self.workdir.glob("models/[0-9a-f]*")))
        csv = (self.workdir / "results.csv").read_text()
        return {"csv": csv, "losses": losses, "models": kept}


def contents(folders: list[str]) -> dict[str, str]:
    """Hashes of the variables of models. It starts jax, so nothing may be forked after it."""
    return {
        pathlib.Path(folder).name: models.content_hash(models.load(folder).variables)
        for folder in folders
    }


def stopped_group(runs: Runs) -> dict[str, Any]:
    """A run of two processes, of which the second is told to stop, and the same again."""
    children = runs.group()
    deadline = time.monotonic() + 120
    # Not before there is a checkpoint, so that one is read again.
    while not list(runs.workdir.glob("scratch/*/[0-9]*/meta")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(children[1], signal.SIGTERM)
    stopped = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    kept = sorted(path.name for path in runs.workdir.glob("scratch/*/[0-9]*"))
    again = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in runs.group()]
    return {"stopped": stopped, "kept": kept, "again": again, "losses": runs.found()["losses"]}


def disturbed_runs(folder: pathlib.Path, kills: int, seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    runs = Runs(folder)
    undisturbed = runs.results()  # Fills the cache of programs, too.
    runs.renew()
    limited = [runs.end(runs.start(most_bytes=4000)), runs.errors]
    began = time.monotonic()
    results = [runs.results()]
    whole_s = time.monotonic() - began
    stops = []
    for signals in ([signal.SIGKILL] * kills, [signal.SIGTERM, signal.SIGINT]):
        runs.renew()
        left = list(signals)
        while left:
            # Each goes on from where the one before was: this reaches the report's last file, too.
            status = runs.disturb(left[-1], rng.uniform(0, 0.6 * whole_s))
            if status:
                stops.append([left.pop().name, status, runs.errors])
            else:  # It was done before.
                results.append(runs.found())
                runs.renew()
        results.append(runs.results())
    runs.renew()
    group = stopped_group(runs)
    for each in (undisturbed, *results):
        each["models"] = contents(each.get("models", []))
    return {
        "undisturbed": undisturbed,
        "group": group,
        "results": results,
        "stops": stops,
        "limited": limited,
        "left": sorted(p.name for p in runs.folder.rglob("*") if ".tmp" in p.name),
    }


if __name__ == "__main__":
    # The one there is takes half a minute to make.
    data.source_spec = lambda name: data.stream("digits")[0]
    fake_figures(setattr)
    # The test's flags are right: no run needs a process more to see it.
    main.platforms.check_flags = lambda: None
    # jax warns of its threads; there are none in the parent.
    warnings.filterwarnings("ignore", "os.fork")
    print(json.dumps(disturbed_runs(pathlib.Path(sys.argv[1]), *map(int, sys.argv[2:]))))
