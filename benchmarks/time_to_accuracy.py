"""Seconds and FLOPs until a given accuracy on real sets, against PyTorch with the same weights.

  python benchmarks/time_to_accuracy.py --weights=FILE --dirs folder:DIR tfds:DIR nevis:DIR \\
    --sets german_tsr scenes15 usps

FILE has weights of a ResNet-50, torchvision's or Keras's, whole or up to conv4. Contenders:

- ctl_jax: features by `finetune.extract` (taps), a ridge head by `heads.fit`.
- cached features: PyTorch's inference in `channels_last`, scikit-learn's logistic regression on
  standardised features, at its default coefficient.
- full finetuning: PyTorch in `channels_last`, crops and flips as Nevis'22 has them, SGD with
  Nesterov momentum, a cosine over --steps updates of 32 images. Of several --rates the best of each
  target counts, the others are not charged: PyTorch's favour.

The first two see class-balanced images, more and more of them: features are computed once an image,
a head is fitted at 32, 64, 96, 160, ... images, and the time until a target is that of all features
up to there and of the one head. Contenders take turns, stretch by stretch, in one process, and
compile before. A seed draws the images, their order, crops and flips; of several --seeds the table
has the median and the range. Accuracies are of --test images of dev_test, which nobody is charged
for. On a machine that is not quiet, compare CPU time on one core, where no thread spins while it
waits: `taskset -c 0 python benchmarks/time_to_accuracy.py --cpu_time ...`.
"""

import argparse
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import turns

from ctl_jax import compilation, compute, data, finetune, heads, memory, models

# Images of a step, of a call that extracts, and of the first head; steps between two looks.
BATCH, STRETCH = 32, 10
PEERS = ("cached features", "full finetuning")


class Point(NamedTuple):
    """How good a contender is after some work: seconds and FLOPs so far, accuracy."""

    seconds: float
    flops: int
    accuracy: float


class Stage(NamedTuple):
    """What a contender yields after each stretch of work.

    Attributes:
      flops: of all stretches so far.
      finish: makes the classifier; returns the FLOPs of that, and the logits of the test images as
        a function that is not timed.
    """

    flops: int
    finish: Callable[[], tuple[int, Callable[[], np.ndarray]]]


Contender = Callable[[], Iterator[Stage]]


class Problem(NamedTuple):
    """A task, the network that learns it, FLOPs of an image and of a step of finetuning, a seed."""

    model: models.Model
    images: np.ndarray
    labels: np.ndarray
    test: np.ndarray
    answers: np.ndarray
    classes: int
    forward: int
    step: int
    seed: int


def main() -> None:
    """Parses the flags, measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", required=True)
    parser.add_argument("--dirs", nargs="+", required=True, help="as `config.data.dirs`")
    parser.add_argument("--sets", nargs="+", default=["german_tsr", "scenes15", "usps"])
    parser.add_argument("--targets", nargs="+", type=float, default=[0.6, 0.7, 0.8, 0.9])
    parser.add_argument("--size", type=int, default=64, help="of images, in px")
    parser.add_argument("--train", type=int, default=2048, help="training images at most")
    parser.add_argument("--test", type=int, default=500)
    parser.add_argument("--steps", type=int, default=100, help="of finetuning")
    parser.add_argument("--rates", nargs="+", type=float, default=[0.01, 0.03])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--cpu_time", action="store_true", help="compare CPU time")
    arguments = parser.parse_args()
    memory.keep_freed()
    compilation.enable_cache()
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    model = models.load_pretrained(arguments.weights, image_size=arguments.size)
    for name in arguments.sets:
        problems = [read(name, model, arguments, seed) for seed in arguments.seeds]
        curves = [
            race(contenders(problem, arguments), problem, max(arguments.targets), clock)
            for problem in problems
        ]
        print_table(name, problems[0], curves, arguments)


def read(name: str, model: models.Model, arguments: argparse.Namespace, seed: int) -> Problem:
    """The task's class-balanced training images, and those that accuracies are of."""
    task = data.load(data.source_spec(name), arguments.size, arguments.dirs)
    train, test = task.splits["train"], task.splits["dev_test"]
    order = balanced(train.labels, np.random.default_rng(seed))[: arguments.train]
    few = np.random.default_rng(1).permutation(len(test))[: arguments.test]
    variables = models.with_head(model.variables, task.num_classes)
    image = jax.ShapeDtypeStruct((1, arguments.size, arguments.size, 3), np.float32)
    represent = functools.partial(models.representation, model.module)
    batch = np.zeros((BATCH, *train.images.shape[1:]), np.uint8), np.zeros(BATCH, np.int32)
    recipe = finetune.Recipe(str(model.preprocess), finetune.Augmentation())
    step = functools.partial(finetune.train_step, model.module, recipe)
    hyper = finetune.Hyper(0.01, 100, 0, task.num_classes)
    state = finetune.init_state(recipe, variables, seed=0)
    return Problem(
        model,
        train.images[order],
        train.labels[order],
        test.images[few],
        test.labels[few],
        task.num_classes,
        compute.flops(represent, variables, image),
        compute.flops(step, state, *batch, hyper),
        seed,
    )


def balanced(labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Indices of all examples in an order in which each class comes once a round."""
    mixed = generator.permutation(len(labels))
    rounds = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        of_class = labels[mixed] == label
        rounds[of_class] = np.arange(of_class.sum())
    return mixed[np.argsort(rounds, kind="stable")]


def contenders(problem: Problem, arguments: argparse.Namespace) -> dict[str, Contender]:
    """By name; full finetuning once a rate."""
    import torch

    torch.set_num_threads(turns.threads())
    finetuned = {
        f"{PEERS[1]} {rate:g}": functools.partial(full_finetuning, problem, rate, arguments.steps)
        for rate in arguments.rates
    }
    probes = {"ctl_jax": ours, PEERS[0]: cached_features}
    return {name: functools.partial(call, problem) for name, call in probes.items()} | finetuned


def counts(examples: int) -> Iterator[tuple[int, int]]:
    """Stretches of images: 0 to 32, to 64, to 96, ..., half as many more in whole batches."""
    start, stop = 0, BATCH
    while start < examples:
        stop = min(stop, examples)
        yield start, stop
        start, stop = stop, -(-3 * stop // (2 * BATCH)) * BATCH


def ours(problem: Problem) -> Iterator[Stage]:
    """A ridge head on taps."""
    model = problem.model

    def features(images: np.ndarray) -> np.ndarray:
        network = (model.module, model.preprocess, model.variables)
        return finetune.extract(*network, images, head="taps", batch_size=BATCH)

    test = features(problem.test)  # It compiles, too.
    shards: list[heads.Shard] = []

    def finish() -> tuple[int, Callable[[], np.ndarray]]:
        fitted = heads.fit("ridge", shards, problem.classes)
        head, flops = fitted.head, fitted.flops
        return flops, lambda: test.astype(np.float32) @ head["kernel"] + head["bias"]

    yield Stage(0, lambda: (0, lambda: np.zeros((len(test), problem.classes))))
    for start, stop in counts(len(problem.labels)):
        found = features(problem.images[start:stop])
        shards.append(heads.Shard(found, problem.labels[start:stop]))
        yield Stage(stop * problem.forward, finish)


def cached_features(problem: Problem) -> Iterator[Stage]:
    """PyTorch's features, scikit-learn's logistic regression."""
    import torch
    import torch_step
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    network = torch_network(problem).eval()
    network.fc = torch.nn.Identity()
    preprocess = torch_step.preprocessor(problem.model.preprocess)

    def features(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.concatenate(
                [
                    network(preprocess(torch_images(images[start : start + BATCH]))).numpy()
                    for start in range(0, len(images), BATCH)
                ]
            )

    test = features(problem.test)
    few = problem.test[:8]
    network_of_ours = (problem.model.module, problem.model.preprocess, problem.model.variables)
    same = finetune.extract(*network_of_ours, few, batch_size=8, dtype=np.float32)
    np.testing.assert_allclose(test[:8], same, atol=1e-3 * np.abs(same).max())
    found: list[np.ndarray] = []
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    classifier.fit(test[:4], np.arange(4) % 2)  # Its first call takes a second.

    def finish() -> tuple[int, Callable[[], np.ndarray]]:
        labels = problem.labels[: sum(map(len, found))]
        classifier.fit(np.concatenate(found), labels)
        products = 4 * len(labels) * test.shape[1] * problem.classes  # Logits and gradient.
        known = classifier[-1].classes_

        def logits() -> np.ndarray:
            scores = np.full((len(test), problem.classes), -np.inf)
            scores[:, known] = classifier.predict_log_proba(test)
            return scores

        return products * int(classifier[-1].n_iter_.max()), logits

    yield Stage(0, lambda: (0, lambda: np.zeros((len(test), problem.classes))))
    for start, stop in counts(len(problem.labels)):
        found.append(features(problem.images[start:stop]))
        yield Stage(stop * problem.forward, finish)


def full_finetuning(problem: Problem, rate: float, steps: int) -> Iterator[Stage]:
    """PyTorch's training of the whole network."""
    import torch
    import torch_step

    network, generator = torch_network(problem), np.random.default_rng(problem.seed)
    preprocess, crops = torch_step.preprocessor(problem.model.preprocess), finetune.Augmentation()
    torch.manual_seed(problem.seed)
    trainer = torch_step.TorchTrainer(
        network,
        problem.images[:BATCH],
        problem.labels[:BATCH],
        learning_rate=torch_step.cosine(rate, steps),
        preprocess=preprocess,
        crop_area=crops.crop_area,
        crop_aspect=crops.crop_aspect,
        flip=0.5 if crops.flip else 0.0,
    )

    def logits() -> np.ndarray:
        network.eval()
        with torch.inference_mode():
            parts = [problem.test[i : i + BATCH] for i in range(0, len(problem.test), BATCH)]
            found = np.concatenate([network(preprocess(torch_images(part))) for part in parts])
        network.train()
        return found

    yield Stage(0, lambda: (0, logits))
    order = np.concatenate(
        [
            generator.permutation(len(problem.labels))
            for _ in range(-(-steps * BATCH // len(problem.labels)))
        ]
    )
    for step in range(1, steps + 1):
        batch = order[(step - 1) * BATCH : step * BATCH]
        trainer.use(problem.images[batch], problem.labels[batch])
        trainer.steps(1)
        if step % STRETCH == 0 or step == steps:
            yield Stage(step * problem.step, lambda: (0, logits))


def torch_network(problem: Problem) -> Any:
    """The network in `channels_last`, with a head of zeros for the task."""
    import torch
    import transfer

    variables = models.with_head(problem.model.variables, problem.classes)
    network = transfer.to_torch_resnet50(variables, problem.model.options)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def torch_images(images: np.ndarray) -> Any:
    """Float [batch, 3, height, width] in `channels_last`, 0..255."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()


def race(
    contenders: dict[str, Contender],
    problem: Problem,
    target: float,
    clock: Callable[[], float],
) -> dict[str, list[Point]]:
    """Contenders in turns, each until it has the last target or ends."""
    curves: dict[str, list[Point]] = {}
    running: dict[str, Iterator[Stage]] = {}
    for name, contender in contenders.items():
        try:
            running[name] = contender()
            next(running[name])  # Compiles.
            curves[name] = []
        except ImportError as error:
            print(f"{name}: left out, {error}", flush=True)
            del running[name]
    worked = dict.fromkeys(running, 0.0)
    while running:
        for name, stages in list(running.items()):
            start = clock()
            stage = next(stages, None)
            worked[name] += clock() - start
            if stage is None:
                del running[name]
                continue
            start = clock()
            flops, logits = stage.finish()
            seconds = worked[name] + clock() - start
            accuracy = float((logits().argmax(1) == problem.answers).mean())
            curves[name].append(Point(seconds, stage.flops + flops, accuracy))
            if accuracy >= target:
                del running[name]
    return curves


def until(curve: Sequence[Point], target: float) -> Point | None:
    """The first point of an accuracy."""
    return next((point for point in curve if point.accuracy >= target), None)


def print_table(
    name: str,
    problem: Problem,
    by_seed: Sequence[dict[str, list[Point]]],
    arguments: argparse.Namespace,
) -> None:
    """Of each target: seconds and TFLOP of each contender, and what they are of ours."""
    unit = "CPU seconds" if arguments.cpu_time else "seconds"
    seeds = ", ".join(map(str, arguments.seeds))
    print(
        f"\n{name}: {problem.classes} classes, {len(problem.labels)} training images, seeds {seeds}"
    )
    for target in arguments.targets:
        found = {
            peer: [best_run(of, peer, target) for of in by_seed] for peer in ("ctl_jax", *PEERS)
        }
        cells = []
        for peer, runs in found.items():
            if not all(any(each.startswith(peer) for each in of) for of in by_seed):
                continue
            if not all(runs):
                best = [top(of, peer) for of in by_seed]
                cells.append(f"{peer} not reached ({spread(best, '.2f')})")
                continue
            seconds = spread([run.seconds for run in runs if run], ".1f")
            flops = spread([run.flops / 1e12 for run in runs if run], ".3f")
            cell = f"{peer} {seconds} {unit}, {flops} TFLOP"
            pairs = [
                (one, run) for one, run in zip(found["ctl_jax"], runs, strict=True) if one and run
            ]
            if peer != "ctl_jax" and len(pairs) == len(runs):
                times = spread([run.seconds / one.seconds for one, run in pairs], ".1f")
                compute_too = spread([run.flops / one.flops for one, run in pairs], ".1f")
                cell += f" ({times} and {compute_too} times ours)"
            cells.append(cell)
        print(f"  {target:.2f}: " + "; ".join(cells), flush=True)


def best_run(curves: dict[str, list[Point]], peer: str, target: float) -> Point | None:
    """Where a contender first has an accuracy, at the best of its rates."""
    runs = [curve for contender, curve in curves.items() if contender.startswith(peer)]
    return min((point for curve in runs if (point := until(curve, target))), default=None)


def top(curves: dict[str, list[Point]], peer: str) -> float:
    """The highest accuracy that a contender had."""
    return max(p.accuracy for name, curve in curves.items() if name.startswith(peer) for p in curve)


def spread(numbers: Sequence[float], form: str) -> str:
    """The median and, of several, the range."""
    middle = f"{np.median(numbers):{form}}"
    if len(numbers) == 1:
        return middle
    return f"{middle} [{min(numbers):{form}} to {max(numbers):{form}}]"


if __name__ == "__main__":
    main()
