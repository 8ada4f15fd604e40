"""A large set is decoded, cached and streamed in little memory."""

import pathlib
import subprocess
import sys

import pytest

PROGRAM = """
import io, pathlib, resource, sys
import jax
import numpy as np
from PIL import Image
from ctl_jax.data import cache, streaming
from ctl_jax.data.dataset import Example

files = []
for value in range(256):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (value, 0, 0)).save(file, "PNG")
    files.append(file.getvalue())

class Records:
    def __len__(self):
        return 200_000
    def read(self, start, stop):
        return [Example(files[i % 256], i % 256 % 10, "") for i in range(start, stop)]
    def fingerprint(self):
        return "generated"

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

def batches(images, labels, stop):
    order = streaming.Order(len(images), 256, seed=0)
    read = streaming.read_ahead(images, labels, order.__getitem__, stop)
    found = map(jax.device_put, read)
    for batch_images, batch_labels in found:
        assert (np.asarray(batch_images)[:, 0, 0, 0] % 10 == np.asarray(batch_labels)).all()

# Libraries first: grain and a device.
batches(np.zeros((9, 32, 32, 3), np.uint8), np.zeros(9, np.int32), 2)
before = peak()
directory = pathlib.Path(sys.argv[1])
split = cache.load_split(Records(), 32, num_classes=10, directory=directory).split
assert isinstance(split.images, np.memmap) and len(split) == 200_000
decoded = peak()
batches(split.images, split.labels, 800)
print(split.images.nbytes, decoded - before, peak() - before)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_set(tmp_path: pathlib.Path) -> None:
    printed = subprocess.check_output([sys.executable, "-c", PROGRAM, str(tmp_path)], text=True)
    size, decoding, streaming = map(int, printed.split())
    assert size == 200_000 * 32 * 32 * 3
    assert decoding < 0.1 * size
    assert streaming < 0.5 * size
