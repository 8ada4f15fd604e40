"""Runs one trial: a pure function of the trial, its network and its task."""

import time
from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn

from ctl_jax import data, finetune, models
from ctl_jax.compute import Ledger
from ctl_jax.experiment.networks import Network
from ctl_jax.experiment.progress import Progress
from ctl_jax.experiment.store import Record
from ctl_jax.experiment.trials import Trial
from ctl_jax.finetune import Hyper, Step
from ctl_jax.finetune.step import Tree

# What a trial's record says of how good it is; null where it diverged, and top-5 accuracy also for
# multi-label tasks and for fewer than five classes.
SCORES = ("dev", "dev_test", "dev_top5", "dev_test_top5")


def run_trial(
    config: Any,
    module: nn.Module,
    step: Step,
    network: Network,
    task: data.Task,
    trial: Trial,
    progress: Progress,
) -> list[Record]:
    """Finetunes, evaluates on dev and dev_test, and accounts for every FLOP.

    Args:
      config: the validated config.
      module: the network's module.
      step: compiled with the network's recipe.
      network: of the trial's method.
      task: of the trial, with images.
      trial: what to do.
      progress: shown meanwhile.

    Returns:
      A "train" record every `finetune.log_every` steps, then the "trial" record.
    """
    start = time.monotonic()
    records: list[Record] = []

    def on_log(entry: finetune.LogEntry) -> None:
        progress.step(entry.step)
        records.append(_train_record(trial, entry))

    result = _fit(config, module, step, network, task, trial, on_log)
    scores: dict[str, float | None] = dict.fromkeys(SCORES)
    ledger = Ledger(train=result.steps * trial.cost.step)
    if not result.diverged:
        scores |= _evaluate(module, network, result.variables, task)
        ledger = ledger.add("validate", trial.validate_flops)
    records.append(
        {
            "type": "trial",
            **describe(config, trial),
            "steps": result.steps,
            "spent_flops": ledger.train,
            **scores,
            "diverged": result.diverged,
            "ledger": ledger.as_dict(),
            "wall_s": time.monotonic() - start,
        }
    )
    return records


def _fit(
    config: Any,
    module: nn.Module,
    step: Step,
    network: Network,
    task: data.Task,
    trial: Trial,
    on_log: Callable[[finetune.LogEntry], None],
) -> finetune.FitResult:
    variables = network.variables
    if not network.method.pretrained:
        variables = models.init(module, jax.random.key(trial.seed), config.data.image_size)
    train = task.splits["train"]
    outputs = padded_outputs(task.num_classes)
    return finetune.fit(
        step,
        network.recipe,
        models.with_head(variables, outputs),
        train.images,
        finetune.pad_labels(train.labels, outputs),
        hyper=Hyper(
            trial.learning_rate,
            trial.steps,
            int(config.finetune.warmup_fraction * trial.steps),
            task.num_classes,
        ),
        batch_size=config.finetune.batch_size,
        seed=trial.seed,
        log_every=config.finetune.log_every,
        on_log=on_log,
    )


def _train_record(trial: Trial, entry: finetune.LogEntry) -> Record:
    return {
        "type": "train",
        "trial": trial.id,
        "step": entry.step,
        "flops_per_step": trial.cost.step,
        "flops": entry.step * trial.cost.step,
        "loss": entry.loss,
        "learning_rate": entry.learning_rate,
        "wall_s": entry.wall_s,
    }


def _evaluate(
    module: nn.Module, network: Network, variables: Tree, task: data.Task
) -> dict[str, float | None]:
    """`SCORES` of a trained network."""
    scores: dict[str, float | None] = {}
    for name in ("dev", "dev_test"):
        found = finetune.evaluate(
            module,
            network.recipe.preprocess,
            variables,
            task.splits[name].images,
            task.splits[name].labels,
            num_classes=task.num_classes,
        )
        scores |= {name: found.value, f"{name}_top5": found.top5}
    return scores


def describe(config: Any, trial: Trial) -> Record:
    """What a trial's record says of it beforehand."""
    spec, method = trial.task.spec, trial.method
    return {
        "id": trial.id,
        "variant": config.stream.variant,
        "task": spec.name,
        "title": spec.title,
        "dataset": spec.dataset,
        "domain": spec.domain,
        "year": spec.year,
        "method": method.name,
        "scope": method.scope,
        "ratio": method.ratio,
        "criterion": config.pruning.criterion if method.scope else None,
        "budget_flops": trial.budget_flops,
        "learning_rate": trial.learning_rate,
        "seed": trial.seed,
        "flops_per_step": trial.cost.step,
        "forward_flops": trial.cost.forward,
        "params": trial.cost.params,
        "metric": spec.metric,
    }


def padded_outputs(num_classes: int) -> int:
    """Outputs of the head: a power of two, at least 16, so that tasks share compiled programs.

    Padded outputs get no probability and stay zero; they are not counted as FLOPs.
    """
    return max(16, 1 << (num_classes - 1).bit_length())
