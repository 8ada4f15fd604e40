"""What is freed is used again: no page is cleared for the second array of a size; rare garbage."""

import gc
import platform
import subprocess
import sys

import pytest

from ctl_jax import memory

_PROGRAM = """
import resource, sys
import numpy as np
from ctl_jax import memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(10_000_000).sum()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
usual = faults()
assert memory.keep_freed()
faults()
print(usual, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_freed_memory_is_kept():
    result = subprocess.run(
        [sys.executable, "-c", _PROGRAM], check=True, capture_output=True, text=True
    )
    usual, kept = map(int, result.stdout.split())
    assert kept < usual / 10


@pytest.fixture
def collector():
    """Python's own thresholds, before and after."""
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_a_hundred_thousand_new_objects_are_looked_at_rarely(collector):
    def collections():
        before = [each["collections"] for each in gc.get_stats()]
        kept = [[] for _ in range(90_000)]
        del kept
        return sum(each["collections"] for each in gc.get_stats()) - sum(before)

    assert collections() > 50
    memory.collect_rarely()
    assert collections() <= 1
