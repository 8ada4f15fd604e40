"""Weights that a run makes itself, on a source task, where none are given."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from ctl_jax import data, finetune, interrupts, models
from ctl_jax.errors import UserError
from ctl_jax.experiment.costs import Cost, cost_by_classes
from ctl_jax.experiment.keeping import Keeper, Lost
from ctl_jax.experiment.networks import compute_dtype
from ctl_jax.experiment.queue import Claim, Queue
from ctl_jax.experiment.store import Record, Store
from ctl_jax.experiment.teamwork import is_lost, jobs
from ctl_jax.experiment.trials import TRIAL_FORMAT, content_id
from ctl_jax.experiment.worker import Workplace
from ctl_jax.finetune import Augmentation, Hyper, Recipe, group
from ctl_jax.finetune.checkpoints import Checkpoints
from ctl_jax.finetune.step import Tree

# Steps between two looks at the loss and at the clock.
_LOG_EVERY = 10


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
    source, size = data.source_spec(settings.task), config.data.image_size
    task = data.load(source, image_size=size, on_prepare=on_prepare)
    recipe = Recipe(
        preprocess=config.model.preprocess,
        augmentation=Augmentation(crop_area=settings.crop_area, flip=settings.flip),
        weight_decay=settings.weight_decay,
        compute_dtype=compute_dtype(config),
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
        "pretrain": dataclasses.asdict(config.pretrain),
        "model": dataclasses.asdict(config.model),
        "image_size": config.data.image_size,
        "source": task.fingerprint,
    }
    if recipe.compute_dtype != "float32":
        content["compute_dtype"] = recipe.compute_dtype
    return Pretraining(content_id(content), task, recipe, cost, settings.steps)


def pretrain(
    place: Workplace, plan: Pretraining, like: Tree, store: Store, queue: Queue | None
) -> Tree:
    """Pretrains, or takes up what an earlier call of the same run left, or another worker did.

    Args:
      place: the run.
      plan: from `plan_pretraining`.
      like: variables of the whole network with one output; abstract ones do.
      store: keeps the weights and the record.
      queue: lets one worker do it; None in a group's processes but the first.

    Returns:
      The variables without the source task's head, as read back from the folder: an interrupted run
      and an undisturbed one go on from the same numbers.

    Raises:
      UserError: the loss stopped being finite, and nothing is kept of such weights: another call
        would take them for done. Or weights cannot be read back after they were written.
      Stopped: the run was told to stop; what was trained so far is kept.
    """
    trained = kept = False
    saved = _Saved(plan.id, like, store)
    # Asked again after each claim, until it is done by whomever.
    ask = functools.partial(queue.exclusively, plan.id, saved.read) if queue else None
    for _, claim in jobs(iter(ask, None) if ask else None):
        if kept:
            raise UserError(
                f"--workdir={store.workdir}: expected a place that keeps what is written; the "
                f"pretrained weights cannot be read back"
            )
        with contextlib.suppress(Lost), claim or contextlib.nullcontext():
            variables, record = _train(place, plan, store, claim)
            trained = True
            with interrupts.deferred():
                if claim is not None and not claim.lost:
                    if saved.replaces(record):
                        place.warn(
                            "the weights of this pretraining are not those of the one before; "
                            "trials that were done before started from others"
                        )
                    store.set_aside_weights()
                    models.save_checkpoint(store.pretrained, variables)
                    kept = claim.commit([record])
    if not trained:
        place.progress.advance(plan.flops)
    return group.tree_of_first(saved.variables if group.is_first() else like, like)


class _Saved:
    """The pretrained weights in the run's folder, as they were last read.

    Attributes:
      variables: of the whole network with one output; None before `read` has found them whole.
    """

    def __init__(self, id: str, like: Tree, store: Store):
        self.variables: Tree | None = None
        self._id, self._like, self._store = id, like, store
        self._expected = ""

    def read(self) -> bool:
        """Reads the weights that the pretraining's record belongs to; whether they are whole."""
        (record,) = self._store.load_trial(self._id)
        # Records of before it was there name no hash.
        self._expected = record.get("weights", "")
        try:
            found = models.load_checkpoint(self._store.pretrained)
            if self._expected and models.content_hash(found) != self._expected:
                raise UserError("they are not those of its record")
            if _described(variables := _with_one_output(found)) != _described(self._like):
                raise UserError("they are of another network")
        except UserError as error:
            self._store.tell(f"pretrained weights are damaged ({error}); they are made again")
            return False
        self.variables = variables
        return True

    def replaces(self, record: Record) -> bool:
        """Whether a new record's weights differ from those that were lost."""
        return self._expected not in ("", record["weights"])


def _with_one_output(variables: Tree) -> Tree:
    try:
        return models.with_head(variables, 1)
    except LookupError:
        raise UserError("they have no head") from None


def _described(variables: Tree) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and type of each array by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    return {
        jax.tree_util.keystr(path): (leaf.shape, np.dtype(leaf.dtype).name) for path, leaf in leaves
    }


def _train(
    place: Workplace, plan: Pretraining, store: Store, claim: Claim | None
) -> tuple[Tree, Record]:
    settings, train = place.config.pretrain, plan.task.splits["train"]
    title = plan.task.spec.title
    with contextlib.ExitStack() as stack:
        stack.enter_context(place.progress.stage(f"pretrain on {title}", plan.steps))
        checkpoints = None
        if claim is not None:
            checkpoints = Checkpoints(store.scratch(plan.id), warn=place.warn)
            stack.enter_context(checkpoints)
        keeper = Keeper(
            checkpoints,
            plan.steps,
            every_s=place.config.checkpoint.every_s,
            look_every=_LOG_EVERY,
            is_lost=functools.partial(is_lost, claim),
        )
        stack.enter_context(keeper.kept())
        result = _fit(place, plan, train, keeper)
        if result.diverged:
            raise UserError(
                f"config.pretrain.learning_rate={settings.learning_rate!r}: the loss was not "
                f"finite after {result.steps} steps; expected a rate at which pretraining converges"
            )
        accuracy = _accuracy(place, plan, result.variables)
    loss = result.history[-1].loss
    place.progress.advance(
        plan.flops, f"pretrained on {title}: dev accuracy {accuracy:.3f}, loss {loss:.3f}"
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
        "weights": models.content_hash(result.variables),
    }


def _fit(
    place: Workplace, plan: Pretraining, train: data.Split, keeper: Keeper
) -> finetune.FitResult:
    config, classes = place.config, plan.task.num_classes
    settings = config.pretrain
    variables = models.init(place.module, jax.random.key(settings.seed), config.data.image_size)
    variables = models.with_head(variables, classes)
    init = functools.partial(finetune.init_state, plan.recipe, seed=settings.seed)
    start = keeper.resume(lambda: jax.eval_shape(init, variables))
    with interrupts.deferred():
        return finetune.fit(
            finetune.make_step(place.module, plan.recipe),
            plan.recipe,
            variables,
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
            log_every=_LOG_EVERY,
            on_log=lambda entry: place.progress.step(entry.step),
            start=start,
            on_chunk=keeper,
        )


def _accuracy(place: Workplace, plan: Pretraining, variables: Tree) -> float:
    """On dev of the source task."""
    dev = plan.task.splits["dev"]
    return finetune.evaluate(
        place.module,
        plan.recipe.preprocess,
        variables,
        dev.images,
        dev.labels,
        num_classes=plan.task.num_classes,
        compute_dtype=plan.recipe.compute_dtype,
    ).value
