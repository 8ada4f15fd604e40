"""What 1x1 convolutions as matrix products gain: a ResNet-50 training step against XLA's own way.

  python benchmarks/pointwise.py

Both formulations train alternately in one process, so that the ratio holds on a shared machine.
"""

import statistics
import time
from unittest import mock

import jax
import numpy as np
from jax import lax

from ctl_jax import finetune, models
from ctl_jax.finetune import Augmentation, Hyper, Recipe
from ctl_jax.models import resnet

STEPS, ROUNDS, BATCH, SIZE = 3, 5, 32, 64


def main() -> None:
    """Prints the median step times and their ratio."""
    recipe = Recipe("nevis", Augmentation())
    options = {"stages": (3, 4, 6), "version": "v1", "conv_bias": True}
    module = models.create("resnet50", num_outputs=16, **options)
    variables = models.init(module, jax.random.key(0), SIZE)
    images = np.random.default_rng(0).integers(0, 256, (BATCH, SIZE, SIZE, 3), dtype=np.uint8)
    labels = np.arange(BATCH, dtype=np.int32) % 16
    formulations = {
        "convolution": lax.conv_general_dilated,
        "matrix product": resnet.conv_general_dilated,
    }
    steps = {name: finetune.make_step(module, recipe) for name in formulations}
    times: dict[str, list[float]] = {name: [] for name in formulations}
    for round_ in range(ROUNDS + 1):
        for name, formulation in formulations.items():
            with mock.patch.object(resnet, "conv_general_dilated", formulation):
                start = time.perf_counter()
                finetune.fit(
                    steps[name],
                    recipe,
                    variables,
                    images,
                    labels,
                    hyper=Hyper(0.01, STEPS, 0, 16),
                    batch_size=BATCH,
                    seed=0,
                )
                # The first round compiles.
                if round_:
                    times[name].append((time.perf_counter() - start) / STEPS)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, seconds in medians.items():
        print(f"{name:<15} {1000 * seconds:7.1f} ms a step")
    print(f"ratio {medians['convolution'] / medians['matrix product']:.2f}")


if __name__ == "__main__":
    main()
