"""One finetuning on one task: state, step, schedule, loop, evaluation."""

from ctl_jax.finetune.augment import Augmentation, augment
from ctl_jax.finetune.evaluate import Scores, evaluate
from ctl_jax.finetune.loop import FitResult, LogEntry, fit
from ctl_jax.finetune.schedule import warmup_cosine
from ctl_jax.finetune.step import (
    Hyper,
    Metrics,
    Recipe,
    Step,
    TrainState,
    init_state,
    make_step,
    pad_labels,
    train_step,
)

__all__ = [
    "Augmentation",
    "FitResult",
    "Hyper",
    "LogEntry",
    "Metrics",
    "Recipe",
    "Scores",
    "Step",
    "TrainState",
    "augment",
    "evaluate",
    "fit",
    "init_state",
    "make_step",
    "pad_labels",
    "train_step",
    "warmup_cosine",
]
