"""Four workers as processes of their own; run by test_workers.py with a folder to work in.

One is killed (-9) in the middle of a trial, one is stopped so long that another takes its trial
over, and then goes on. Each worker notes what it begins and what it committed.
"""

import json
import os
import pathlib
import signal
import sys
import time

from ctl_jax.cluster import Worker
from ctl_jax.experiment.queue import Queue
from ctl_jax.experiment.steps import KINDS, Kind, Step
from ctl_jax.experiment.store import Store
from ctl_jax.records import DevRecord

KILLED, STOPPED = 2, 12
LEASE_S = 1.5


def _nothing(*args):
    pass


# They are made again from nothing, so no model has to be kept.
KINDS["empty"] = Kind(1, lambda step, place: 1, _nothing, _nothing, restore=_nothing)
SOURCE = Step("empty", {"number": "source"})
STEPS = [Step("empty", {"number": number}, {"weights": SOURCE}) for number in range(40)]


def name(step: Step) -> str:
    return str(step.params["number"])


def record(index: int) -> DevRecord:
    """One that says which worker it is of."""
    return DevRecord(trial="", step=index, flops=0, dev=None, dev_top5=None)


def work(folder: pathlib.Path, index: int) -> None:
    store = Store(folder / "run", {})
    store.create()
    with open(folder / f"worker{index}.txt", "w", buffering=1) as notes:
        queue = Queue(store, lambda finished: STEPS, lambda step: 1, Worker(index, 4), LEASE_S)
        for claim in queue.take():
            with claim:
                print("began", name(claim.step), file=notes)
                number = claim.step.params["number"]
                # Only the first to try them; those who take over must get on.
                once = {KILLED: 0, STOPPED: 1}.get(number) == index
                time.sleep(60 if once and number == KILLED else 0.01)
                if once and number == STOPPED:
                    os.kill(os.getpid(), signal.SIGSTOP)
                saved = claim.commit([record(index)])
                print("committed" if saved else "lost", name(claim.step), file=notes)
        with queue.reporting(complete=True) as mine:
            if mine:
                print("reported", file=notes)


def main(folder: pathlib.Path) -> None:
    ids = {name(step): step.id for step in [SOURCE, *STEPS]}
    (folder / "ids.json").write_text(json.dumps(ids))
    workers = []
    for index in range(4):
        if not (pid := os.fork()):
            work(folder, index)
            os._exit(0)
        workers.append(pid)
    until(lambda: f"began {KILLED}\n" in (folder / "worker0.txt").read_text())
    os.kill(workers[0], signal.SIGKILL)
    # Not waited for: nobody need bury a process for its lease to be taken over.
    until(lambda: Store(folder / "run", {}).is_done(STEPS[STOPPED].id))
    os.kill(workers[1], signal.SIGCONT)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in workers]
    print(codes)


def until(condition) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            if condition():
                return
        except FileNotFoundError:
            pass
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.005)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
