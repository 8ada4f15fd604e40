"""The other records: of a run and its tasks, of methods, and of what is done on the way."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from ctl_jax.compute.budgets import Budget
from ctl_jax.errors import UserError, naming
from ctl_jax.records._computed import Computed
from ctl_jax.records._schema import check_unique, positive


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunTask:
    """A task of a run. What an earlier version did not record is None or empty.

    Attributes:
        name: As in records, tables and names of files.
        title: Its name for people.
        dataset: The data set it is of.
        domain: Such as "ocr".
        year: In the stream.
        kind: "single_label" or "multi_label".
        num_classes: How many classes it has.
        train_examples: Examples of a split, as many as are used.
        dev_examples: Likewise.
        dev_test_examples: Likewise.
        test_examples: Likewise.
        corrupt_examples: Examples that were left out because they cannot be read.
        notes: What was put right in its data, or may not be as it should.
        passed_over: How many files beside the examples are not examples, by their kind.
    """

    name: str
    title: str
    dataset: str
    domain: str | None
    year: int | None = None
    kind: str | None = None
    num_classes: int | None = None
    train_examples: int | None = None
    dev_examples: int | None = None
    dev_test_examples: int | None = None
    test_examples: int | None = None
    corrupt_examples: int | None = None
    notes: tuple[str, ...] = ()
    passed_over: Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MissingTask:
    """A task of the stream that the run goes without, and why."""

    name: str
    title: str
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What a run is: said again by every command that continues it.

    Attributes:
        variant: The stream's variant.
        tasks: Those that there are, in order.
        missing: Those that there are not.
        methods: Their names, in order.
        budgets: Such as "4000000000 flops" or "2 epochs".
        learning_rates: Those that a grid tries.
        seeds: In order.
        config: The whole config, as plain values.
        versions: Package to version.
        device: What it ran on.
        model: The network's name.
    """

    type: ClassVar[str] = "run"

    variant: str
    model: str
    tasks: tuple[RunTask, ...]
    missing: tuple[MissingTask, ...]
    methods: tuple[str, ...]
    budgets: tuple[str, ...]
    learning_rates: tuple[float, ...]
    seeds: tuple[int, ...]
    config: Mapping[str, Any]
    versions: Mapping[str, str]
    device: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskRecord:
    """What only decoding a task's images tells; every step on the task may say it.

    Attributes:
        task: Its name.
        examples: Split to number of examples, as many as are used.
        corrupt: Examples that were left out because they cannot be read.
        notes: What was put right in its data, or may not be as it should.
        passed_over: How many files beside the examples are not examples, by their kind.
        content: Hash of its images and labels.
        image_size: Of the images, in pixels; None where an earlier version did not say.
    """

    type: ClassVar[str] = "task"

    task: str
    examples: Mapping[str, int]
    corrupt: int
    notes: tuple[str, ...]
    passed_over: Mapping[str, int]
    content: str
    image_size: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainRecord(Computed):
    """A pretraining done by the run itself. What an earlier version did not record is None.

    Attributes:
        id: Of the step.
        task: Name of the task it learnt.
        steps: Training steps.
        flops_per_step: What each costs.
        flops: What they cost together.
        metric: Accuracy on dev of the task.
        loss: The last step's.
        seed: Of weights, order and crops.
        wall_s: Seconds it took.
        weights: Hash of what it made.
    """

    type: ClassVar[str] = "pretrain"

    id: str | None = None
    task: str
    steps: int
    flops_per_step: int | None = None
    flops: int
    metric: float | None
    loss: float | None = None
    seed: int | None = None
    wall_s: float | None = None
    weights: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class PaceRecord(Computed):
    """How fast a device trains with a method, for budgets in seconds.

    Attributes:
        id: Of the step.
        device: Its kind.
        flops_per_second: Of the method's updates.
        flops: What measuring it cost.
        wall_s: Seconds it took.
    """

    type: ClassVar[str] = "pace"

    id: str
    device: str
    flops_per_second: float
    flops: int
    wall_s: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateRecord(Computed):
    """What the best model of a task is worth, on a split that chose nothing, and what it costs.

    Attributes:
        id: Of the step.
        trial: Id of the trial that made the model.
        task: Name of its task.
        split: Such as "test".
        examples: How many the split has.
        metric: What the score is: "accuracy" or "mAP".
        score: In 0 .. 1.
        low: The lower end of its 95% confidence interval.
        high: The upper one.
        correct: Examples that were classified right; None for mAP.
        top5: Top-5 accuracy; None for mAP and for fewer than five classes.
        widths: Stages of the network, each with its different numbers of channels, in order.
        params: Parameters of the network with its head.
        whole_params: The same where nothing is cut.
        forward_flops: FLOPs of a prediction of one image.
        whole_forward_flops: The same where nothing is cut.
        latency_s: Seconds that a prediction of one image takes.
        whole_latency_s: The same where nothing is cut.
        device: On what.
        flops: What the evaluation cost.
        wall_s: Seconds it took.
    """

    type: ClassVar[str] = "evaluate"

    id: str
    trial: str
    task: str
    split: str
    examples: int
    metric: str
    score: float
    low: float
    high: float
    correct: int | None
    top5: float | None
    widths: Mapping[str, tuple[int, ...]]
    params: int
    whole_params: int
    forward_flops: int
    whole_forward_flops: int
    latency_s: float
    whole_latency_s: float
    device: str
    flops: int
    wall_s: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictRecord(Computed):
    """What the best network of a search says of a split whose labels are known.

    Attributes:
        id: Of the step, by which arrays/ID.safetensors is named: "targets" and "outputs".
        trial: Id of the trial that made the network.
        task: Name of its task.
        method: The trial's.
        budget: The trial's.
        seed: The trial's.
        split: Such as "dev_test".
        examples: How many the split has.
        classes: How many the task has.
        cross_entropy: Mean over images in nats; None for several labels an image.
        top1: Top-1 accuracy; None for several labels an image.
        top5: Top-5 accuracy; None for several labels an image and for fewer than five classes.
        mean_average_precision: For several labels an image, None for one.
        params: Parameters of the network with its head.
        params_bytes: Bytes that they take, in float32.
        flops: What the predictions cost.
        wall_s: Seconds it took.
    """

    type: ClassVar[str] = "predict"

    id: str
    trial: str
    task: str
    method: str
    budget: str
    seed: int
    split: str
    examples: int
    classes: int
    cross_entropy: float | None
    top1: float | None
    top5: float | None
    mean_average_precision: float | None
    params: int
    params_bytes: int
    flops: int
    wall_s: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinalRecord(Computed):
    """What the best network of a search is worth on test, trained again on train and dev.

    Attributes:
        id: Of the step.
        trial: Id of the trial that won the search.
        task: Name of its task.
        method: The trial's.
        budget: The trial's.
        seed: The trial's.
        trained_on: "train_and_dev", or "train" of a network that stays as it is.
        split: Such as "test".
        examples: How many the split has.
        metric: What the score is: "accuracy" or "mAP".
        score: In 0 .. 1; None where the training diverged.
        low: The lower end of its 95% confidence interval.
        high: The upper one.
        top5: Top-5 accuracy; None for mAP and for fewer than five classes.
        diverged: Whether the loss stopped being finite.
        flops: What the training and the evaluation cost.
        wall_s: Seconds it took.
    """

    type: ClassVar[str] = "final"

    id: str
    trial: str
    task: str
    method: str
    budget: str
    seed: int
    trained_on: str
    split: str
    examples: int
    metric: str
    score: float | None
    low: float | None
    high: float | None
    top5: float | None
    diverged: bool
    flops: int
    wall_s: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodRecord:
    """What a method makes of the network, without a task's head.

    Attributes:
        method: Its name.
        scope: Which filters it cuts, None where it cuts none.
        ratio: The share of them that it cuts.
        criterion: By which it chooses them.
        params: Parameters of its network.
        forward_flops: FLOPs of a forward pass of one image.
        flops_per_step: FLOPs of a training step; None where the method makes none.
        groups: Channel groups of the network.
        cut_groups: How many of them lost channels.
        notes: What could not be cut as asked, and what was left whole and why.
    """

    type: ClassVar[str] = "method"

    method: str
    scope: str | None
    ratio: float | None
    criterion: str | None
    params: int
    forward_flops: int = positive()
    flops_per_step: int | None = positive()
    groups: int
    cut_groups: int
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainRecord:
    """A trial on the way: the loss after a step.

    Attributes:
        trial: Its id.
        step: Steps done.
        flops_per_step: What each costs.
        flops: What they cost together.
        loss: Of this step's batch, None where it is not finite.
        learning_rate: At this step.
        wall_s: Seconds since the trial began.
    """

    type: ClassVar[str] = "train"

    trial: str
    step: int
    flops_per_step: int
    flops: int
    loss: float | None
    learning_rate: float
    wall_s: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class DevRecord:
    """A trial on the way: the score on dev after a step.

    Attributes:
        trial: Its id.
        step: Steps done.
        flops: What they cost together.
        dev: The score.
        dev_top5: Top-5 accuracy.
    """

    type: ClassVar[str] = "dev"

    trial: str
    step: int
    flops: int
    dev: float | None
    dev_top5: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class PendingRecord:
    """A trial that the run wants and that is not done: its search has no result yet.

    Attributes:
        id: The trial's.
        task: Name of its task.
        method: Name of its method.
        budget: As in `RunRecord.budgets`.
        seed: Its seed.
        learning_rate: Its learning rate; None where it makes no step.
        batch_size: Images per batch; None likewise, or where an earlier version did not say.
        label_smoothing: Share of each label that goes to all classes alike; None likewise.
    """

    type: ClassVar[str] = "pending"

    id: str
    task: str
    method: str
    budget: str
    seed: int
    learning_rate: float | None
    batch_size: int | None = None
    label_smoothing: float | None = None


def check_run(run: RunRecord, where: str) -> None:
    """Raises a UserError where a run names something twice, or a task is no name of a file."""
    names = [task.name for task in run.tasks]
    for key in ("methods", "budgets", "learning_rates", "seeds"):
        check_unique(getattr(run, key), f"{where}: {key}")
    check_unique(names, f"{where}: names of tasks")
    with naming(f"{where}: budgets"):
        for budget in run.budgets:
            Budget.parse(budget)
    for name in names:
        # Figures are files named after their tasks.
        if not name or name.startswith(".") or set(name) & set("/\\\0"):
            raise UserError(f"{where}: task {name!r}, expected a name that is safe in a file name")
