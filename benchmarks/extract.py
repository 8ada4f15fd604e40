"""How fast features are extracted, against PyTorch's inference.

  python benchmarks/extract.py                      # ResNet-50 up to conv4 and whole, dense and cut
  python benchmarks/extract.py --network=conv4 --size=64 --method dense --head=taps

Networks and methods are those of `train_step.py`. Both take the same uint8 images, normalise them
and give the features under the head, float32, from the same weights at the same widths; PyTorch in
`channels_last` and `inference_mode`, with as many threads as this process may use and the batches
that are given, ours with those of `finetune.extract`. They take turns in one process; ratios are
medians over the rounds, see `train_step.py` for rounds that others disturb and for `--cpu_time`.
"""

import argparse
import functools
import itertools
import os
from collections.abc import Callable

import jax
import numpy as np
import turns
from train_step import METHODS, NETWORKS, TORCH_NAMES, Case, batch_of, dtype, make_case

from ctl_jax import compilation, compute, finetune, memory, models

# Images of a round, by the side of one: whole batches, some seconds on two cores.
IMAGES = {64: 128, 224: 64}
Extractor = Callable[[int], np.ndarray]


def main() -> None:
    """Parses the flags and measures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--size", nargs="+", type=int, default=list(IMAGES), help="of images, px")
    parser.add_argument("--images", nargs="+", type=int, help="of a round, for each size")
    parser.add_argument("--method", nargs="+", default=METHODS[:2], help="dense or filters@RATIO")
    parser.add_argument("--batch", type=int, default=128, help="images a call of PyTorch's")
    parser.add_argument("--head", default="last", help="'taps': ours takes them too")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cpu_time", action="store_true", help="compare CPU time")
    arguments = parser.parse_args()
    if arguments.cpu_time:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    memory.keep_freed()
    compilation.enable_cache()
    print(f"{jax.devices()[0].device_kind}, {turns.threads()} threads, {dtype()}", flush=True)
    counts = arguments.images or [IMAGES.get(size, 64) for size in arguments.size]
    shapes = list(zip(arguments.size, counts, strict=True))
    for network, (size, count) in itertools.product(arguments.network, shapes):
        for method in arguments.method:
            compare(make_case(network, size, 1, method), count, arguments)


def ours(case: Case, images: np.ndarray, arguments: argparse.Namespace) -> Extractor:
    """`finetune.extract`."""
    extract = functools.partial(
        finetune.extract,
        case.module,
        "nevis",
        case.variables,
        images,
        head=arguments.head,
        compute_dtype=dtype(),
        dtype=np.float32,
    )
    return lambda steps: [extract() for _ in range(steps)][-1]


def theirs(case: Case, images: np.ndarray, arguments: argparse.Namespace) -> Extractor:
    """PyTorch's."""
    import torch
    import transfer

    torch.set_num_threads(turns.threads())
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    net = transfer.to_torch(TORCH_NAMES[case.network], case.variables).eval()
    net.fc = torch.nn.Identity()  # type: ignore[assignment]
    net = net.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    call = torch.compile(net) if device == "cuda" else net
    low = functools.partial(torch.autocast, device, torch.bfloat16, enabled=device == "cuda")

    def extract() -> np.ndarray:
        found = []
        for start in range(0, len(images), arguments.batch):
            batch = torch.from_numpy(images[start : start + arguments.batch]).to(device)
            x = batch.permute(0, 3, 1, 2).float() / 127.5 - 1.0
            found.append(call(x.contiguous(memory_format=torch.channels_last)).float())
        return torch.cat(found).cpu().numpy()

    def steps(count: int) -> np.ndarray:
        with torch.inference_mode(), low():
            return [extract() for _ in range(count)][-1]

    return steps


def compare(case: Case, count: int, arguments: argparse.Namespace) -> None:
    """Measures one network, size and method in turns, and prints it."""
    images, _ = batch_of(count, case.size)
    contenders = {"ours": ours(case, images, arguments), "torch": theirs(case, images, arguments)}
    one, other = (contender(1) for contender in contenders.values())
    tolerance = 1e-3 if dtype() == "float32" else 5e-2
    scale = np.abs(other).max()
    np.testing.assert_allclose(one[:, : other.shape[1]], other, atol=tolerance * scale)
    taken = turns.take_turns(contenders, rounds=arguments.rounds, steps=1, cpu=arguments.cpu_time)
    image = jax.ShapeDtypeStruct((1, case.size, case.size, 3), np.float32)
    flops = compute.flops(
        functools.partial(models.representation, case.module), case.variables, image
    )
    rates = {name: len(images) / turns.seconds(one).median for name, one in taken.items()}
    print(
        f"ResNet-50 {case.network}, {case.size} px, {case.method}, {flops / 1e9:.2f} GFLOP an "
        f"image: ctl_jax {rates['ours']:.0f}, PyTorch {rates['torch']:.0f} images a second "
        f"({rates['ours'] * flops / 1e9:.0f}, {rates['torch'] * flops / 1e9:.0f} GFLOP/s); ours is "
        f"{turns.ratio(taken['torch'], taken['ours'])} x",
        flush=True,
    )


if __name__ == "__main__":
    main()
