"""What it costs to share a run's steps out: 10,000 empty ones, by 1 and by 4 workers.

  python benchmarks/workers.py [--workdir=FOLDER]   # where to measure, e.g. on NFS or /dev/shm

An empty step is claimed, saved (3 kB of records) and given up, as a real trial is. Beside it stands
the bare cost of the same files, written under a temporary name, flushed to the disk and renamed, by
as many processes, with nothing to agree on. Both take turns; what is printed is the median. Most of
either is waiting for the disk, whose speed depends on who else uses it; CPU time hardly does. The
last table shows that a trial costs the same whether there are 1,250 of them or 20,000.
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from ctl_jax import records

TRIALS, ROUNDS = 10_000, 3
SIZES = (1_250, 5_000, 20_000)
# What a trial of configs/quickstart.py takes on two CPU cores.
REAL_TRIAL_S = 0.35
# Records of a step: 3 kB.
LINES = 24


def lines() -> list[records.TrainRecord]:
    """Records of one step."""
    return [
        records.TrainRecord(
            trial="",
            step=step,
            flops_per_step=10**8,
            flops=10**9,
            loss=1.234567,
            learning_rate=0.1,
            wall_s=1.5,
        )
        for step in range(LINES)
    ]


def write_bare(folder: str, count: int, index: int, workers: int) -> None:
    """Every `workers`-th of the files, as plainly as can be."""
    from ctl_jax import files

    remote, found = files.is_remote(folder), lines()
    for number in range(index, count, workers):
        content = "".join(json.dumps(records.to_json(line)) + "\n" for line in found).encode()
        if remote:
            files.write_bytes(f"{folder}/{number:016x}.jsonl", content)
            continue
        temporary = f"{folder}/.{number:016x}.tmp"
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, f"{folder}/{number:016x}.jsonl")


def take_all(folder: str, count: int, index: int, workers: int) -> None:
    """What a worker does with steps that take no time."""
    from ctl_jax.cluster import Worker
    from ctl_jax.experiment.queue import Queue
    from ctl_jax.experiment.steps import KINDS, Kind, Step
    from ctl_jax.experiment.store import Store

    def nothing(*args: Any) -> Any:
        pass

    KINDS["empty"] = Kind(1, lambda step, workspace: 1, nothing, nothing)
    store = Store(folder, {})
    store.create()
    steps = [Step("empty", {"number": number}) for number in range(count)]
    found = lines()
    queue = Queue(store, lambda finished: steps, lambda step: 1.0, Worker(index, workers))
    for claim in queue.take():
        with claim:
            claim.commit(found)


def measure(
    work: Callable[[str, int, int, int], None], workdir: str, count: int, workers: int
) -> tuple[float, float]:
    """Seconds and CPU seconds, until the last of the processes is done."""
    from ctl_jax import files

    with tempfile.TemporaryDirectory(prefix="workers-") as local:
        folder = f"{workdir}/{pathlib.Path(local).name}" if workdir else local
        files.make_folder(folder)
        context = multiprocessing.get_context("fork")
        processes = [
            context.Process(target=work, args=(folder, count, index, workers))
            for index in range(workers)
        ]
        start, cpu = time.perf_counter(), _cpu()
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        seconds, cpu = time.perf_counter() - start, _cpu() - cpu
        if any(process.exitcode for process in processes):
            sys.exit("a worker failed")
        results = [name for name in files.tree(folder) if name.endswith(".jsonl")]
        if len(results) != count:
            sys.exit(f"{len(results)} results of {count} trials")
        files.remove_tree(folder)
        return seconds, cpu


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def compare(workdir: str, count: int, rounds: int) -> None:
    """The table by number of workers."""
    print(
        f"{count} empty trials, medians of {rounds} rounds; a trial's share of one worker's time\n"
    )
    print("          s in all              us a trial                CPU us a trial")
    print(f"workers   bare  queue  ratio    coordination  of {REAL_TRIAL_S:g} s   bare  queue")
    for workers in (1, 4):
        found = [
            measure(work, workdir, count, workers)
            for _ in range(rounds)
            for work in (write_bare, take_all)
        ]
        bare, queue = found[::2], found[1::2]
        ratio = statistics.median(q / b for (q, _), (b, _) in zip(queue, bare, strict=True))
        (bare_s, bare_cpu), (queue_s, queue_cpu) = (
            [statistics.median(column) for column in zip(*part, strict=True)]
            for part in (bare, queue)
        )
        more = (queue_s - bare_s) * workers / count
        print(
            f"{workers:7} {bare_s:6.2f} {queue_s:6.2f} {ratio:6.2f} {1e6 * more:15.0f} "
            f"{more / REAL_TRIAL_S:7.2%} {1e6 * bare_cpu / count:9.0f} "
            f"{1e6 * queue_cpu / count:6.0f}",
            flush=True,
        )


def scale(workdir: str) -> None:
    """The table by number of trials."""
    print("\n trials   us a trial   CPU us a trial   (one worker)")
    for count in SIZES:
        seconds, cpu = measure(take_all, workdir, count, 1)
        print(f"{count:7} {1e6 * seconds / count:12.0f} {1e6 * cpu / count:16.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", default="", help="where to measure; else a temporary folder")
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    # Imported once, before the processes are forked: the time that takes is not measured.
    import ctl_jax.experiment.queue  # noqa: F401

    compare(arguments.workdir, arguments.trials, arguments.rounds)
    if arguments.trials == TRIALS:
        scale(arguments.workdir)


if __name__ == "__main__":
    main()
