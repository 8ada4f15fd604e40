"""Runs of three workers that are killed (-9) at random moments, until there were 200 kills.

  python benchmarks/kills.py [--kills=200] [--workers=3] [--seed=0]

Workers share a folder and are started again as soon as they are dead. Where a run is complete, its
results.csv is compared byte for byte with that of one worker that was left alone, its losses to the
last bit, and what is left in the folder is looked at; then the next run begins in a new folder. The
parent imports everything and only forks, so that a worker is at work within seconds. The moments
are drawn from the time that a run of one worker takes, so that kills fall into pretraining,
pruning, rungs of the search, both phases of trials, the writing of models, and the report.
"""

import argparse
import json
import os
import pathlib
import random
import signal
import sys
import tempfile
import time
import warnings

CONFIG = """
from ctl_jax import experiment

def get_config():
    config = experiment.default_config()
    config.stream.variant = "digits+shapes"
    config.data.image_size = 16
    config.data.max_eval_examples = 40
    config.model.name = "resnet18"
    config.model.stages = (1,)
    config.model.width = 8
    config.pruning.round_to = 1
    config.pretrain.task = "synthetic_source"
    config.pretrain.steps = 60
    config.pretrain.batch_size = 8
    config.methods = ("auto", "filters@0.5", "dense+lp_ft")
    config.budgets.min_flops = config.budgets.max_flops = 1e8
    config.budgets.num = 1
    config.finetune.batch_size = 8
    config.finetune.learning_rates = (0.02, 0.05, 0.1)
    config.strategy = "halving"
    config.finetune.log_every = 2
    config.finetune.evaluate_every = 6
    config.finetune.report = "best"
    config.keep_models = "best"
    # Whenever the one before is written.
    config.checkpoint.every_s = 1e-6
    return config
"""


class Runs:
    """Starts workers of a run in children."""

    def __init__(self, folder: pathlib.Path, workers: int):
        self.folder, self.workers = folder, workers
        (folder / "config.py").write_text(CONFIG)

    def start(self, workdir: pathlib.Path, index: int, count: int) -> int:
        """Forks a worker; its process id."""
        from ctl_jax import main

        if child := os.fork():
            return child
        log = os.open(self.folder / f"log{index}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for number in (1, 2):
            os.dup2(log, number)
        main.interrupts.install()
        status = 1
        try:
            paths = [f"--config={self.folder}/config.py", f"--workdir={workdir}"]
            status = main.main(["main", *paths, f"--worker={index}/{count}"])
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def alone(self, workdir: pathlib.Path) -> float:
        """A run of one worker that is left alone; the seconds that it took."""
        began = time.monotonic()
        _, status = os.waitpid(self.start(workdir, 0, 1), 0)
        if status:
            sys.exit((self.folder / "log0").read_text())
        return time.monotonic() - began

    def killed(self, workdir: pathlib.Path, rng: random.Random, most_s: float, kills: int) -> int:
        """A run whose workers are killed, at most so often; how often they were."""
        done = 0
        alive = {self.start(workdir, i, self.workers): i for i in range(self.workers)}
        while alive:
            until = time.monotonic() + rng.uniform(0, most_s / 2)
            while time.monotonic() < until and alive:
                time.sleep(0.002)
                self._bury(alive)
            if done < kills and alive:
                victim = rng.choice(sorted(alive))
                os.kill(victim, signal.SIGKILL)
                os.waitpid(victim, 0)
                done += 1
                index = alive.pop(victim)
                alive[self.start(workdir, index, self.workers)] = index
        return done

    def _bury(self, alive: dict[int, int]) -> None:
        for child in list(alive):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                index = alive.pop(child)
                if status:
                    sys.exit(f"worker {index} ended by itself with {status}: see {self.folder}")


def found(workdir: pathlib.Path) -> dict[str, object]:
    """What a finished run says, but for the time that it took, and what it left."""
    lines = map(json.loads, (workdir / "records.jsonl").read_text().splitlines())
    losses = {f"{x['trial']} {x['step']}": x["loss"] for x in lines if x["type"] == "train"}
    left = [p.name for p in workdir.rglob("*") if ".tmp" in p.name or ".damaged-" in p.name]
    return {
        "results": (workdir / "results.csv").read_text(),
        "losses": losses,
        "models": sorted(path.name for path in (workdir / "models").glob("[0-9a-f]*")),
        "left": left + [path.name for path in (workdir / "scratch").glob("*")],
    }


def main() -> None:
    """Kills until there were enough kills, and compares."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    # jax warns of its threads; there are none in the parent.
    warnings.filterwarnings("ignore", "os.fork")
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        runs = Runs(pathlib.Path(name), arguments.workers)
        runs.alone(runs.folder / "first")  # Makes data, and fills the cache of programs.
        alone_s = runs.alone(runs.folder / "alone")
        expected, kills, equal, number = found(runs.folder / "alone"), 0, 0, 0
        while kills < arguments.kills:
            number += 1
            workdir = runs.folder / f"run{number}"
            kills += runs.killed(workdir, rng, alone_s, arguments.kills - kills)
            same = found(workdir) == expected
            equal += same
            print(f"run {number}: {kills} kills so far, {'equal' if same else 'NOT EQUAL'}")
        print(f"{kills} kills of {arguments.workers} workers, {equal} of {number} runs equal")
        sys.exit(equal != number)


if __name__ == "__main__":
    main()
