"""How planning, sharing out and reporting grow with the stream: up to all of Nevis'22.

  python benchmarks/scale.py [--tasks=13,53,106] [--workers=4] [--workdir=FOLDER]

Plans FULL x 12 methods x 6 budgets x 3 learning rates x 3 seeds (68,688 trials of 106 tasks) over
generated data of 64 images a task, and runs it with several workers and one report. What is run is
the command itself, but for the trainings: a trial is not trained, its record is made up. Cuts,
queue, leases, files, records and the report are real. For each size it prints seconds and the peak
of a process's memory, and for each part the slope between sizes: 1 is linear, 2 quadratic.

A folder in memory, --workdir=/dev/shm, leaves the disk out of it.
"""

import argparse
import concurrent.futures
import dataclasses
import io
import itertools
import json
import math
import multiprocessing
import os
import pathlib
import random
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import PIL.Image

SPLITS = {"train": 32, "dev": 16, "dev_test": 8, "test": 8}
PIXELS, CLASSES = 16, 4
ALL = 106
METHODS = (
    *("dense", "scratch", "linear_probe", "dense+head_bn", "dense+freeze@1", "dense+last@1"),
    *(f"{scope}@{ratio}" for scope in ("filters", "channels") for ratio in (0.25, 0.5, 0.75)),
)
BUDGETS, RATES, SEEDS = 6, (0.003, 0.01, 0.03), (0, 1, 2)
# Lines of a made-up training.
LINES = 4


def make_data(root: pathlib.Path) -> None:
    """A table of 64 rows for each data set of the stream; they share their pictures."""
    from ctl_jax import data

    rng = np.random.default_rng(0)
    pictures = [f"{number}.png" for number in range(sum(SPLITS.values()))]
    for name in pictures:
        pixels = rng.integers(0, 256, (PIXELS, PIXELS, 3)).astype(np.uint8)
        PIL.Image.fromarray(pixels).save(root / name)
    splits = [split for split, count in SPLITS.items() for _ in range(count)]
    for spec in data.stream("FULL", 3000):
        several = spec.kind == "multi_label"
        lines = ["path,split,label" if not several else "path,split,a,b,c,d"]
        for number, (name, split) in enumerate(zip(pictures, splits, strict=True)):
            bits = ",".join(str((number >> bit) % 2) for bit in range(CLASSES))
            lines.append(f"{name},{split},{bits if several else f'class {number % CLASSES}'}")
        (root / f"{spec.file_name}.csv").write_text("\n".join(lines) + "\n")


def make_config(root: pathlib.Path, tasks: int) -> Any:
    """Of a small network on some of the tasks."""
    from ctl_jax import experiment

    config = experiment.default_config()
    config.stream.variant, config.stream.stop_year = "FULL", 3000
    if tasks < ALL:
        # Without the tasks of the last years, which stay whatever is drawn.
        config.stream.stop_year = 2020
        config.stream.ablation, config.stream.num_tasks = "random", tasks
    config.data.dirs, config.data.image_size = (f"table:{root}",), PIXELS
    config.weights = str(root / "weights")
    config.model.name, config.model.stages, config.model.width = "resnet18", (1, 1), 8
    config.pruning.round_to = 1
    config.methods = METHODS
    config.budgets.min_flops, config.budgets.max_flops = 1e8, 1e10
    config.budgets.num = BUDGETS
    config.finetune.batch_size, config.finetune.learning_rates = 8, RATES
    config.seeds = SEEDS
    return config


def make_weights(root: pathlib.Path) -> None:
    """Random ones of the network."""
    import jax

    from ctl_jax import models

    module = models.create("resnet18", num_outputs=1, stages=(1, 1), width=8)
    models.save_checkpoint(root / "weights", models.init(module, jax.random.key(0), PIXELS))


def make_up(step: Any, workspace: Any, job: Any) -> Any:
    """What a trial gives, without any training: scores that its id says."""
    from ctl_jax import compute, records
    from ctl_jax.experiment import stretches
    from ctl_jax.experiment.kinds import finetune
    from ctl_jax.experiment.steps import Output
    from ctl_jax.experiment.tasks import loaded

    task = workspace.loader.load(workspace.tasks[step.params["task"]["name"]].spec)
    planned = stretches.plan(step, workspace)
    updates, source = stretches.total_updates(planned), random.Random(step.id)
    train = [
        records.TrainRecord(
            trial=step.id,
            step=updates * part // LINES,
            flops_per_step=planned[-1].cost.step,
            flops=stretches.spent_by(planned, updates * part // LINES),
            loss=source.random(),
            learning_rate=step.params["learning_rate"],
            wall_s=0.0,
        )
        for part in range(1, LINES + 1)
    ]
    spent = stretches.spent_by(planned, updates)
    scores = {name: source.random() for name in ("dev", "dev_test")}
    trial = records.TrialRecord(
        **finetune.describe(step, workspace),
        **scores,
        dev_top5=None,
        dev_test_top5=None,
        steps=updates,
        reported_step=updates,
        spent_flops=spent,
        own_flops=spent,
        diverged=False,
        ledger=compute.Ledger(train=spent),
        wall_s=0.0,
    )
    return Output([records.TaskRecord(**loaded(task)), *train, trial])


class Used(NamedTuple):
    """What a process took.

    Attributes:
      parts: seconds until its first trial, of its trials, and after its last one.
      cpu: seconds of CPU time.
      size: bytes of memory at most.
    """

    parts: list[float]
    cpu: float
    size: int


def measure(config: Any, workdir: pathlib.Path, index: int, count: int) -> Used:
    """Plans, where `index` is -1, or is a worker of a run, in this process."""
    import rich.console

    from ctl_jax import experiment
    from ctl_jax.cluster import Worker
    from ctl_jax.experiment.steps import KINDS

    times = [time.perf_counter()]

    def run(*args: Any) -> Any:
        made = make_up(*args)
        times[1:] = [*times[1:2], time.perf_counter()]
        return made

    KINDS["finetune"] = dataclasses.replace(KINDS["finetune"], run=run)
    console = rich.console.Console(file=io.StringIO(), width=100)
    worker = Worker(max(index, 0), count)
    experiment.run(config, workdir, console, plan_only=index < 0, worker=worker)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    ends = [*times, *times[-1:] * (3 - len(times)), time.perf_counter()]
    parts = [later - earlier for earlier, later in itertools.pairwise(ends)]
    unit = 1 if sys.platform == "darwin" else 1024
    return Used(parts, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit)


def children(config: Any, workdir: pathlib.Path, indices: Sequence[int]) -> list[Used]:
    """Runs `measure` in processes of their own, at the same time."""
    count, context = len(indices), multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(count, context) as pool:
        given = ((config, workdir, index, count) for index in indices)
        return list(pool.map(measure, *zip(*given, strict=True)))


def scale(root: pathlib.Path, workdir: pathlib.Path, tasks: int, workers: int) -> dict[str, float]:
    """Seconds and bytes of each part of a run on some tasks."""
    config = make_config(root, tasks)
    (planned,) = children(config, workdir, [-1])
    began = time.perf_counter()
    found = children(config, workdir, range(workers))
    seconds = time.perf_counter() - began
    trials = tasks * len(METHODS) * BUDGETS * len(RATES) * len(SEEDS)
    done = sum(name.endswith(".jsonl") for name in os.listdir(workdir / "steps"))
    rows = (workdir / "results.csv").read_text().count("\n") - 1
    if done < trials or rows != trials // len(RATES):
        sys.exit(f"{done} steps and {rows} rows of {trials} trials")
    return {
        "trials": trials,
        "plan": sum(planned.parts),
        "plan, CPU": planned.cpu,
        "run": seconds,
        "until the first trial": max(each.parts[0] for each in found),
        "trials by all workers": max(each.parts[1] for each in found),
        "report": max(each.parts[2] for each in found),
        "run, CPU of all": sum(each.cpu for each in found),
        "GB of the largest": max(each.size for each in (planned, *found)) / 1e9,
    }


def main() -> None:
    """Measures each size, and prints seconds, memory and slopes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", default="13,53,106")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--workdir", default="", help="where to run; else a temporary folder")
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.tasks.split(",")]
    with tempfile.TemporaryDirectory(dir=arguments.workdir or None) as name:
        root = pathlib.Path(name)
        os.environ["XDG_CACHE_HOME"] = str(root / "cache")
        make_weights(root)
        make_data(root)
        # Fills the caches, as a run before it would have.
        children(make_config(root, sizes[0]), root / "none", [-1])
        found = []
        for size in sizes:
            found.append(scale(root, root / f"run{size}", size, arguments.workers))
            print(f"{size} tasks: {json.dumps(found[-1])}", flush=True)
    show(sizes, found)


def show(sizes: list[int], found: list[dict[str, float]]) -> None:
    """A line a part: its numbers, and its slope from each size to the next."""
    slopes = [f"{one} to {two}" for one, two in itertools.pairwise(sizes)]
    print(f"\n{'tasks':24}" + "".join(f"{size:>11}" for size in sizes), end="")
    print("   slope " + ", ".join(slopes))
    for part in found[0]:
        values = [each[part] for each in found]
        by = [
            math.log(two / one) / math.log(more / less)
            for (one, two), (less, more) in zip(
                itertools.pairwise(values), itertools.pairwise(sizes), strict=True
            )
        ]
        print(f"{part:24}" + "".join(f"{value:11,.2f}" for value in values), end="   ")
        print(", ".join(f"{slope:.2f}" for slope in by))


if __name__ == "__main__":
    main()
