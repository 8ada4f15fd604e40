"""One finetuning on one task: phases, state, step, schedule, loop, evaluation."""

from ctl_jax.finetune._augment import NONE, Augmentation, augment
from ctl_jax.finetune._compiled_step import Step, default_chunk, make_step
from ctl_jax.finetune._evaluate import Scores, evaluate, logits, score
from ctl_jax.finetune._loop import FitResult, Leg, LogEntry, Snapshot, fit
from ctl_jax.finetune._losses import pad_labels
from ctl_jax.finetune._schedule import warmup_cosine
from ctl_jax.finetune.extract import VIEWS, extract
from ctl_jax.finetune.phases import Phase
from ctl_jax.finetune.sharding import agree_to_stop, check_batch, make_mesh, memory_bytes
from ctl_jax.finetune.step import (
    Hyper,
    Metrics,
    Recipe,
    TrainState,
    default_dtype,
    init_state,
    train_step,
)

__all__ = [
    "NONE",
    "VIEWS",
    "Augmentation",
    "FitResult",
    "Hyper",
    "Leg",
    "LogEntry",
    "Metrics",
    "Phase",
    "Recipe",
    "Scores",
    "Snapshot",
    "Step",
    "TrainState",
    "agree_to_stop",
    "augment",
    "check_batch",
    "default_chunk",
    "default_dtype",
    "evaluate",
    "extract",
    "fit",
    "init_state",
    "logits",
    "make_mesh",
    "make_step",
    "memory_bytes",
    "pad_labels",
    "score",
    "train_step",
    "warmup_cosine",
]
