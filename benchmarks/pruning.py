"""ctl_jax.pruning against Torch-Pruning: the same networks, one machine, one run.

  pip install torch torch_pruning==1.6.1
  python benchmarks/pruning.py
  python benchmarks/pruning.py --models resnet50,vit_b16 --sections once,target --rounds 3

Sections:
  once    trace, score (group L2), select (half of every group) and prune: in a fresh process, and
          again
  ratios  twenty ratios of one network
  target  half of the FLOPs, to within 1%
  steps   the same target by the loop of Torch-Pruning's examples (slow; not run unless named)
  flops   FLOPs after pruning against PyTorch's counter, and both networks' outputs, at the same
          widths with the same weights

In the table, "(traced)" leaves out our trace and scores, which one does once a network; the peer
has to build its graph for each result. "(in steps)" is its one way around that: a single pruner in
twenty steps, whose networks are other ones, since each step ranks the channels of the last again.

`--checked` has `select` trace the function in any case (its `check=True`).

docs/results.md has the tables that this printed.

Random weights, 224 px, CPU. The two libraries take turns, and medians are compared, so that the
ratios hold on a shared machine. Importing the libraries and making the weights is not counted.
"""

import argparse
import copy
import gc
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from typing import Any

import jax
import numpy as np
import torch_models
import transfer
from peer import Peer, parameters

from ctl_jax import compute, models, pruning

MODELS = ("resnet18", "resnet50", "resnet101", "densenet121", "mobilenet_v2", "vit_b16")
OURS, SCORED, PEER = "ctl_jax", "ctl_jax, traced and scored before", "Torch-Pruning"
RATIOS = tuple(i / 21 for i in range(1, 21))
TARGET, TOLERANCE = 0.5, 0.01
# What the peer's default looks at: the mean of all slices of a group. The default here looks at the
# weights that produce a channel only, and takes half of the time.
GROUP_NORM: dict[str, Any] = {"aggregate": "mean", "roles": ("out", "in", "elementwise")}
# How many times as fast as the peer we mean to be.
BARS = {"first": 1, "once": 1, "ratios": 20, "target": 50, "steps": 50}
# The loop of Torch-Pruning's examples takes 400 steps to nothing.
STEPS, STEPS_LIMIT = 400, 120.0

Row = dict[str, float]  # column of the table -> how many times as fast as the peer


class Ours:
    """One network of ctl_jax with random weights."""

    def __init__(self, name: str, check: bool = False) -> None:
        self.check = check
        self.module = models.create(name, torch_models.CLASSES)
        shapes = jax.eval_shape(lambda: models.init(self.module, jax.random.key(0), 224))
        rng = np.random.default_rng(0)
        self.variables = jax.tree_util.tree_map_with_path(
            lambda path, leaf: jax.device_put(_draw(rng, path[-1].key, leaf.shape)), shapes
        )
        self.images = jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)

    def apply(self, variables: Any, images: Any) -> Any:
        return models.apply(self.module, variables, images)

    def scored(self) -> tuple[pruning.Groups, dict[str, Any]]:
        # A new function each time: JAX keeps the jaxpr of one that it has seen.
        groups = pruning.trace(lambda v, x: self.apply(v, x), self.variables, self.images)
        return groups, pruning.score(groups, self.variables, **GROUP_NORM)

    def cut(self, groups: pruning.Groups, scores: Mapping[str, Any], **target: float) -> Any:
        keep = pruning.select(groups, scores, scope="all", check=self.check, **target)
        return jax.block_until_ready(pruning.prune(self.variables, groups, keep))

    def once(self) -> Any:
        return self.cut(*self.scored(), ratio=0.5)

    def ratios(self, groups: pruning.Groups, scores: Mapping[str, Any]) -> list[int]:
        return [models.count_params(self.cut(groups, scores, ratio=ratio)) for ratio in RATIOS]

    def flops(self, variables: Any) -> int:
        return compute.flops(self.apply, variables, self.images)


def _draw(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Random weights with which activations stay of order one."""
    if name in ("scale", "var"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    drawn = rng.standard_normal(shape, np.float32)
    return drawn * np.float32(np.prod(shape[:-1]) ** -0.5 if name == "kernel" else 0.1)


def alternate(functions: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each; they take turns."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            times[name].append(seconds(function))
    return {name: statistics.median(values) for name, values in times.items()}


def seconds(function: Callable[[], Any]) -> float:
    """Wall time of one call; garbage of what ran before is not counted."""
    gc.collect()
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def first(library: str, name: str, image_size: int, check: bool) -> float:
    """Seconds of the first `once` of a process."""
    if library == OURS:
        return seconds(Ours(name, check).once)
    peer = Peer(name, image_size)
    return seconds(lambda: peer.once(peer.model))


def measure(name: str, sections: Sequence[str], rounds: int, image_size: int, check: bool) -> Row:
    """The sections of one network, one after the other."""
    ours, peer = Ours(name, check), Peer(name, image_size)
    row: Row = {}
    for section in sections:
        found = SECTIONS[section](ours, peer, rounds)
        row |= {f"{section} {key}" if key[0] == "(" else key: found[key] for key in found}
    return row


def in_new_process(function: Callable[..., Any], *args: Any) -> Any:
    """What the function returns; it starts as on the first call in a user's program."""
    context = multiprocessing.get_context("spawn")
    with futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *args).result()


def once(ours: Ours, peer: Peer, rounds: int) -> Row:
    left = []
    # It prunes in place: copies are made beforehand, not on its time.
    copies = [copy.deepcopy(peer.model) for _ in range(rounds)]
    times = alternate({OURS: ours.once, PEER: lambda: left.append(peer.once(copies.pop()))}, rounds)
    sizes = f"parameters left {models.count_params(ours.once()):,} and {parameters(left[0]):,}"
    return {"once": report("once, again", times, sizes)}


def ratios(ours: Ours, peer: Peer, rounds: int) -> Row:
    groups, scores = ours.scored()
    functions = {
        OURS: lambda: ours.ratios(*ours.scored()),
        SCORED: lambda: ours.ratios(groups, scores),
        PEER: lambda: peer.ratios(RATIOS),
    }
    times = alternate(functions, max(1, rounds // 5))
    limit = times[PEER]
    times[f"{PEER}, one pruner in 20 steps"] = in_steps = peer.ratios_in_steps(RATIOS, limit)
    note = "(given up)" if in_steps > limit else ""
    return {
        "ratios": report("20 ratios", times, note),
        "(traced)": times[PEER] / times[SCORED],
        "(in steps)": in_steps / times[OURS],
    }


def target(ours: Ours, peer: Peer, rounds: int) -> Row:
    found = []
    functions = {
        OURS: lambda: ours.cut(*ours.scored(), flops=TARGET),
        PEER: lambda: found.append(peer.to_target(TARGET, TOLERANCE)),
    }
    times = alternate(functions, max(1, rounds // 3))
    groups, scores = ours.scored()
    small = ours.cut(groups, scores, flops=TARGET)
    times |= alternate({SCORED: lambda: ours.cut(groups, scores, flops=TARGET)}, rounds)
    share = ours.flops(small) / ours.flops(ours.variables)
    theirs, trials = found[0]
    off = f"off by {share / TARGET - 1:+.4%} and {theirs / TARGET - 1:+.4%} ({trials} trials)"
    return {
        "target": report(f"to {TARGET} of the FLOPs", times, off),
        "(traced)": times[PEER] / times[SCORED],
    }


def steps(ours: Ours, peer: Peer, rounds: int) -> Row:
    found = []
    functions = {
        OURS: lambda: ours.cut(*ours.scored(), flops=TARGET),
        PEER: lambda: found.append(peer.to_target_in_steps(TARGET, STEPS, STEPS_LIMIT)),
    }
    times = alternate(functions, 1)
    share, trials = found[0]
    given_up = " (given up)" if times[PEER] > STEPS_LIMIT else ""
    note = f"it is off by {share / TARGET - 1:+.4%} after {trials} steps{given_up}"
    return {"steps": report(f"to {TARGET} in steps of 1/{STEPS}", times, note)}


def flops(ours: Ours, peer: Peer, rounds: int) -> Row:
    name = peer.name
    groups, scores = ours.scored()
    images = np.random.default_rng(1).standard_normal((1, 224, 224, 3), np.float32)
    for ratio in (0.0, 0.3, 0.5):
        small = ours.cut(groups, scores, ratio=ratio)
        model = transfer.to_torch(name, small)
        counted = ours.flops(small)
        theirs, expected = transfer.count_and_run(model, images)
        error = np.abs(np.asarray(ours.apply(small, images)) - expected).max()
        error /= np.abs(expected).max()
        print(
            f"  FLOPs at ratio {ratio}: {counted:,}, PyTorch counts {theirs:,}; outputs differ by "
            f"{error:.1e}",
            flush=True,
        )
        assert counted == theirs, f"{name} at ratio {ratio}: {counted} FLOPs, PyTorch {theirs}"
        assert error < 1e-3, f"{name} at ratio {ratio}: outputs differ by {error}"
    return {}


def report(what: str, times: Mapping[str, float], note: str = "") -> float:
    """Prints the times; returns how many times as fast as the peer we are."""
    ratio = times[PEER] / times[OURS]
    listed = ", ".join(f"{name} {value:.3f} s" for name, value in times.items())
    print(f"  {what}: {ratio:.1f} times as fast ({listed}) {note}", flush=True)
    return ratio


SECTIONS = {"once": once, "ratios": ratios, "target": target, "steps": steps, "flops": flops}


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the times as they are measured, then a table of ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--sections", default="once,ratios,target,flops")
    parser.add_argument("--rounds", type=int, default=5, help="turns of section once")
    parser.add_argument("--peer-image-size", type=int, default=224, help="that the peer traces at")
    parser.add_argument("--checked", action="store_true", help="with select(check=True)")
    args = parser.parse_args(argv)
    names, sections = args.models.split(","), args.sections.split(",")
    for value, known in [*((n, MODELS) for n in names), *((s, SECTIONS) for s in sections)]:
        if value not in known:
            parser.error(f"{value!r}: expected one of {', '.join(known)}")
    # Where other programs use the cores too, PyTorch's threads otherwise wait for each other
    # spinning, and it takes ten times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    table: dict[str, Row] = {}
    for name in names:
        print(name, flush=True)
        row: Row = {}
        if "once" in sections:
            cold = {
                library: in_new_process(first, library, name, args.peer_image_size, args.checked)
                for library in (OURS, PEER)
            }
            row["first"] = report("once, in a fresh process", cold)
        row |= in_new_process(
            measure, name, sections, args.rounds, args.peer_image_size, args.checked
        )
        table[name] = row
    if any(table.values()):
        print_table(table)


def print_table(table: Mapping[str, Row]) -> None:
    columns = list(next(iter(table.values())))
    widths = [max(8, len(column) + 2) for column in columns]
    rows = {"times as fast": columns}
    rows |= {name: [f"{row[column]:.1f}" for column in columns] for name, row in table.items()}
    rows["bar"] = [str(BARS.get(column, "")) for column in columns]
    print()
    for name, cells in rows.items():
        print(f"{name:<14}" + "".join(f"{c:>{w}}" for c, w in zip(cells, widths, strict=True)))


if __name__ == "__main__":
    main()
