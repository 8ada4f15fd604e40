"""The stream's tasks: which there are, what they hold, and their images when they are needed."""

import collections
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ctl_jax import data
from ctl_jax.errors import UserError
from ctl_jax.experiment.trials import TaskInfo

# Images that stay in memory between the plan and the trials. Beyond it the oldest task is dropped,
# and decoded again when its trials come.
MEMORY_BYTES = 4 << 30


def find_tasks(
    config: Any,
) -> tuple[tuple[data.TaskSpec, ...], tuple[tuple[data.TaskSpec, str], ...]]:
    """Which tasks of the stream there is data for.

    Args:
      config: the validated config.

    Returns:
      The tasks that can be loaded, and those that cannot, each with the reason.

    Raises:
      UserError: tasks are lacking and `stream.missing` is "error", or none is left.
    """
    settings = config.stream
    specs = data.stream(
        settings.variant,
        settings.stop_year,
        ablation=settings.ablation,
        num_tasks=settings.num_tasks,
        shuffle=settings.shuffle,
        seed=settings.seed,
    )
    reasons = [data.availability(spec, config.data.dirs) for spec in specs]
    found = tuple(spec for spec, reason in zip(specs, reasons, strict=True) if reason is None)
    missing = tuple(
        (s, reason) for s, reason in zip(specs, reasons, strict=True) if reason is not None
    )
    if missing and (config.stream.missing == "error" or not found):
        listed = "; ".join(f"{spec.title}: {reason}" for spec, reason in missing)
        advice = "; config.stream.missing='skip' goes on without them" if found else ""
        raise UserError(
            f"config.stream.variant={config.stream.variant!r}: {len(missing)} of {len(specs)} "
            f"tasks lack their data{advice}: {listed}"
        )
    return found, missing


class TaskLoader:
    """Loads tasks, and keeps as many as fit into `memory_bytes`.

    `on_prepare` is called with the name of an embedded task that has to be made first.
    """

    def __init__(
        self,
        config: Any,
        on_prepare: Callable[[str], None] | None = None,
        memory_bytes: int = MEMORY_BYTES,
    ):
        self._config = config
        self._on_prepare = on_prepare
        self._memory_bytes = memory_bytes
        self._loaded: collections.OrderedDict[str, data.Task] = collections.OrderedDict()

    def load(self, spec: data.TaskSpec) -> data.Task:
        """The task with all its images, dev and dev_test limited to `data.max_eval_examples`."""
        if spec.name not in self._loaded:
            settings = self._config.data
            task = data.load(
                spec,
                image_size=settings.image_size,
                dirs=settings.dirs,
                max_corrupt=settings.max_corrupt,
                on_prepare=self._on_prepare,
            )
            if settings.max_eval_examples:
                limited = {
                    name: _limit(task.splits[name], settings.max_eval_examples)
                    for name in ("dev", "dev_test")
                }
                task = dataclasses.replace(task, splits={**task.splits, **limited})
            self._loaded[spec.name] = task
            while (
                len(self._loaded) > 1
                and sum(map(_size, self._loaded.values())) > self._memory_bytes
            ):
                self._loaded.popitem(last=False)
        return self._loaded[spec.name]

    def info(self, spec: data.TaskSpec) -> TaskInfo:
        """The task without its images."""
        task = self.load(spec)
        examples = {name: len(split.labels) for name, split in task.splits.items()}
        return TaskInfo(
            spec,
            task.num_classes,
            examples,
            task.fingerprint,
            corrupt=len(task.corrupt),
            notes=task.notes,
            passed_over=task.passed_over,
        )


def describe(tasks: Sequence[TaskInfo]) -> list[dict[str, Any]]:
    """The tasks as the run's record names them."""
    return [
        {
            **{
                field: getattr(task.spec, field)
                for field in ("name", "title", "dataset", "domain", "year", "kind")
            },
            "num_classes": task.num_classes,
            **{f"{name}_examples": count for name, count in task.examples.items()},
            "corrupt_examples": task.corrupt,
            "notes": list(task.notes),
            "passed_over": dict(task.passed_over),
        }
        for task in tasks
    ]


def _limit(split: data.Split, examples: int) -> data.Split:
    """At most `examples` of the split: always the same ones, drawn at random.

    Not the first ones, nor every n-th: sets on disk may be sorted by class, or go round them.
    """
    if len(split.labels) <= examples:
        return split
    index = np.sort(np.random.default_rng(0).permutation(len(split.labels))[:examples])
    return data.Split(split.images[index], split.labels[index])


def _size(task: data.Task) -> int:
    return sum(split.images.nbytes for split in task.splits.values())
