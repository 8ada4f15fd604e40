"""Weights that a run makes itself, on a source task, where none are given."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn

from ctl_jax import data, finetune, models
from ctl_jax.errors import UserError
from ctl_jax.experiment.costs import Cost, cost_by_classes
from ctl_jax.experiment.progress import Progress
from ctl_jax.experiment.store import Record, Store
from ctl_jax.experiment.trials import TRIAL_FORMAT, content_id
from ctl_jax.finetune import Augmentation, Hyper, Recipe
from ctl_jax.finetune.step import Tree


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """A pretraining, wholly determined.

    Attributes:
      id: hash of everything that its weights depend on.
      task: the source task.
      recipe: constants of its step.
      cost: of the whole network on the source task.
      steps: updates.
    """

    id: str
    task: data.Task
    recipe: Recipe
    cost: Cost
    steps: int

    @property
    def flops(self) -> int:
        """FLOPs of all its steps and of its evaluation on dev."""
        return self.steps * self.cost.step + len(self.task.splits["dev"].labels) * self.cost.forward


def plan_pretraining(
    config: Any,
    module: nn.Module,
    variables: Tree,
    on_prepare: Callable[[str], None] | None = None,
) -> Pretraining:
    """What `config.pretrain` asks for.

    Args:
      config: the validated config.
      module: the network.
      variables: of the whole network; abstract ones do.
      on_prepare: called with the name of an embedded source task that has to be made first.

    Returns:
      The pretraining.
    """
    settings = config.pretrain
    task = data.load_source(settings.task, image_size=config.data.image_size, on_prepare=on_prepare)
    recipe = Recipe(
        preprocess=config.model.preprocess,
        augmentation=Augmentation(crop_area=settings.crop_area, flip=settings.flip),
        weight_decay=settings.weight_decay,
    )
    cost = cost_by_classes(
        module,
        recipe,
        variables,
        batch_size=settings.batch_size,
        image_size=config.data.image_size,
    )(task.num_classes)
    content = {
        "format": TRIAL_FORMAT,
        "pretrain": config.pretrain.to_dict(),
        "model": config.model.to_dict(),
        "image_size": config.data.image_size,
        "source": task.fingerprint,
    }
    return Pretraining(content_id(content), task, recipe, cost, settings.steps)


def pretrain(
    config: Any, module: nn.Module, plan: Pretraining, store: Store, progress: Progress
) -> Tree:
    """Pretrains, or takes up what an earlier call of the same run left.

    Args:
      config: the validated config.
      module: the network.
      plan: from `plan_pretraining`.
      store: keeps the weights and the record.
      progress: shown meanwhile.

    Returns:
      The variables without the source task's head, as read back from the folder: an interrupted run
      and an undisturbed one go on from the same numbers.

    Raises:
      UserError: the loss stopped being finite. Nothing is kept of such weights: another call would
        take them for done.
    """
    if not store.is_done(plan.id):
        variables, record = _train(config, module, plan, progress)
        models.save_checkpoint(store.pretrained, variables)
        store.save_trial(plan.id, [record])
    else:
        progress.advance(plan.flops)
    return models.with_head(models.load_checkpoint(store.pretrained), 1)


def _train(
    config: Any, module: nn.Module, plan: Pretraining, progress: Progress
) -> tuple[Tree, Record]:
    settings, classes = config.pretrain, plan.task.num_classes
    variables = models.init(module, jax.random.key(settings.seed), config.data.image_size)
    train, dev = plan.task.splits["train"], plan.task.splits["dev"]
    with progress.stage(f"pretrain on {plan.task.spec.title}", plan.steps):
        result = finetune.fit(
            finetune.make_step(module, plan.recipe),
            plan.recipe,
            models.with_head(variables, classes),
            train.images,
            train.labels,
            hyper=Hyper(
                settings.learning_rate,
                plan.steps,
                int(settings.warmup_fraction * plan.steps),
                classes,
            ),
            batch_size=settings.batch_size,
            seed=settings.seed,
            on_log=lambda entry: progress.step(entry.step),
        )
    if result.diverged:
        raise UserError(
            f"config.pretrain.learning_rate={settings.learning_rate!r}: the loss was not finite "
            f"after {result.steps} steps; expected a rate at which pretraining converges"
        )
    accuracy = finetune.evaluate(
        module,
        plan.recipe.preprocess,
        result.variables,
        dev.images,
        dev.labels,
        num_classes=classes,
    ).value
    loss = result.history[-1].loss
    progress.advance(
        plan.flops,
        f"pretrained on {plan.task.spec.title}: dev accuracy {accuracy:.3f}, loss {loss:.3f}",
    )
    return result.variables, {
        "type": "pretrain",
        "task": plan.task.spec.name,
        "steps": result.steps,
        "flops_per_step": plan.cost.step,
        "flops": plan.flops,
        "metric": accuracy,
        "loss": loss,
        "seed": settings.seed,
        "wall_s": result.history[-1].wall_s,
    }
