"""Repeats trials of a run in PyTorch: the same networks, data and numbers of updates.

  python benchmarks/torch_comparison.py RUN --methods dense filters@0.5 --tasks scenes15 usps \\
    --budgets 1.4e11 4.5e11

Of RUN only its config, what its pruned networks kept and its trials' settings are taken: the
network (torchvision's, with the weights that the run began with), crops, schedule, optimizer and
evaluation are PyTorch's, and so are its random numbers. So accuracies differ as those of other
seeds do; their means should not, nor what pruning gains. Methods are `dense`, and cuts that no data
decides.
"""

import argparse
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import torch
import torch_step
import transfer

from ctl_jax import compilation, data, models, pruning
from ctl_jax.experiment import build
from ctl_jax.experiment.config import Data
from ctl_jax.experiment.tasks import TaskLoader
from ctl_jax.report.statistics import mean_interval, relative_interval

DENSE = "dense"

Trial = Mapping[str, Any]


def main() -> None:
    """Parses the flags, trains and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=pathlib.Path, metavar="RUN")
    parser.add_argument("--methods", nargs="+", default=[DENSE, "filters@0.5"])
    parser.add_argument("--tasks", nargs="+", default=[], help="default: all")
    parser.add_argument("--budgets", nargs="+", type=float, default=[], help="FLOPs; default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[], help="default: all")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    compilation.enable_cache()
    config = json.loads((given.run / "config.json").read_text())
    trials = chosen(given)
    model = models.load_pretrained(config["weights"], image_size=config["data"]["image_size"])
    networks = {method: cut(method, model, given.run, config) for method in given.methods}
    settings = {key: tuple(v) if isinstance(v, list) else v for key, v in config["data"].items()}
    loader = TaskLoader(Data(**settings))
    found: dict[tuple[str, int], dict[str, list[tuple[float, float]]]] = {}
    for number, trial in enumerate(trials, start=1):
        task = loader.load(data.source_spec(trial["task"]))
        variables = models.with_head(networks[trial["method"]], task.num_classes)
        accuracy = train(trial, task, model, variables, config["finetune"])
        of = found.setdefault((trial["method"], trial["budget_flops"]), {})
        of.setdefault(trial["task"], []).append((trial["dev_test"], accuracy))
        names = (trial[name] for name in ("task", "method", "budget_flops", "seed"))
        shown = f"ours {trial['dev_test']:.3f}, PyTorch {accuracy:.3f}"
        print(f"[{number}/{len(trials)}]", *names, shown, flush=True)
    print_table(found)


def cut(
    method: str, model: models.Model, run: pathlib.Path, config: Mapping[str, Any]
) -> Mapping[str, Any]:
    """The variables that a method trains, with a head of one class."""
    variables = models.with_head(model.variables, 1)
    if method == DENSE:
        return variables
    keep = pruning.Keep.from_json((run / "keep" / f"{method}.json").read_text())
    shapes = jax.eval_shape(lambda: variables)
    groups = build.trace_groups(model.module, shapes, config["data"]["image_size"], 2)
    return pruning.prune(variables, groups, keep)


def chosen(given: argparse.Namespace) -> list[Trial]:
    """The records of the trials that are repeated."""
    lines = map(json.loads, (given.run / "records.jsonl").read_text().splitlines())

    def fits(record: Trial) -> bool:
        wanted = [
            (given.methods, record["method"]),
            (given.tasks, record["task"]),
            (given.budgets, record["budget_flops"]),
            (given.seeds, record["seed"]),
        ]
        return all(not some or value in some for some, value in wanted)

    trials = [line for line in lines if line["type"] == "trial" and fits(line)]
    if not trials:
        raise SystemExit(f"{given.run}: no trial of these methods, tasks, budgets and seeds")
    return sorted(trials, key=lambda trial: trial["task"])


def train(
    trial: Trial,
    task: data.Task,
    model: models.Model,
    variables: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> float:
    """Trains a trial's network in PyTorch, and gives its accuracy on dev_test."""
    network = transfer.to_torch_resnet50(variables, model.options)
    assert isinstance(model.preprocess, models.Preprocess)
    preprocess, steps = torch_step.preprocessor(model.preprocess), trial["steps"]
    split, size = task.splits["train"], trial["batch_size"]
    torch.manual_seed(trial["seed"])
    generator = np.random.default_rng(trial["seed"])
    rounds = -(-steps * size // len(split.labels))
    order = np.concatenate([generator.permutation(len(split.labels)) for _ in range(rounds)])
    batches = order[: steps * size].reshape(steps, size)
    warmup = int(settings["warmup_fraction"] * steps)
    trainer = torch_step.TorchTrainer(
        network,
        split.images[batches[0]],
        split.labels[batches[0]],
        learning_rate=lambda step: rate(step, trial["learning_rate"], steps, warmup),
        preprocess=preprocess,
        crop_area=tuple(settings["crop_area"]),
        crop_aspect=tuple(settings["crop_aspect"]),
        flip=0.5 if settings["flip"] else 0.0,
    )
    for batch in batches:
        trainer.use(split.images[batch], split.labels[batch])
        trainer.steps(1)
    network.eval()
    test = task.splits["dev_test"]
    with torch.inference_mode():
        images = torch.from_numpy(np.ascontiguousarray(test.images)).permute(0, 3, 1, 2).float()
        logits = torch.cat([network(preprocess(part)) for part in images.split(100)])
    return float((logits.argmax(1).numpy() == test.labels).mean())


def rate(step: int, peak: float, steps: int, warmup: int) -> float:
    """A linear warm-up, then half a cosine to zero."""
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


def print_table(found: Mapping[tuple[str, int], Mapping[str, list[tuple[float, float]]]]) -> None:
    """Means over tasks of both, their difference, and what each gains over dense."""
    means = {
        key: np.array([np.mean(pairs, axis=0) for pairs in by_task.values()])
        for key, by_task in found.items()
    }
    head = ["method, budget", "tasks, seeds", "ours", "PyTorch", "difference"]
    head += ["above dense: ours", "PyTorch"]
    print(f"\n| {' | '.join(head)} |\n{'|---' * len(head)}|")
    for (method, budget), scores in means.items():
        ours, theirs = scores.T
        seeds = min(map(len, found[method, budget].values()))
        gains = ["", ""]
        if method != DENSE and (DENSE, budget) in means:
            of_dense = means[DENSE, budget].T
            pairs = zip((ours, theirs), of_dense, strict=True)
            gains = [percents(relative_interval(one, dense)) for one, dense in pairs]
        cells = [f"`{method}`, {budget / 1e12:g} TFLOP", f"{len(scores)}, {seeds}"]
        cells += [f"{ours.mean():.3f}", f"{theirs.mean():.3f}", mean_interval(ours - theirs).shown]
        print(f"| {' | '.join([*cells, *gains])} |")


def percents(interval: Any) -> str:
    """A ratio less one, and its interval."""
    estimate, low, high = (None if each is None else f"{100 * each:+.0f}%" for each in interval)
    return f"{estimate} ({low} to {high})" if low else str(estimate)


if __name__ == "__main__":
    main()
