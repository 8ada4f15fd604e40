"""How long a plan of the whole stream takes, and how much memory.

  python benchmarks/planning.py [--dir=KIND:DIR ...] [--config.KEY=VALUE ...]

Plans configs/nevis.py with the stream FULL over the folders that are given and one of 200,000 image
files that it makes, and prints seconds, the peak of the memory, and what each part took: imports,
each data set, and the rest, which is networks and costs. Caches of this program are empty; those of
the system's files too, where this user may empty them (root, on Linux).
"""

import contextlib
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
NAME, CLASSES, FILES = "aloi", 100, {"train": 1600, "test": 400}
# A picture of one pixel.
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010800000000"
    "3a7e9b550000000a49444154789c6360000000020001e221bc330000000049454e44ae426082"
)


def make_folder(root: pathlib.Path) -> None:
    """Writes NAME/SPLIT/CLASS/file: 200,000 files in 100 classes."""
    for split, count in FILES.items():
        for label in range(CLASSES):
            folder = root / NAME / split / f"class {label:03}"
            folder.mkdir(parents=True)
            for number in range(count):
                # Sizes differ, as those of real pictures do.
                (folder / f"image_{number:05}.png").write_bytes(PNG + bytes(number % 50))


def measure(flags: list[str]) -> dict[str, Any]:
    """Plans in this process; seconds of each part and megabytes."""
    begin = time.perf_counter()
    from ctl_jax import data, main
    from ctl_jax.experiment import tasks

    imported = time.perf_counter()
    sets: dict[str, float] = {}
    whole_info = tasks.TaskLoader.info

    def info(self: Any, spec: data.TaskSpec, **options: Any) -> tasks.TaskInfo:
        start = time.perf_counter()
        try:
            return whole_info(self, spec, **options)
        finally:
            sets[spec.dataset] = sets.get(spec.dataset, 0) + time.perf_counter() - start

    tasks.TaskLoader.info = info  # type: ignore[method-assign]
    config = f"--config={ROOT}/configs/nevis.py:variant=FULL"
    with contextlib.redirect_stdout(sys.stderr):
        status = main.main(["main", config, "--workdir=/nowhere", "--plan", *flags])
    end = time.perf_counter()
    if status:
        raise SystemExit(status)
    scale = 1 if sys.platform == "darwin" else 1024
    return {
        "seconds": end - begin,
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e6,
        "imports": imported - begin,
        "data": sets,
    }


def drop_caches() -> bool:
    """Empties the system's caches of files; whether it could."""
    os.sync()
    try:
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        return False
    return True


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(measure(sys.argv[2:])))
        return
    dirs = [word.removeprefix("--dir=") for word in sys.argv[1:] if word.startswith("--dir=")]
    given = [word for word in sys.argv[1:] if not word.startswith("--dir=")]
    with tempfile.TemporaryDirectory() as temporary:
        root = pathlib.Path(temporary)
        make_folder(root / "images")
        dirs.append(f"folder:{root}/images")
        caches = {"XDG_CACHE_HOME": f"{root}/cache", "CTL_JAX_IMPORTED": f"{root}/imported"}
        flags = [
            "--config.stream.missing=skip",
            "--config.weights=",
            "--config.pretrain.task=synthetic_source",
            *(f"--config.data.dirs='{folder}'" for folder in dirs),
            *given,
        ]
        cold = drop_caches()
        done = subprocess.run(
            [sys.executable, __file__, "--child", *flags],
            env={**os.environ, **caches},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    found = json.loads(done.stdout)
    sets = found["data"]
    print(f"caches of files: {'empty' if cold else 'not emptied'}")
    print(f"in all {found['seconds']:.1f} s, {found['megabytes']:,.0f} MB at most")
    print(f"imports {found['imports']:.1f} s, {len(sets)} data sets {sum(sets.values()):.1f} s, ")
    print(f"the rest {found['seconds'] - found['imports'] - sum(sets.values()):.1f} s")
    for name, seconds in sorted(sets.items(), key=lambda item: -item[1])[:12]:
        print(f"  {name}: {seconds:.2f} s")


if __name__ == "__main__":
    main()
