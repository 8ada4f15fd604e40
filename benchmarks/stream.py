"""How much of a run's wall time goes into training steps, and where the rest goes.

  python benchmarks/stream.py                                  # configs/quickstart.py, twice
  python benchmarks/stream.py --config.methods=dense,filters@0.5 --second_only    # a part of it

The same command as a user's runs twice in processes of its own, each with a fresh folder; the
second finds data made and programs compiled. A thread looks every few milliseconds at what the main
thread does (`sampling.py`). Training steps are what the loop of `finetune.fit` waits for, those of
pretraining too, without compiling. Arguments that are not its own go to the command.
"""

import argparse
import json
import pathlib
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import sampling

ROOT = pathlib.Path(__file__).parent.parent
# Of a kind that took less than this share, the places are not shown.
SHOWN = 0.01
BAR = 0.8


def main() -> None:
    """Runs and prints, or is one of the runs."""
    if sys.argv[1:2] == ["--child"]:
        child(pathlib.Path(sys.argv[2]), sys.argv[3:])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default=str(ROOT / "configs" / "quickstart.py"))
    parser.add_argument("--second_only", action="store_true", help="leave the first run out")
    parser.add_argument("--places", type=int, default=4, help="functions shown of each kind")
    arguments, others = parser.parse_known_args()
    for name in ["first", "second"][arguments.second_only :]:
        found, wall = measure([f"--config={arguments.config}", *others])
        show(name, found, wall, arguments.places)


def child(out: pathlib.Path, arguments: Sequence[str]) -> None:
    """The command itself, watched."""
    sys.argv = ["ctl_jax.main", *arguments]
    with sampling.Sampler() as sampler:
        try:
            runpy.run_module("ctl_jax.main", run_name="__main__", alter_sys=True)
        finally:
            out.write_text(json.dumps({"seconds": sampler.seconds, "places": sampler.places}))


def measure(arguments: Sequence[str]) -> tuple[dict[str, Any], float]:
    """What a run's sampler saw, and the seconds that the process took from start to end."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "samples.json"
        command = [sys.executable, __file__, "--child", str(out), *arguments]
        command += [f"--workdir={folder}/run"]
        start = time.perf_counter()
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
        wall = time.perf_counter() - start
        if done.returncode:
            print(done.stdout)
            sys.exit(f"{' '.join(command)} ended with status {done.returncode}")
        return json.loads(out.read_text()), wall


def show(name: str, found: dict[str, Any], wall: float, places: int) -> None:
    """Prints shares of the wall time, and the places where most of it was spent."""
    seconds = dict(found["seconds"])
    seconds["Python's own start and end"] = wall - sum(seconds.values())
    share = seconds.get(sampling.TRAINING, 0.0) / wall
    print(f"\n{name} run: {wall:.1f} s, {share:.1%} in training steps (bar {BAR:.0%})")
    for kind, time_ in sorted(seconds.items(), key=lambda item: -item[1]):
        print(f"  {time_ / wall:6.1%} {time_:8.1f} s  {kind}")
        where = sorted(found["places"].get(kind, {}).items(), key=lambda item: -item[1])
        for place, part in where[:places]:
            if part > SHOWN * wall and place and kind != sampling.TRAINING:
                print(f"         {part:8.1f} s      {place}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
