"""Records of what is done before a finetuning: steps that trials may share, and do once."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from ctl_jax.compute import Ledger
from ctl_jax.records._computed import Computed
from ctl_jax.records._schema import positive


@dataclasses.dataclass(frozen=True, kw_only=True)
class PruneRecord(Computed):
    """What was cut from a network before it is finetuned.

    Attributes:
        id: Of the step.
        cut: Scope and ratio, as in the names of methods.
        keep: `pruning.Keep.to_json`: which channels stay.
        groups: Channel groups of the network.
        cut_groups: How many of them lost channels.
        notes: What could not be cut as asked, and what was left whole and why.
        flops: What choosing the channels cost; 0 where their weights alone decide.
        task: Name of the task whose images decided; None where none did.
    """

    type: ClassVar[str] = "prune"

    id: str
    cut: str
    keep: str
    groups: int
    cut_groups: int
    notes: tuple[str, ...]
    flops: int = 0
    task: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShortenRecord(Computed):
    """The first stages of a network, alone.

    Attributes:
        id: Of the step.
        stages: How many they are.
        params: Their parameters, with a head of one output.
    """

    type: ClassVar[str] = "shorten"

    id: str
    stages: int
    params: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegrowRecord(Computed):
    """A trained network with the channels again that were cut from it.

    Attributes:
        id: Of the step.
        task: Name of the task that it was trained on.
        params: Its parameters, with a head of one output.
    """

    type: ClassVar[str] = "regrow"

    id: str
    task: str
    params: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class NeighboursRecord(Computed):
    """How good the features of a network are on a task, by k nearest neighbours.

    Attributes:
        id: Of the step.
        task: Name of the task.
        source: Name of the task that the network was trained on last; None of a pretrained one.
        neighbours: How many count.
        examples: Training images whose neighbours are looked for.
        dev_examples: Images of dev that are predicted.
        image_size: Side of the square images, in pixels.
        features: Numbers of an image.
        metric: What the score is: "accuracy" or "mAP".
        dev: The score.
        flops: What the features and the distances cost.
        wall_s: Seconds it took.
    """

    type: ClassVar[str] = "neighbours"

    id: str
    task: str
    source: str | None
    neighbours: int
    examples: int
    dev_examples: int
    image_size: int
    features: int = positive()
    metric: str
    dev: float
    flops: int
    wall_s: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecalibrateRecord(Computed):
    """What images of a task put right in a pruned network before it is used.

    Attributes:
        id: Of the step.
        task: Name of the task.
        what: What was put right, such as "statistics" or "readers".
        examples: Images that it took.
        notes: What there is to say of it.
        flops: What it cost.
        wall_s: Seconds it took.
    """

    type: ClassVar[str] = "recalibrate"

    id: str
    task: str
    what: tuple[str, ...]
    examples: int
    notes: tuple[str, ...] = ()
    flops: int
    wall_s: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExtractRecord(Computed):
    """Features of some images of a task, computed once.

    Attributes:
        id: Of the step.
        task: Name of the task.
        split: Such as "train".
        start: The first of the images, in the order that the step draws.
        stop: Behind the last.
        image_size: Side of the square images, in pixels.
        features: Numbers of an image.
        flops: What they cost.
        wall_s: Seconds it took.
    """

    type: ClassVar[str] = "extract"

    id: str
    task: str
    split: str
    start: int
    stop: int
    image_size: int
    features: int = positive()
    flops: int
    wall_s: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class LookedAt:
    """What `auto` saw of a network.

    Attributes:
        method: The network's name, as methods have it, without a tuning.
        images: Training images whose features were computed.
        of: What each head was fitted on: this network, or its first stages alone.
        fitted: Numbers of the images that they were fitted on.
        scores: For each, how many nats the cross-entropy on images that were left out is below the
            labels' own entropy, as a logarithm; see `experiment.auto.expectation`.
        fit_flops: What fitting these heads cost.
    """

    method: str
    images: int
    of: tuple[str, ...]
    fitted: tuple[int, ...]
    scores: tuple[float, ...]
    fit_flops: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadOption:
    """A head that `auto` could afford, and what it expected of it.

    Attributes:
        method: The network's name.
        solver: How the head would be fitted.
        images: On how many images.
        accuracy: The expected accuracy.
        logit: The mean of its logit.
        deviation: The standard deviation of its logit.
        flops: What it would take: features that are not there yet, and the fit.
    """

    method: str
    solver: str
    images: int
    accuracy: float
    logit: float
    deviation: float
    flops: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadAnswer:
    """A head that `auto` fits at last.

    Attributes:
        method: The network's name.
        solver: How it is fitted.
        images: On how many images.
    """

    method: str
    solver: str
    images: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class LookRecord(Computed):
    """What `auto` saw of a task so far, and what it does next.

    Attributes:
        id: Of the step.
        task: Name of the task.
        budget_flops: What may be spent, all in all.
        seed: Of the order of images, as of the trial.
        native_side: Median short side of the task's images on disk, in pixels.
        looks: All looks so far, this one last; none before any feature was computed.
        options: The best head of each network that can be afforded, best first.
        next_method: The network that is looked at next; None where nothing is.
        next_images: On how many images.
        answers: The heads that are fitted at last, where there is no next look; of them that one is
            taken whose cross-entropy on images that are left out of its fit is the least.
        trains: Whether the whole network is trained with what is left after that.
        tenfold_logit: What ten times the budget is expected to add to the logit of the accuracy.
        tenfold_deviation: The standard deviation of that.
        paced: The networks whose speed was measured, where the budget is of time.
        flops: What the fits of this look cost.
        spent_flops: What was spent so far: features, and fits of all looks.
        wall_s: Seconds it took.
    """

    type: ClassVar[str] = "look"

    id: str
    task: str
    budget_flops: int
    seed: int
    native_side: int
    looks: tuple[LookedAt, ...]
    options: tuple[HeadOption, ...]
    next_method: str | None
    next_images: int
    answers: tuple[HeadAnswer, ...]
    trains: bool
    tenfold_logit: float
    tenfold_deviation: float
    paced: tuple[str, ...] = ()
    flops: int
    spent_flops: int
    wall_s: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadRecord(Computed):
    """A head that was fitted in closed form to features, and how good it is.

    Attributes:
        id: Of the step.
        task: Name of the task.
        solver: Such as "ridge".
        head: What it reads: "last" or "taps".
        examples: Training images that it was fitted on.
        features: Numbers of an image.
        metric: What the scores are: "accuracy" or "mAP".
        dev: The score on dev.
        dev_test: The score on dev_test.
        dev_top5: Top-5 accuracy; None for mAP and for fewer than five classes.
        dev_test_top5: Likewise.
        notes: What the solver chose, such as its coefficient.
        flops: What fitting it cost.
        extract_flops: What the features of its training images cost.
        wall_s: Seconds that fitting it took.
    """

    type: ClassVar[str] = "head"

    id: str
    task: str
    solver: str
    head: str
    examples: int = positive()
    features: int = positive()
    metric: str
    dev: float | None
    dev_test: float | None
    dev_top5: float | None
    dev_test_top5: float | None
    notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    flops: int
    extract_flops: int
    wall_s: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptRecord(Computed):
    """Training of part of a network before a head is fitted to what it has become.

    Attributes:
        id: Of the step.
        task: Name of the task.
        steps: Updates made.
        learning_rate: The peak rate.
        loss: Of the last update, in nats; None where it diverged, and nothing was changed.
        flops: What the updates and their inputs cost.
        wall_s: Seconds it took.
    """

    type: ClassVar[str] = "adapt"

    id: str
    task: str
    steps: int
    learning_rate: float
    loss: float | None
    flops: int
    wall_s: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class RungRecord(Computed):
    """A trial's training as far as a rung of its search, by which the better ones go on.

    Attributes:
        id: Of the step.
        task: Name of the task.
        method: Name of the method.
        budget: That of the whole training, as in `RunRecord.budgets`.
        seed: Its seed.
        learning_rate: Peak of the schedule, which is that of the whole training.
        batch_size: Images per batch.
        label_smoothing: Share of each label that goes to all classes alike.
        steps: Updates made so far, also by the rungs before.
        dev: The score on dev that a trial would have which ended here; None where it diverged.
        diverged: Whether the loss stopped being finite.
        ledger: Every FLOP of the training so far, by purpose.
        looked_flops: What evaluations took so far that the training alone would not have had, and
            what was computed again to go on with it.
        flops: What this step computed.
        wall_s: Seconds it took.
    """

    type: ClassVar[str] = "rung"

    id: str
    task: str
    method: str
    budget: str
    seed: int
    learning_rate: float
    batch_size: int
    label_smoothing: float
    steps: int
    dev: float | None
    diverged: bool
    ledger: Ledger
    looked_flops: int
    flops: int
    wall_s: float
