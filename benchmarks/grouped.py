"""How fast convolutions of groups are on CPU, and their gradients: ours, XLA's own, PyTorch's.

  python benchmarks/grouped.py

The layers are of EfficientNet-Lite0, ConvNeXt-T and ResNeXt-50 on 32 images of 64 pixels. All start
from the same images and kernels, and their results have to agree; then the whole of NETWORK, its
forward pass and that with gradients, by ours and by XLA's own. They take turns; ratios are of
medians over the rounds. PyTorch runs `channels_last`, with as many threads as this process may use.
"""

import argparse
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
import turns
from jax import lax

from ctl_jax import models
from ctl_jax.models import cpu


class Layer(NamedTuple):
    """A convolution whose window is padded to one result a stride.

    Attributes:
      of: the network it is of.
      side: of the images, in pixels.
      channels: of images and results.
      window: the side of the kernel.
      stride: of rows and columns.
      groups: of channels.
    """

    of: str
    side: int
    channels: int
    window: int
    stride: int
    groups: int


LAYERS = (
    Layer("efficientnet_lite0", 32, 32, 3, 1, 32),
    Layer("efficientnet_lite0", 32, 96, 3, 2, 96),
    Layer("efficientnet_lite0", 8, 240, 5, 1, 240),
    Layer("efficientnet_lite0", 2, 1152, 5, 1, 1152),
    Layer("convnext_tiny", 16, 96, 7, 1, 96),
    Layer("resnext50_32x4d", 16, 128, 3, 1, 32),
    Layer("resnext50_32x4d", 4, 512, 3, 1, 32),
)
BATCH, SIDE = 32, 64
# Of results of several thousand products each, in float32.
TOLERANCE = 1e-3
OURS, OTHERS = "ours", ("XLA", "PyTorch")
Call = Callable[[], Any]


def main() -> None:
    """Parses the flags and measures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2, help="calls of each in a round")
    parser.add_argument("--network", default="efficientnet_lite0")
    given = parser.parse_args()
    torch.set_num_threads(turns.threads())
    print(f"{jax.devices()[0].device_kind}, {turns.threads()} threads, ratios to ours\n")
    print("| layer | | ours, ms | XLA | PyTorch |\n|---|---|---|---|---|")
    for layer in LAYERS:
        for what, backward in (("forward", False), ("and gradients", True)):
            calls = contenders(layer, backward)
            _agree(calls, layer)
            found = _turns(calls, given)
            ratios = [f"{turns.ratio(found[each], found[OURS]).median:.1f}" for each in OTHERS]
            took = f"{1e3 * turns.seconds(found[OURS]).median:.2f}"
            print(f"| {' | '.join([_named(layer), what, took, *ratios])} |", flush=True)

    print(f"\n| {given.network}, {SIDE} px | ours, ms | XLA | to compile, s of CPU, ours, XLA |")
    print("|---|---|---|---|")
    for what, backward in (("forward", False), ("and gradients", True)):
        calls, seconds = whole(given.network, backward)
        found = _turns(calls, given)
        ratio = f"{turns.ratio(found[OTHERS[0]], found[OURS]).median:.1f}"
        took = f"{1e3 * turns.seconds(found[OURS]).median:.1f}"
        compiled = ", ".join(f"{seconds[name]:.1f}" for name in calls)
        print(f"| {' | '.join([what, took, ratio, compiled])} |", flush=True)


def whole(name: str, backward: bool) -> tuple[dict[str, Call], dict[str, float]]:
    """Calls of a network, by ours and XLA's convolutions, and what it took to compile them."""
    module = models.create(name, num_outputs=10)
    variables = models.init(module, jax.random.key(0), SIDE)
    images = jax.random.normal(jax.random.key(1), (BATCH, SIDE, SIDE, 3))

    def forward(params: Any) -> jax.Array:
        return models.apply(module, {**variables, "params": params}, images)

    def loss(params: Any) -> jax.Array:
        found, _ = models.apply(module, {**variables, "params": params}, images, train=True)
        return jnp.mean(jnp.sin(found))

    def make(backend: str) -> tuple[Call, float]:
        def run(params: Any) -> Any:
            with cpu.tuned(backend):
                return jax.value_and_grad(loss)(params) if backward else forward(params)

        began, options = time.process_time(), cpu.compiler_options("cpu")
        compiled = jax.jit(run, compiler_options=options).lower(variables["params"]).compile()
        taken = time.process_time() - began
        return lambda: jax.block_until_ready(compiled(variables["params"])), taken

    # On a GPU every convolution is XLA's.
    made = {OURS: make("cpu"), OTHERS[0]: make("gpu")}
    return {key: call for key, (call, _) in made.items()}, {key: s for key, (_, s) in made.items()}


def _turns(calls: dict[str, Call], given: argparse.Namespace) -> dict[str, list[turns.Turn]]:
    repeated = {name: functools.partial(_repeat, call) for name, call in calls.items()}
    return turns.take_turns(repeated, rounds=given.rounds, steps=given.steps)


def _repeat(call: Call, steps: int) -> None:
    for _ in range(steps):
        call()


def _named(layer: Layer) -> str:
    return (
        f"{layer.of}: {layer.window}x{layer.window}, stride {layer.stride}, {layer.side} px, "
        f"{layer.channels} channels, {layer.groups} groups"
    )


def contenders(layer: Layer, backward: bool) -> dict[str, Call]:
    """Calls that give a layer's result; or that and the gradients of images and kernel."""
    random = np.random.default_rng(0)
    kernel_shape = (layer.window, layer.window, layer.channels // layer.groups, layer.channels)
    images = random.normal(size=(BATCH, layer.side, layer.side, layer.channels))
    kernel = random.normal(size=kernel_shape)
    arrays = images.astype(np.float32), kernel.astype(np.float32)
    pads = (layer.window // 2, layer.window // 2)

    def make(conv: Any) -> Call:
        def result(images: jax.Array, kernel: jax.Array) -> jax.Array:
            return conv(
                images,
                kernel,
                (layer.stride, layer.stride),
                (pads, pads),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=layer.groups,
            )

        def run(images: jax.Array, kernel: jax.Array) -> Any:
            if not backward:
                return result(images, kernel)
            found, gradient = jax.vjp(result, images, kernel)
            return found, *gradient(found)

        with cpu.tuned("cpu"):
            options = cpu.compiler_options("cpu")
            compiled = jax.jit(run, compiler_options=options).lower(*arrays).compile()
        there = tuple(map(jax.device_put, arrays))
        return lambda: jax.block_until_ready(compiled(*there))

    return {
        OURS: make(cpu.conv_general_dilated),
        OTHERS[0]: make(lax.conv_general_dilated),
        OTHERS[1]: _torch(layer, arrays, backward),
    }


def _torch(layer: Layer, arrays: tuple[np.ndarray, np.ndarray], backward: bool) -> Call:
    images = torch.from_numpy(arrays[0]).permute(0, 3, 1, 2)
    kernel = torch.from_numpy(arrays[1].transpose(3, 2, 0, 1).copy())
    images, kernel = (each.requires_grad_(backward) for each in (images, kernel))

    def call() -> Any:
        result = torch.nn.functional.conv2d(
            images, kernel, stride=layer.stride, padding=layer.window // 2, groups=layer.groups
        )
        if not backward:
            return result.permute(0, 2, 3, 1)
        of_images, of_kernel = torch.autograd.grad(result, (images, kernel), result.detach())
        shown = result.detach().permute(0, 2, 3, 1), of_images.permute(0, 2, 3, 1)
        return *shown, of_kernel.permute(2, 3, 1, 0)

    return call


def _agree(calls: dict[str, Call], layer: Layer) -> None:
    """Raises a SystemExit where results differ."""
    wanted, *others = (jax.tree.map(np.asarray, call()) for call in calls.values())
    for other in others:
        for found, want in zip(jax.tree.leaves(other), jax.tree.leaves(wanted), strict=True):
            apart = np.abs(found - want).max() / np.abs(want).max()
            if apart > TOLERANCE:
                raise SystemExit(f"{_named(layer)}: results differ by {apart:.2g} of the largest")


if __name__ == "__main__":
    main()
