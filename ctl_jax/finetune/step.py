"""One training step: state in, state out."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from ctl_jax import models
from ctl_jax.errors import UserError
from ctl_jax.finetune import _adapters, _schedule, phases
from ctl_jax.finetune._adapters import Adapters
from ctl_jax.finetune._augment import Augmentation, augment, mix, partner
from ctl_jax.finetune._losses import loss
from ctl_jax.finetune.phases import Phase
from ctl_jax.models.functional import DTYPES
from ctl_jax.trees import Tree

# The most updates of a training: they are counted in int32.
MAX_STEPS = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is constant in the compiled step. SGD with Nesterov momentum, as in Nevis'22.

    Attributes:
      preprocess: what the network expects of an image, as `models.Preprocess.parse` takes it.
      augmentation: crops and flips of training images.
      momentum: of SGD.
      weight_decay: L2 coefficient, on kernels only (not biases, not BatchNorm, not adapters); with
        `phase.to_start` only on the head's.
      statistics_momentum: the share of BatchNorm's running statistics that a step keeps, once
        there were enough steps; see `average_statistics`.
      phase: which parameters are trained, and how BatchNorm normalises; no gradient is computed
        for the others. Its share and its rate have no part in the step.
      compute_dtype: "float32" or "bfloat16": of convolutions, products and activations. Parameters,
        statistics, the optimiser's state, BatchNorm's arithmetic and the loss are float32.
      smooths: whether labels are smoothed, by `Hyper.label_smoothing`.
      ema: decay of the exponential moving average of weights and statistics, which takes the place
        of the last ones wherever the network is used; 0: none. See `average_weights`.
      mixup: how strongly pairs of images are mixed, and the loss of their labels with them; 0: not
        at all. See `mix`.
      entrance: the layer where the trained part of the network begins, and the side of the images
        in pixels: then a step takes maps that enter it, see `maps`. None: it takes images.
    """

    preprocess: str
    augmentation: Augmentation
    momentum: float = 0.9
    weight_decay: float = 1e-4
    statistics_momentum: float = 0.9
    phase: Phase = dataclasses.field(default_factory=Phase)
    compute_dtype: str = "float32"
    smooths: bool = False
    ema: float = 0.0
    mixup: float = 0.0
    entrance: tuple[str, int] | None = None

    def __post_init__(self) -> None:
        if self.compute_dtype not in DTYPES:
            raise UserError(
                f"compute_dtype is {self.compute_dtype!r}; expected one of {', '.join(DTYPES)}"
            )
        if self.entrance and self.varies:
            raise UserError(
                f"entrance is {self.entrance!r}; expected images that do not vary: no crops, flips "
                "or mixtures"
            )

    @property
    def varies(self) -> bool:
        """Whether an image is another one in each update."""
        return self.augmentation.varies or self.mixup > 0


class Hyper(NamedTuple):
    """What differs between trials of one program: values, not constants.

    Attributes:
      learning_rate: the schedule's peak.
      total_steps: length of the schedule.
      warmup_steps: updates before the peak.
      num_classes: outputs of the head beyond it are padding and get no probability.
      head_rate: times the learning rate, of the head's parameters. A head on many large numbers
        diverges at rates that suit the network: by one over the squared norm of what it reads its
        updates are those of features of length one.
      label_smoothing: see `loss`; of no effect without `Recipe.smooths`.
    """

    learning_rate: jax.typing.ArrayLike
    total_steps: jax.typing.ArrayLike
    warmup_steps: jax.typing.ArrayLike
    num_classes: jax.typing.ArrayLike
    head_rate: jax.typing.ArrayLike = 1.0
    label_smoothing: jax.typing.ArrayLike = 0.0


class TrainState(NamedTuple):
    """All that a step changes.

    Attributes:
      step: updates made so far, an int32 scalar.
      params: parameters of the network, float32.
      batch_stats: running statistics of BatchNorm.
      opt_state: optimiser state over what is trained: a part of `params`, and `adapters`.
      key: PRNG key of the trial; a step folds its number in.
      average: moving average of the network, like `variables`; None without one.
      adapters: low-rank changes of frozen kernels, see `adapters`; None without any.
      start: the parameters that are pulled to where they were, as they were then, and None in the
        place of others; None without any. No step changes it.
    """

    step: jax.Array
    params: Tree
    batch_stats: Tree
    opt_state: Tree
    key: jax.Array
    average: Tree | None = None
    adapters: Adapters | None = None
    start: Tree | None = None

    @property
    def variables(self) -> Tree:
        """The network as it is to be used: {"params": ..., "batch_stats": ...}."""
        if self.average is not None:
            return self.average
        params = _merged(self.params, self.adapters) if self.adapters else self.params
        return {"params": params, "batch_stats": self.batch_stats}


class Metrics(NamedTuple):
    """What updates report, float32: scalars of one, or [chunk] with as many of them as count.

    Attributes:
      loss: mean cross-entropy before the update, in nats, without the weight decay; see `loss`.
      learning_rate: the rate of the update.
    """

    loss: jax.Array
    learning_rate: jax.Array


# One program an architecture: array by array it would be many.
_merged = jax.jit(_adapters.merged)


def init_state(recipe: Recipe, variables: Tree, seed: int | jax.Array) -> TrainState:
    """A phase's state before its first step.

    Args:
      recipe: decides what is trained, hence what the optimiser remembers.
      variables: `{"params": ..., "batch_stats": ...}` with a head for the task. Copied, since a
        step overwrites its state's buffers.
      seed: of crops, flips and adapters.

    Returns:
      The state, of fresh arrays.
    """
    params, batch_stats = jax.tree.map(jnp.array, (variables["params"], variables["batch_stats"]))
    average = None
    if recipe.ema:
        # Copies of their own: a buffer cannot be given away twice.
        average = jax.tree.map(jnp.array, {"params": params, "batch_stats": batch_stats})
    trained, frozen = phases.partition(recipe.phase, params)
    key, changes = jax.random.key(seed), None
    if rank := recipe.phase.lora:
        changes = _adapters.init(params, frozen, rank, jax.random.fold_in(key, MAX_STEPS))
    opt_state = _optimizer(recipe).init((trained, changes))
    step = jnp.zeros((), jnp.int32)
    start = pulled(recipe, params)
    return TrainState(step, params, batch_stats, opt_state, key, average, changes, start)


def pulled(recipe: Recipe, params: Tree) -> Tree | None:
    """Copies of the kernels that a phase pulls to where they are now; None where it pulls none.

    All that it trains but the head's: L2-SP of Li, Grandvalet and Davoine, 2018 (arXiv:1802.01483).
    """
    if not recipe.phase.to_start:
        return None
    trained, _ = phases.partition(recipe.phase, params)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.array(leaf) if _is_kernel(path) and not _is_of_head(path) else None,
        trained,
    )


def train_step(
    module: nn.Module,
    recipe: Recipe,
    state: TrainState,
    images: jax.Array,
    labels: jax.Array,
    hyper: Hyper,
) -> tuple[TrainState, Metrics]:
    """Augments, goes forward and backward, and updates.

    Args:
      module: the network; its widths follow from `state.params`.
      recipe: constants of the program.
      state: see `TrainState`.
      images: uint8 [batch, height, width, 3], or the maps of `recipe.entrance`, float [batch, ...].
      labels: int32 [batch], or uint8 [batch, outputs] for a multi-label task (see `pad_labels`).
        Their form decides the loss, so that there is one program for each.
      hyper: values of the trial.

    Returns:
      The next state, and what the step reports.
    """
    images, share = _varied(recipe, state, images)
    by_batch = phases.by_batch(recipe.phase, state._asdict())
    trained, frozen = phases.partition(recipe.phase, state.params)
    loss_of = functools.partial(
        _loss,
        labels=labels,
        share=share,
        num_classes=hyper.num_classes,
        smoothing=jnp.asarray(hyper.label_smoothing, jnp.float32) if recipe.smooths else None,
    )

    def loss_fn(learnt: Tree) -> tuple[jax.Array, Tree]:
        trained, changes = learnt
        variables = {"params": phases.merge(trained, frozen), "batch_stats": state.batch_stats}
        with _adapters.added(changes):
            if by_batch is False:
                return loss_of(_apply(module, recipe, variables, images)), state.batch_stats
            logits, of_batch = _apply(module, recipe, variables, images, train=by_batch)
        batch_stats = average_statistics(
            state.batch_stats, of_batch, state.step, recipe.statistics_momentum
        )
        batch_stats = phases.keep_frozen(by_batch, batch_stats, state.batch_stats)
        return loss_of(logits), batch_stats

    learnt = trained, state.adapters
    (value, batch_stats), gradients = jax.value_and_grad(loss_fn, has_aux=True)(learnt)
    if recipe.phase.clip:
        gradients = _clipped(gradients, recipe.phase.clip)
    gradients = _pull(recipe, gradients, learnt, state.start)
    direction, opt_state = _optimizer(recipe).update(gradients, state.opt_state, learnt)
    rate = _schedule.warmup_cosine(
        state.step,
        peak=hyper.learning_rate,
        total_steps=hyper.total_steps,
        warmup_steps=hyper.warmup_steps,
    )
    rates = {True: rate * hyper.head_rate, False: rate}
    trained = jax.tree_util.tree_map_with_path(
        lambda path, p, d: p - rates[_is_of_head(path)] * d, trained, direction[0]
    )
    changes = jax.tree.map(lambda p, d: p - rate * d, state.adapters, direction[1])
    params = phases.merge(trained, frozen)
    average = None
    if state.average is not None:
        now = {"params": _adapters.merged(params, changes), "batch_stats": batch_stats}
        average = average_weights(state.average, now, state.step, recipe.ema)
    done = state.step + 1
    state = TrainState(
        done, params, batch_stats, opt_state, state.key, average, changes, state.start
    )
    return state, Metrics(value, rate)


def _clipped(gradients: Tree, most: float) -> Tree:
    """The gradients, shortened where their norm is above `most`."""
    factor = jnp.minimum(1.0, most / jnp.maximum(optax.tree.norm(gradients), 1e-30))
    return jax.tree.map(lambda gradient: gradient * factor, gradients)


def _varied(
    recipe: Recipe, state: TrainState, images: jax.Array
) -> tuple[jax.Array, jax.Array | None]:
    """What a network takes of a batch, and each image's share in its mixture; None without any."""
    if recipe.entrance:
        return images, None
    key = jax.random.fold_in(state.key, state.step)
    images = augment(key, images, recipe.augmentation)
    images = models.Preprocess.parse(recipe.preprocess)(images)
    return mix(key, images, recipe.mixup) if recipe.mixup else (images, None)


def _apply(
    module: nn.Module, recipe: Recipe, variables: Tree, images: jax.Array, train: Any = False
) -> Any:
    """As `models.apply`, of images or of maps."""
    if recipe.entrance is None:
        return models.apply(module, variables, images, train, recipe.compute_dtype)
    return models.apply_from(
        module, variables, images, *recipe.entrance, train, recipe.compute_dtype
    )


def _loss(
    logits: jax.Array,
    labels: jax.Array,
    share: jax.Array | None,
    num_classes: jax.typing.ArrayLike,
    smoothing: jax.Array | None,
) -> jax.Array:
    """See `loss`; of mixed images, with each one's share of its own labels and of its partner's."""
    loss_of = functools.partial(loss, logits, num_classes=num_classes, smoothing=smoothing)
    own = loss_of(labels)
    if share is None:
        return own
    return share * own + (1 - share) * loss_of(partner(labels))


def _pull(recipe: Recipe, gradients: Tree, learnt: Tree, start: Tree | None) -> Tree:
    """Gradients with that of to_start / 2 (p - start)^2 for the parameters that have a start."""
    if start is None:
        return gradients
    pulled = jax.tree.map(
        lambda before, g, p: g if before is None else g + recipe.phase.to_start * (p - before),
        start,
        gradients[0],
        learnt[0],
        is_leaf=lambda leaf: leaf is None,
    )
    return pulled, gradients[1]


def default_dtype(backend: str) -> str:
    """What to compute in: "bfloat16" on "gpu" and "tpu", which are made for it, else "float32"."""
    return "bfloat16" if backend in ("gpu", "tpu") else "float32"


def average_statistics(running: Tree, of_batch: Tree, step: jax.Array, momentum: float) -> Tree:
    """BatchNorm's running statistics after a step: a mean at first, then an exponential average.

    The first step replaces what was there, and up to step 1 / (1 - momentum) each batch counts the
    same; this is the bias correction of Adam (Kingma & Ba, 2015, section 3), for statistics.
    Pruning changes the activations that the pretrained statistics describe, and after the few
    steps of a small budget a plain exponential average would still hold mostly those.

    Args:
      running: statistics before the step.
      of_batch: statistics of the step's batch.
      step: steps made before this one.
      momentum: the largest share of `running` that stays.

    Returns:
      The new running statistics.
    """
    steps = step.astype(jnp.float32)
    kept = jnp.minimum(momentum, steps / (steps + 1))
    return jax.tree.map(lambda old, new: kept * old + (1 - kept) * new, running, of_batch)


def average_weights(average: Tree, now: Tree, step: jax.Array, decay: float) -> Tree:
    """The moving average of a network's variables after a step.

    The share of the old average that stays is min(decay, (1 + step) / (10 + step)), as in
    TensorFlow's `ExponentialMovingAverage`: early in a training, and in a short one, it is over the
    last tenth of the steps, so that little is left of the weights that it began with.

    Args:
      average: variables before the step.
      now: variables after it.
      step: steps made before this one.
      decay: the largest share.
    """
    steps = step.astype(jnp.float32)
    new_share = 1 - jnp.minimum(decay, (1 + steps) / (10 + steps))
    # In this form what does not change stays as it is, bit for bit.
    return jax.tree.map(lambda old, new: old + new_share * (new - old), average, now)


def _optimizer(recipe: Recipe) -> optax.GradientTransformation:
    """Direction of the update; the caller scales it by the learning rate of the moment."""

    def decays(path: tuple[Any, ...]) -> bool:
        return _is_kernel(path) and (not recipe.phase.to_start or _is_of_head(path))

    def decaying(learnt: Tree) -> Tree:
        trained, changes = learnt
        kernels = jax.tree_util.tree_map_with_path(lambda path, _: decays(path), trained)
        return kernels, jax.tree.map(lambda _: False, changes)

    return optax.chain(
        optax.add_decayed_weights(recipe.weight_decay, mask=decaying),
        optax.trace(decay=recipe.momentum, nesterov=True),
    )


def _is_kernel(path: tuple[Any, ...]) -> bool:
    return path[-1].key == "kernel"


def _is_of_head(path: tuple[Any, ...]) -> bool:
    return path[0].key == "head"
