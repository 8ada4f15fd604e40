"""Runs one trial: a pure function of the trial, its network and its task."""

import contextlib
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import linen as nn

from ctl_jax import data, files, finetune, interrupts, models
from ctl_jax.compute import Ledger
from ctl_jax.experiment.keeping import Dev, Keeper
from ctl_jax.experiment.networks import Network
from ctl_jax.experiment.progress import Progress
from ctl_jax.experiment.store import Record
from ctl_jax.experiment.trials import Trial
from ctl_jax.finetune import Hyper, Step
from ctl_jax.finetune.checkpoints import Checkpoints
from ctl_jax.finetune.step import Tree

# What a trial's record says of how good it is; null where it diverged, and top-5 accuracy also for
# multi-label tasks and for fewer than five classes.
SCORES = ("dev", "dev_test", "dev_top5", "dev_test_top5")
# The most steps between two looks at the clock, for a checkpoint, and at who has the trial.
_LOOK_EVERY = 10


class Workplace(NamedTuple):
    """What the trials of a run share, and who does them.

    Attributes:
      config: the validated config.
      module: the network's module.
      progress: shown meanwhile.
      warn: called with a line about what is wrong and yet no reason to stop.
    """

    config: Any
    module: nn.Module
    progress: Progress
    warn: Callable[[str], None]


def run_trial(
    place: Workplace,
    step: Step,
    network: Network,
    task: data.Task,
    trial: Trial,
    folder: files.Path | None = None,
    is_lost: Callable[[], bool] = lambda: False,
) -> list[Record]:
    """Finetunes, evaluates on dev and dev_test, and accounts for every FLOP.

    Args:
      place: the run.
      step: compiled with the network's recipe.
      network: of the trial's method.
      task: of the trial, with images.
      trial: what to do.
      folder: of the trial's checkpoints: it goes on from what is there. None: it keeps none.
      is_lost: whether another worker has the trial now; asked often.

    Returns:
      A "train" record every `finetune.log_every` steps, a "dev" record every
      `finetune.evaluate_every`, then the "trial" record. They are the same after an interruption,
      but for the time it took.

    Raises:
      Stopped: the run was told to stop; the trial is saved.
      Lost: another worker has it.
    """
    start = time.monotonic()
    evaluate = functools.partial(_evaluate, place.module, network, task)
    with contextlib.ExitStack() as stack:
        checkpoints = None
        if folder is not None:
            checkpoints = stack.enter_context(Checkpoints(folder, warn=place.warn))
        settings = place.config.finetune
        keeper = Keeper(
            checkpoints,
            trial.steps,
            every_s=place.config.checkpoint.every_s,
            look_every=min(settings.log_every, _LOOK_EVERY),
            evaluate=functools.partial(evaluate, "dev"),
            evaluate_every=settings.evaluate_every,
            keep_best=settings.report == "best",
            is_lost=is_lost,
        )
        stack.enter_context(keeper.kept())
        result, before_s = _fit(place, step, network, task, trial, keeper)
        ledger = Ledger(train=result.steps * trial.cost.step)
        ledger = ledger.add("validate", len(keeper.dev) * trial.dev_flops)
        scores: dict[str, Any] = dict.fromkeys(SCORES)
        reported_step = result.steps
        if not result.diverged:
            reported_step, scores = _scores(evaluate, result, keeper)
            ledger = ledger.add("validate", trial.dev_flops + trial.dev_test_flops)
    return [
        *(_train_record(trial, entry) for entry in result.history),
        *(_dev_record(trial, dev) for dev in keeper.dev),
        {
            "type": "trial",
            **describe(place.config, trial),
            "steps": result.steps,
            "reported_step": reported_step,
            "spent_flops": ledger.train,
            **scores,
            "diverged": result.diverged,
            "ledger": ledger.as_dict(),
            "wall_s": before_s + time.monotonic() - start,
        },
    ]


# Otherwise each trial from scratch would trace the network anew.
_random = jax.jit(models.init, static_argnums=(0, 2))


def _fit(
    place: Workplace,
    step: Step,
    network: Network,
    task: data.Task,
    trial: Trial,
    keeper: Keeper,
) -> tuple[finetune.FitResult, float]:
    """The training, and how many seconds of it were spent before this call."""
    config = place.config
    variables = network.variables
    if not network.method.pretrained:
        variables = _random(place.module, jax.random.key(trial.seed), config.data.image_size)
    train = task.splits["train"]
    outputs = padded_outputs(task.num_classes)
    variables = models.with_head(variables, outputs)
    start = keeper.resume(
        lambda: jax.eval_shape(
            functools.partial(finetune.init_state, network.recipe, seed=trial.seed), variables
        )
    )
    place.progress.step(int(start.state.step) if start else 0)
    with interrupts.deferred():
        result = finetune.fit(
            step,
            network.recipe,
            variables,
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
            on_log=lambda entry: place.progress.step(entry.step),
            start=start,
            on_chunk=keeper,
        )
    return result, start.wall_s if start else 0.0


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


def _dev_record(trial: Trial, dev: Dev) -> Record:
    return {
        "type": "dev",
        "trial": trial.id,
        "step": dev.step,
        "flops": dev.step * trial.cost.step,
        "dev": dev.value,
        "dev_top5": dev.top5,
    }


def _scores(
    evaluate: Callable[[str, Tree], finetune.Scores], result: finetune.FitResult, keeper: Keeper
) -> tuple[int, dict[str, Any]]:
    """Which step's weights a trial reports, and their `SCORES`: of equal ones the earlier."""
    last = evaluate("dev", result.variables)
    step, dev, top5, variables = result.steps, last.value, last.top5, result.variables
    if keeper.best is not None and keeper.best.dev.value >= dev:
        (step, dev, top5), variables = keeper.best
    test = evaluate("dev_test", variables)
    return step, dict(zip(SCORES, (dev, test.value, top5, test.top5), strict=True))


def _evaluate(
    module: nn.Module, network: Network, task: data.Task, name: str, variables: Tree
) -> finetune.Scores:
    """Scores of a split."""
    return finetune.evaluate(
        module,
        network.recipe.preprocess,
        variables,
        task.splits[name].images,
        task.splits[name].labels,
        num_classes=task.num_classes,
        compute_dtype=network.recipe.compute_dtype,
    )


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
    """Outputs of the head: a power of two, at least 64, so that tasks share compiled programs.

    Padded outputs get no probability and stay zero; they are not counted as FLOPs. Most
    tasks have fewer classes, and 64 outputs are under 1% of even the quickstart's network.
    """
    return max(64, 1 << (num_classes - 1).bit_length())
