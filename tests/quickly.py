"""How XLA compiles programs whose numbers are only compared with others, within a tolerance.

Compiling is what tests of networks spend their time on: without optimisation, and without the code
generator of fused loops, it takes an eighth of it (networks of test_exactness.py with their
gradients: 0.35 s instead of 2.3 s without optimisation alone, 4.2 s as users have it).
"""

import jax

QUICKLY: dict[str, int | bool] = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_parallel_codegen_split_count": 1,
}
if jax.__version_info__ < (0, 11):
    # Later versions have no other.
    QUICKLY["xla_cpu_use_fusion_emitters"] = False
