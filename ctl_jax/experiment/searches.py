"""Searches: the settings of the optimiser that are tried for each task, method, budget and seed."""

import itertools
import math
import random
from typing import NamedTuple

from ctl_jax.experiment.config.sections import Finetune

# What Nevis'22 searches: see `drawn`.
_RATES, _SMOOTHINGS = (1e-4, 1e-1), (0.0, 0.3)
# Of the batch sizes that follow from a task's size: see `batch_size`.
_SHARE, LEAST_BATCH, _MOST_BATCH = 0.0025, 16, 512


class Setting(NamedTuple):
    """One of the settings that are tried.

    Attributes:
      learning_rate: peak of the schedule; None where no step is made.
      batch_size: images per batch; None likewise.
      mixup: as `config.finetune.mixup`.
      label_smoothing: as `config.finetune.label_smoothing`.
    """

    learning_rate: float | None
    batch_size: int | None
    mixup: float = 0.0
    label_smoothing: float = 0.0


# Of a method that makes no step.
NONE = Setting(None, None)


def settings(section: Finetune, examples: int, task: str, seed: int) -> list[Setting]:
    """The settings that are tried for a task: products of lists, those of a rule, or drawn ones.

    Args:
      section: the run's `config.finetune`.
      examples: training images of the task.
      task: its name, and
      seed: that of the trials, by which settings are drawn.
    """
    size = batch_size(section, examples)
    if section.search == "rule":
        return [hyperrule(size, examples)._replace(label_smoothing=section.label_smoothing)]
    if section.search == "random":
        return [
            Setting(rate, size, section.mixup, smoothing)
            for rate, smoothing in drawn(section.trials, task, seed)
        ]
    sizes = section.batch_sizes or (size,)
    smoothings = section.label_smoothings or (section.label_smoothing,)
    product = itertools.product(section.learning_rates, sizes, smoothings)
    return [Setting(rate, each, section.mixup, smoothing) for rate, each, smoothing in product]


def drawn(count: int, task: str, seed: int) -> list[tuple[float, float]]:
    """Learning rates, log-uniform in 1e-4 to 1e-1, with label smoothings, uniform in 0 to 0.3.

    The space of Nevis'22: `search_space_creator` of experiments_jax/configs/finetuning_dknn.py in
    github.com/google-deepmind/dm_nevis. The first of many are those of few.

    Args:
      count: how many.
      task: name of the task that they are for.
      seed: of the trials.
    """
    # Python promises that these draws stay what they are.
    source = random.Random(f"{task} {seed}")
    low, high = map(math.log, _RATES)
    pairs = [(source.uniform(low, high), source.uniform(*_SMOOTHINGS)) for _ in range(count)]
    # Rounded: machines may differ in the last digits of an exponential.
    return [(float(f"{math.exp(rate):.4g}"), round(smoothing, 4)) for rate, smoothing in pairs]


def batch_size(section: Finetune, examples: int) -> int:
    """Images per batch where no list of sizes is tried.

    Where the config has 0, it is the power of two that is next below 0.0025 times the training
    images, 16 to 512: `_adapt_batch_size_to_dataset_size` of
    experiments_jax/learners/finetuning_dknn/finetuning_dknn_learner.py in dm_nevis.
    """
    if section.batch_size:
        return section.batch_size
    power = 1 << max(0, int(_SHARE * examples).bit_length() - 1)
    return min(_MOST_BATCH, max(LEAST_BATCH, power))


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
