"""Four workers as processes of their own; run by test_workers.py with a folder to work in.

One is killed (-9) in the middle of a trial, one is stopped so long that another takes its trial
over, and then goes on. Each worker notes what it begins and what it committed.
"""

import os
import pathlib
import signal
import sys
import time

from ctl_jax.cluster import Worker
from ctl_jax.experiment.queue import Queue
from ctl_jax.experiment.store import Store

IDS = [f"trial{number:02d}" for number in range(40)]
KILLED, STOPPED = "trial02", "trial12"
LEASE_S = 1.5


def work(folder: pathlib.Path, index: int) -> None:
    store = Store(folder / "run", {})
    store.create()
    with open(folder / f"worker{index}.txt", "w", buffering=1) as notes:
        queue = Queue(store, IDS, [1.0] * len(IDS), Worker(index, 4), LEASE_S)
        claim = queue.exclusively("pretrain")
        if claim is not None:
            with claim:
                time.sleep(0.05)
                print("committed pretrain", file=notes)
                assert claim.commit([{"worker": index}])
        for claim in queue.take():
            with claim:
                print("began", claim.id, file=notes)
                # Only the first to try them; those who take over must get on.
                once = {KILLED: 0, STOPPED: 1}.get(claim.id) == index
                time.sleep(60 if once and claim.id == KILLED else 0.01)
                if once and claim.id == STOPPED:
                    os.kill(os.getpid(), signal.SIGSTOP)
                saved = claim.commit([{"worker": index}])
                print("committed" if saved else "lost", claim.id, file=notes)
        with queue.reporting(complete=True) as mine:
            if mine:
                print("reported", file=notes)


def main(folder: pathlib.Path) -> None:
    workers = []
    for index in range(4):
        if not (pid := os.fork()):
            work(folder, index)
            os._exit(0)
        workers.append(pid)
    until(lambda: f"began {KILLED}" in (folder / "worker0.txt").read_text())
    os.kill(workers[0], signal.SIGKILL)
    # Not waited for: nobody need bury a process for its lease to be taken over.
    until(lambda: Store(folder / "run", {}).is_done(STOPPED))
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
