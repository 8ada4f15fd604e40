"""The process's memory: what is freed is kept, and what is garbage is looked for rarely.

Both are settings of glibc and Python that no library makes; each function says what it saves.
"""

import ctypes
import gc
import platform

# glibc's mallopt, malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed() -> bool:
    """Makes malloc keep what is freed, for as long as the process lives.

    On CPU, XLA takes its temporary arrays again for each call of a program, hundreds of megabytes
    for a training step. glibc maps such blocks afresh, and the system clears every page again: a
    sixth of the CPU time of a ResNet-50 step at 64 px.

    To be called once, early: threads that exist by then keep arenas of their own. The process's
    memory stays at its peak.

    Returns:
      Whether the allocator was told; False where it is not glibc's.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # Main heap alone, which can grow to any size; nothing mapped apart; its end never cut off.
    settings = {_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: -1}
    told = [mallopt(name, value) == 1 for name, value in settings.items()]
    return all(told)


def collect_rarely() -> None:
    """Makes Python look for cyclic garbage after more new objects than usual.

    Tracing a network makes hundreds of thousands of objects that all stay for a while, and at
    Python's own thresholds (700 objects) the collector looks at them, and at all modules, again and
    again: a fourth of the time of planning a stream for a ResNet-50. What is there when this is
    called, the modules, is not looked at any more. Other objects are freed at once as always.
    """
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
