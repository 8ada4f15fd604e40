"""Searches: the settings of the optimiser that are tried for each task, method, budget and seed."""

import itertools
from typing import NamedTuple

from ctl_jax.experiment.config.sections import Finetune


class Setting(NamedTuple):
    """One of the settings that are tried.

    Attributes:
      learning_rate: peak of the schedule; None where no step is made.
      batch_size: images per batch; None likewise.
      mixup: as `config.finetune.mixup`.
    """

    learning_rate: float | None
    batch_size: int | None
    mixup: float = 0.0


# Of a method that makes no step.
NONE = Setting(None, None)


def settings(section: Finetune, examples: int) -> list[Setting]:
    """The settings that are tried for a task: learning rates x batch sizes, or those of a rule.

    Args:
      section: the run's `config.finetune`.
      examples: training images of the task.
    """
    if section.search == "rule":
        return [hyperrule(section.batch_size, examples)]
    sizes = section.batch_sizes or (section.batch_size,)
    pairs = itertools.product(section.learning_rates, sizes)
    return [Setting(*pair, section.mixup) for pair in pairs]


def hyperrule(batch_size: int, examples: int) -> Setting:
    """What of BiT-HyperRule applies where a budget says how long a training is.

    The rate is 0.003 at a batch of 512, and in proportion at others; pairs of images are mixed at
    0.1 from 20,000 training images on. The rule's lengths (500, 10,000 or 20,000 steps) and sizes
    of images are left to the budget and the method. It was made for such lengths: at a few dozen
    steps its rate is low.

    Kolesnikov et al., Big Transfer (BiT): General Visual Representation Learning, 2020
    (arXiv:1912.11370), section 3.3.
    """
    return Setting(0.003 * batch_size / 512, batch_size, 0.1 if examples >= 20_000 else 0.0)
