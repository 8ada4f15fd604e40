"""How fast a data set is decoded and cached, against torch's DataLoader and tf.data.

  python benchmarks/data.py [--tf_python=VENV/bin/python]   # a Python that has TensorFlow
  python benchmarks/data.py --memory                        # peak memory of a large set

Each contender turns the same encoded images, in memory, into a .npy file of uint8 images:
224-px JPEGs to 64 px, as a Nevis'22 task has them, and 32-px PNGs as they are. The peers have two
workers, and all take turns in processes of their own. On a shared machine the ratios of images a
second vary with what else runs, those of CPU time an image hardly.
tf.data comes in three forms: with the resizing that the others do; the same after decoding at half
the size, as ctl_jax does; and with TensorFlow's default, which skips pixels instead of averaging.
"""

import argparse
import io
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

WORKERS, BATCH, ROUNDS = 2, 256, 5
# Name: side, side after resizing, how many.
SETS = {"224-px JPEG": (224, 64, 4096), "32-px PNG": (32, 32, 40960)}
# How many different images there are; the others are copies.
DIFFERENT = 512
PEERS = {
    "torch": ["torch DataLoader"],
    "tensorflow": ["tf.data", "tf.data, reduced JPEG", "tf.data, no antialiasing"],
}


def generate(kind: str) -> list[bytes]:
    """Photo-like pictures: large shapes, a little noise."""
    from PIL import Image

    side, _, count = SETS[kind]
    rng = np.random.default_rng(0)
    contents = []
    for _ in range(DIFFERENT):
        coarse = rng.integers(0, 256, (side // 16 + 2,) * 2 + (3,)).astype(np.uint8)
        smooth = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        noisy = np.asarray(smooth) + rng.normal(0, 4, (side, side, 3))
        file = io.BytesIO()
        format_ = kind.split()[1]
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, format_, quality=90)
        contents.append(file.getvalue())
    return [contents[i % DIFFERENT] for i in range(count)]


class InMemory:
    """Records of `ctl_jax.data` that are repeated up to a number of examples."""

    def __init__(self, contents: Sequence[bytes], examples: int | None = None) -> None:
        self._contents = contents
        self._examples = len(contents) if examples is None else examples

    def __len__(self) -> int:
        return self._examples

    def read(self, start: int, stop: int) -> list[Any]:
        from ctl_jax.data.dataset import Example

        many = len(self._contents)
        return [Example(self._contents[i % many], 0, "") for i in range(start, stop)]

    def fingerprint(self) -> str:
        return f"{self._examples} in memory"


def measure_ctl_jax(contents: Sequence[bytes], size: int) -> tuple[float, float]:
    """Seconds and CPU seconds that `cache.load_split` takes, hashing and renaming included."""
    from ctl_jax.data import cache

    with tempfile.TemporaryDirectory() as folder:
        directory = pathlib.Path(folder)
        for part in (contents[:DIFFERENT], contents):
            start, cpu = time.perf_counter(), time.process_time()
            cache.load_split(InMemory(part), size, num_classes=1, directory=directory)
            seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return seconds, cpu


def measure_torch(contents: Sequence[bytes], size: int) -> tuple[float, float]:
    """Seconds and CPU seconds of an epoch of a DataLoader whose workers have started."""
    import torch.utils.data
    from PIL import Image

    class Decoded(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(contents)

        def __getitem__(self, index: int) -> torch.Tensor:
            with Image.open(io.BytesIO(contents[index])) as image:
                rgb = image.convert("RGB")
            if rgb.size != (size, size):
                rgb = rgb.resize((size, size), Image.Resampling.BILINEAR)
            return torch.from_numpy(np.array(rgb))

    def passes() -> tuple[float, float]:
        loader = torch.utils.data.DataLoader(
            Decoded(), BATCH, num_workers=WORKERS, persistent_workers=True
        )
        return _second_pass(lambda: map(torch.Tensor.numpy, loader), len(contents), size)

    seconds, cpu = passes()
    # The workers have ended with their loader, and only now is their time known: of two passes.
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, cpu + (used.ru_utime + used.ru_stime) / 2


def measure_tensorflow(contents: Sequence[bytes], size: int, name: str) -> tuple[float, float]:
    """Seconds and CPU seconds of a second pass over a tf.data pipeline."""
    import tensorflow as tf

    antialias = "no antialiasing" not in name
    ratio = 2 if "reduced" in name else 1

    def decode(content: "tf.Tensor") -> "tf.Tensor":
        if contents[0].startswith(b"\x89PNG"):
            image = tf.io.decode_png(content, channels=3)
        else:
            image = tf.io.decode_jpeg(content, channels=3, ratio=ratio)
            image = tf.image.resize(image, (size, size), antialias=antialias)
            image = tf.cast(tf.round(image), tf.uint8)
        return image

    options = tf.data.Options()
    options.threading.private_threadpool_size = WORKERS
    data = tf.data.Dataset.from_tensor_slices(tf.constant(list(contents)))
    data = data.map(decode, num_parallel_calls=WORKERS).batch(BATCH).prefetch(2)
    data = data.with_options(options)
    return _second_pass(data.as_numpy_iterator, len(contents), size)


def _second_pass(
    make: Callable[[], Iterator[np.ndarray]], count: int, size: int
) -> tuple[float, float]:
    """Seconds and CPU seconds to write all batches to a file, once all is warm."""
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            shape = (count, size, size, 3)
            out = np.lib.format.open_memmap(f"{folder}/images.npy", "w+", np.uint8, shape)
            start, cpu, place = time.perf_counter(), time.process_time(), 0
            for batch in make():
                out[place : place + len(batch)] = batch
                place += len(batch)
            seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
            assert place == count
        return seconds, cpu


def compare(tf_python: str | None) -> None:
    """Prints images a second and the ratios."""
    pythons = {"ctl_jax": sys.executable, "torch DataLoader": sys.executable}
    if tf_python is not None:
        pythons |= dict.fromkeys(PEERS["tensorflow"], tf_python)
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}
    environment["CUDA_VISIBLE_DEVICES"] = ""
    for kind, (_, _, count) in SETS.items():
        found: dict[str, list[tuple[float, float]]] = {}
        for _ in range(ROUNDS):
            for name, python in pythons.items():
                if kind != "224-px JPEG" and name in PEERS["tensorflow"][1:]:
                    continue
                command = [python, __file__, "--contender", name, "--kind", kind]
                printed = subprocess.check_output(
                    command, env=environment, text=True, stderr=subprocess.DEVNULL
                )
                seconds, cpu = map(float, printed.split()[-2:])
                found.setdefault(name, []).append((seconds, cpu))
        for name, times in found.items():
            wall, cpu = (_ratio(found["ctl_jax"], times, column) for column in (0, 1))
            middle = [statistics.median(time[column] for time in times) for column in (0, 1)]
            print(
                f"{kind:<12} {name:<25} {count / middle[0]:7,.0f} images/s, ratio {wall}; "
                f"{1e6 * middle[1] / count:4.0f} us of CPU an image, ratio {cpu}"
            )


def _ratio(ours: list[tuple[float, float]], peer: list[tuple[float, float]], column: int) -> str:
    """How many times as long the peer took: the median, the least and the most of all rounds."""
    ratios = [b[column] / a[column] for a, b in zip(ours, peer, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def measure_memory(examples: int = 200_000, size: int = 64) -> None:
    """Prints the peak of the process's memory, mapped files included, after each step."""
    import jax

    from ctl_jax import finetune, models
    from ctl_jax.data import cache

    def report(step: str) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{step:<20} peak {peak:5.2f} GiB after {time.perf_counter() - start:4.0f} s")

    contents = generate("32-px PNG")[:DIFFERENT]
    recipe = finetune.Recipe("nevis", finetune.Augmentation())
    module = models.create("resnet18", num_outputs=1, stages=(1, 1), width=8)
    variables = models.with_head(models.init(module, jax.random.key(0), size), 16)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        report("start")
        records = InMemory(contents, examples)
        loaded = cache.load_split(records, size, num_classes=1, directory=pathlib.Path(folder))
        split = loaded.split
        print(f"{examples:,} images of {size} px: {split.images.nbytes / 2**30:.2f} GiB")
        report("decoded and cached")
        step = finetune.make_step(module, recipe)
        hyper = finetune.Hyper(0.01, 300, 0, 1)
        finetune.fit(
            [finetune.Leg(step, recipe, hyper)],
            variables,
            split.images,
            split.labels,
            batch_size=256,
            seed=0,
        )
        report("300 steps of 256")
        finetune.evaluate(
            module, "nevis", variables, split.images, split.labels, num_classes=1, batch_size=512
        )
        report("evaluated")


def main() -> None:
    """Compares, or measures memory, or does one contender's part of a comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tf_python")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--contender")
    parser.add_argument("--kind")
    arguments = parser.parse_args()
    if arguments.memory:
        measure_memory()
        return
    if arguments.contender is None:
        compare(arguments.tf_python)
        return
    contents, size = generate(arguments.kind), SETS[arguments.kind][1]
    if arguments.contender == "ctl_jax":
        print(*measure_ctl_jax(contents, size))
    elif arguments.contender in PEERS["torch"]:
        print(*measure_torch(contents, size))
    else:
        print(*measure_tensorflow(contents, size, arguments.contender))


if __name__ == "__main__":
    main()
