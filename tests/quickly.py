"""Programs compiled quickly: no test asks how fast they run.

Compiling is what tests of networks spend their time on: without optimisation, and without the code
generator of fused loops, it takes a twentieth of it (the gradient of a ResNet of two blocks: 0.12 s
instead of 2.5 s), and half of it for operations that are computed one by one.

Where XLA_FLAGS is set these flags are not: `XLA_FLAGS= pytest` compiles as users do, and so CI
compares with torch.
"""

import os

import jax

# For the environment variable XLA_FLAGS of a process.
FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
if jax.__version_info__ < (0, 11):
    # Later versions have no other.
    FLAGS += " --xla_cpu_use_fusion_emitters=false"


def set_flags() -> None:
    """Puts them into the environment, for a process whose XLA has not started yet."""
    os.environ.setdefault("XLA_FLAGS", FLAGS)


def take_flags() -> None:
    """Starts XLA, which reads its flags once; what is tested, and what it starts, has none."""
    if os.environ.get("XLA_FLAGS") == FLAGS:
        jax.devices()
        del os.environ["XLA_FLAGS"]
