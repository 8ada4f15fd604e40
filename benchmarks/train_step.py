"""How fast a ResNet-50 is finetuned, against PyTorch and plain Flax, dense and pruned.

  python benchmarks/train_step.py                                 # everything, at 64 px
  python benchmarks/train_step.py --network=conv4 --batch=32 --method dense filters@0.5
  python benchmarks/train_step.py --profile --network=full --batch=32 --method=dense

Networks: conv4 has the stages (3, 4, 6), full (3, 4, 6, 3). All contenders start from the same
weights at the same widths and do the same work: bilinear crops (each image with a box of its own,
which happens to be the whole image), normalising, forward, backward, SGD with Nesterov momentum and
weight decay. Their losses of the first three steps have to agree. PyTorch runs `channels_last`, and
with as many threads as this process may use (start it under `taskset -c 0` for one); on a GPU both
compute in bfloat16 and PyTorch is compiled.

Contenders and methods take turns, and ratios are medians over the rounds. PyTorch's threads wait
for one another many times a step: where other programs run, it suffers most. So rounds in which
they took more than 5% of the cores do not count, more are made instead (up to three times as many),
and ratios are marked as disturbed where that did not help. On a machine that is never quiet,
`--cpu_time` compares CPU time; then PyTorch's threads sleep while they wait instead of spinning.
"""

import argparse
import concurrent.futures
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import turns

from ctl_jax import compilation, compute, finetune, memory, models, pruning
from ctl_jax.finetune import Augmentation, Hyper, Recipe, sharding

NETWORKS = {"conv4": (3, 4, 6), "full": (3, 4, 6, 3)}
TORCH_NAMES = {"conv4": "resnet50_conv4", "full": "resnet50"}
METHODS = ("dense", "filters@0.5", "filters@0.75")
BATCHES = (32, 128)
OUTPUTS = 16
LEARNING_RATE, TOTAL_STEPS = 0.01, 100_000
# Losses of so many first steps are compared, to this relative difference.
CHECKED, TOLERANCE = 3, {"float32": 1e-2, "bfloat16": 3e-2}
# Dense bfloat16 FLOP/s by the manufacturers' data sheets, by a part of the device's name.
PEAKS = {
    **dict.fromkeys(("H100 PCIe",), 756e12),
    **dict.fromkeys(("H100", "H200", "GH200"), 989e12),
    **dict.fromkeys(("A100", "A800"), 312e12),
    "L40S": 362e12,
    "L4": 121e12,
    "B200": 2250e12,
}

Trainer = Callable[[int], list[float]]


class Case(NamedTuple):
    """One network, image and batch size and method: variables to start from, FLOPs of a step."""

    network: str
    size: int
    batch: int
    method: str
    module: Any
    variables: Any
    flops: int


def main() -> None:
    """Parses the flags and measures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--size", nargs="+", type=int, default=[64], help="of images, in px")
    parser.add_argument("--batch", nargs="+", type=int, default=BATCHES)
    parser.add_argument("--method", nargs="+", default=METHODS, help="dense or filters@RATIO")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3, help="steps a contender makes in a round")
    parser.add_argument(
        "--plain", action="store_true", help="measure plain Flax as well, in float32"
    )
    parser.add_argument("--no_torch", action="store_true", help="leave PyTorch out")
    parser.add_argument("--profile", action="store_true", help="only the time by operation")
    parser.add_argument("--cpu_time", action="store_true", help="compare CPU time")
    arguments = parser.parse_args()
    if arguments.cpu_time:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    # As ctl_jax.main does. PyTorch gains from it too, a few percent.
    memory.keep_freed()
    compilation.enable_cache()
    device = jax.devices()[0].device_kind
    print(f"{device}, {turns.threads()} threads, {dtype()}", flush=True)
    shapes = itertools.product(arguments.network, arguments.size, arguments.batch)
    for network, size, batch in shapes:
        cases = [make_case(network, size, batch, method) for method in arguments.method]
        (profile if arguments.profile else compare)(cases, arguments)


def dtype() -> str:
    """What we and PyTorch compute in."""
    return finetune.default_dtype(jax.default_backend())


def make_case(network: str, size: int, batch: int, method: str) -> Case:
    """Random weights, pruned by their norms where the method says so."""
    module = models.create("resnet50", num_outputs=OUTPUTS, stages=NETWORKS[network])
    variables = models.init(module, jax.random.key(0), size)

    def apply(variables: Any, images: jax.Array) -> jax.Array:
        return models.apply(module, variables, images)

    def step(state: finetune.TrainState, images: jax.Array, labels: jax.Array) -> Any:
        return finetune.train_step(module, recipe(), state, images, labels, hyper())

    if method != "dense":
        scope, _, ratio = method.partition("@")
        image = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
        groups = pruning.trace(apply, variables, image)
        scores = pruning.score(groups, variables, criterion="l2")
        keep = pruning.select(groups, scores, ratio=float(ratio), scope=scope)
        variables = pruning.prune(variables, groups, keep)
    state = finetune.init_state(recipe(), variables, seed=0)
    flops = compute.flops(step, state, *batch_of(batch, size))
    return Case(network, size, batch, method, module, variables, flops)


def recipe() -> Recipe:
    """Every box is the whole image, so that losses can be compared; its work is that of any."""
    whole = Augmentation((1.0, 1.0), (1.0, 1.0), flip=False)
    return Recipe("nevis", whole, compute_dtype=dtype())


def hyper() -> Hyper:
    """As arrays: a value of another type would compile the step again."""
    counts = (np.asarray(value, np.int32) for value in (TOTAL_STEPS, 0, OUTPUTS))
    return Hyper(np.asarray(LEARNING_RATE, np.float32), *counts)


def batch_of(batch: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images of `size` px, and labels."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
    return images, np.arange(batch, dtype=np.int32) % OUTPUTS


def our_trainer(case: Case) -> Trainer:
    """The step of `ctl_jax.finetune` on one device. All that calls it is here."""
    mesh = finetune.make_mesh(jax.devices()[:1])
    step = finetune.make_step(case.module, recipe(), mesh)
    state = sharding.replicate(mesh, finetune.init_state(recipe(), case.variables, seed=0))
    batches = [np.stack([part] * step.chunk) for part in batch_of(case.batch, case.size)]
    images, labels = sharding.shard(mesh, batches, axis=1)
    values = sharding.replicate(mesh, hyper())

    def steps(count: int) -> list[float]:
        nonlocal state
        losses = []
        for start in range(0, count, step.chunk):
            now = min(step.chunk, count - start)
            state, metrics = step(
                state, images, labels, values, sharding.replicate(mesh, np.int32(now))
            )
            losses.append(metrics.loss[:now])
        return np.concatenate(losses).tolist()

    return steps


def torch_trainer(case: Case) -> Trainer:
    """PyTorch's, on the same kind of device."""
    import torch
    import torch_step
    import transfer

    torch.set_num_threads(turns.threads())
    on_gpu = jax.default_backend() == "gpu"
    trainer = torch_step.TorchTrainer(
        transfer.to_torch(TORCH_NAMES[case.network], case.variables),
        *batch_of(case.batch, case.size),
        learning_rate=torch_step.cosine(LEARNING_RATE, TOTAL_STEPS),
        preprocess=torch_step.nevis,
        device="cuda" if on_gpu else "cpu",
        bf16=dtype() == "bfloat16",
        compiled=on_gpu,
    )
    return trainer.steps


def plain_trainer(case: Case) -> Trainer:
    """Flax's and optax's own."""
    import plain_flax

    return plain_flax.plain_trainer(case.variables, *batch_of(case.batch, case.size), LEARNING_RATE)


def compare(cases: Sequence[Case], arguments: argparse.Namespace) -> None:
    """Measures all methods of one network and batch size in turns, and prints them."""
    makers = {"ctl_jax": our_trainer}
    if not arguments.no_torch:
        makers["PyTorch"] = torch_trainer
    if arguments.plain:
        makers["plain Flax"] = plain_trainer
    trainers, losses = {}, {}

    def get_ready(name: str) -> None:
        for case in cases:
            trainer = trainers[name, case.method] = makers[name](case)
            losses[name, case.method] = trainer(CHECKED)

    # On a GPU, compiling takes most of the time, ours beside PyTorch's.
    with concurrent.futures.ThreadPoolExecutor() as threads:
        for ready in [threads.submit(get_ready, name) for name in makers]:
            ready.result()
    for case in cases:
        check(case.method, {name: losses[name, case.method] for name in makers})
    found = turns.take_turns(
        trainers, rounds=arguments.rounds, steps=arguments.steps, cpu=arguments.cpu_time
    )
    print_table(cases, list(makers), found, "images/CPU-s" if arguments.cpu_time else "images/s")


def check(method: str, losses: Mapping[str, Sequence[float]]) -> None:
    """Ends the program where contenders do not train alike."""
    for name, other in losses.items():
        message = f"losses of {name}, {method}"
        np.testing.assert_allclose(
            other, losses["ctl_jax"], rtol=TOLERANCE[dtype()], err_msg=message
        )


def print_table(
    cases: Sequence[Case],
    names: Sequence[str],
    found: Mapping[tuple[str, str], Sequence[turns.Turn]],
    unit: str,
) -> None:
    """Images a second of each, ratios to the peers, and speed-ups over dense."""
    stages = ", ".join(map(str, NETWORKS[cases[0].network]))
    print(f"\nResNet-50 ({stages}), {cases[0].size} px, batch {cases[0].batch}")
    peak = next((p for part, p in PEAKS.items() if part in jax.devices()[0].device_kind), None)
    for case in cases:
        print(f"  {case.method}, {case.flops / 1e9:.1f} GFLOP a step")
        for name in names:
            mine = found[name, case.method]
            median = turns.seconds(mine).median
            line = f"    {name:<11}{case.batch / median:8.1f} {unit}"
            if name != "ctl_jax":
                line += f"  ours is {turns.ratio(mine, found['ctl_jax', case.method])} x"
            if peak is not None:
                line += f"  {case.flops / median / peak:.0%} of the peak"
            print(line)
    if cases[0].method != "dense":
        return
    for case in cases[1:]:
        saved = cases[0].flops / case.flops
        print(f"  {case.method} over dense: FLOPs {saved:.2f}", end="")
        for name in names:
            gain = turns.ratio(found[name, "dense"], found[name, case.method])
            print(f"; {name} {gain}, {gain.median / saved:.2f} of that", end="")
        print()
    print(flush=True)


def profile(cases: Sequence[Case], arguments: argparse.Namespace) -> None:
    """Prints milliseconds of a step by kind of operation, ours and PyTorch's."""
    import operations

    for case in cases:
        ours = operations.profile(
            case.module,
            recipe(),
            case.variables,
            batch_of(case.batch, case.size),
            hyper(),
            steps=arguments.steps,
        )
        shape = f"{case.network}, {case.size} px, batch {case.batch}"
        print(f"\n{shape}, {case.method}: ctl_jax, ms a step")
        operations.print_kinds(ours.kinds)
        print(f"  nothing ran for {ours.waiting:.1f}. The longest:")
        for name, time in sorted(ours.instructions.items(), key=lambda item: -item[1])[:20]:
            print(f"    {time:7.1f}  {name}")
        if not arguments.no_torch and jax.default_backend() == "cpu":
            import torch_operations

            print("  PyTorch, ms a step; with the gradients of kernels those of inputs")
            operations.print_kinds(torch_operations.profile(torch_trainer(case), arguments.steps))


if __name__ == "__main__":
    main()
