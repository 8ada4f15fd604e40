"""Programs compiled quickly, where a test does not ask how fast they run or for their last bits.

Compiling is what tests of networks spend their time on: without optimisation, and without the code
generator of fused loops, it takes an eighth of it (networks of test_exactness.py with their
gradients: 0.35 s instead of 2.3 s without optimisation alone, 4.2 s as users have it).
"""

import functools

import jax

OPTIONS: dict[str, int | bool] = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_parallel_codegen_split_count": 1,
}
if jax.__version_info__ < (0, 11):
    # Later versions have no other.
    OPTIONS["xla_cpu_use_fusion_emitters"] = False

# The same for the environment variable XLA_FLAGS of a process.
FLAGS = " ".join(f"--{name}={value}" for name, value in OPTIONS.items())

# As `jax.jit`, of a function that no other jitted function calls.
quick_jit = functools.partial(jax.jit, compiler_options=OPTIONS)
