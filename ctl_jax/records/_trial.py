"""Trials: a trial's record, which of several wins, and the columns of `results.csv`."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from ctl_jax import compute
from ctl_jax.errors import UserError
from ctl_jax.records._columns import add_fields, column, derived
from ctl_jax.records._computed import Computed
from ctl_jax.records._prepared import RungRecord

PURPOSES = tuple(field.name for field in dataclasses.fields(compute.Ledger))
# What a trial that lost spent on the search.
SEARCHED = ("train", "extract", "validate", "search")


@add_fields
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialRecord(Computed):
    """One finetuning and what came of it. What is no column of `results.csv` follows those.

    A trial may start from a head that was fitted in closed form to features, and may make no step
    after it. It is charged for all that it rests on as if it were alone, in `ledger`, although
    other trials may share it.

    Attributes:
        id: Hash of everything that its numbers depend on.
        title: The task's name for people.
        criterion: Of pruning, None where nothing is cut.
        reported_step: The step whose weights `dev` and `dev_test` are of.
        dev_top5: Top-5 accuracy on dev.
        notes: What a solver chose, such as its coefficient; of `auto` also "chosen", the name of
            the method that it is, and "heads", the ids of heads that were fitted, by their methods.
        own_flops: FLOPs that the step of the trial computed itself, the rest of `ledger` being of
            steps that it may share; None where it computed all of them.
        start_task: Name of the task whose network it started from; None where it started from
            pretrained or random weights.
        candidates: What a learner chose that by: scores on dev of the features of each candidate,
            by the name of the task that it was trained on, "" being the pretrained network.
        choice_flops: FLOPs of that choice, which all trials of a search share; neither in `ledger`
            nor in `spent_flops`.
        diverged: Whether the loss stopped being finite; such a trial loses to any other.
        ledger: Every FLOP it cost, by purpose.
        wall_s: Seconds it took.
    """

    type: ClassVar[str] = "trial"

    variant: str = column("the stream's variant")
    task: str = column("the task's name")
    dataset: str = column("the data set that the task is of")
    domain: str | None = column("the task's domain")
    method: str = column("the method's name")
    scope: str | None = column("which filters the method cuts, empty where it cuts none")
    ratio: float | None = column("the share of them that it cuts")
    budget_flops: int = column("training compute that the trial could spend", unit="FLOP")
    spent_flops: int = column(
        "what it spent of it: training steps, fitting a head, features, and pruning by images",
        unit="FLOP",
    )
    steps: int = column("training steps that it took")
    flops_per_step: int | None = column(
        "what a training step costs; empty where it took none", unit="FLOP", positive=True
    )
    learning_rate: float | None = column(
        "the learning rate that won on dev; empty where it took no step"
    )
    seed: int = column("the seed of random weights, of the order of examples and of crops")
    dev: float | None = column("the score on dev, which chose the learning rate")
    dev_test: float | None = column("the score on dev_test, which chose nothing: the result")
    metric: str = column("what the scores are: accuracy, or mAP for several labels an image")
    dev_test_top5: float | None = column(
        "top-5 accuracy on dev_test; empty for mAP and for fewer than five classes"
    )
    params: int = column("parameters of the network with its head")
    forward_flops: int = column("a forward pass of one image", unit="FLOP", positive=True)
    year: int | None = column("the task's year in the stream")
    budget: str = column("the budget as the config names it")
    batch_size: int | None = column(
        "images per batch that won on dev; empty where it took no step", default=None
    )
    image_size: int | None = column("side of the square images", unit="pixel", default=None)
    solver: str | None = column(
        "how a head was fitted to features before any step; empty where none was", default=None
    )
    examples: int | None = column("training images that that head was fitted on", default=None)
    label_smoothing: float | None = column(
        "the label smoothing that won on dev; empty where it took no step", default=None
    )

    id: str
    title: str = ""
    criterion: str | None = None
    reported_step: int | None = None
    dev_top5: float | None = None
    diverged: bool
    notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    own_flops: int | None = None
    start_task: str | None = None
    candidates: Mapping[str, float] = dataclasses.field(default_factory=dict)
    choice_flops: int = 0
    ledger: compute.Ledger
    wall_s: float

    @property
    def computed_flops(self) -> int:
        """FLOPs that no other step computed for it; all of them in records without `own_flops`."""
        return self.ledger.total if self.own_flops is None else self.own_flops


@derived("1 - dev_test", after="metric")
def error(best: TrialRecord, lost: Sequence[TrialRecord]) -> float | None:
    return None if best.dev_test is None else 1 - best.dev_test


@derived("evaluations of the trial that won", unit="FLOP", after="forward_flops")
def validate_flops(best: TrialRecord, lost: Sequence[TrialRecord]) -> int:
    return best.ledger.validate


@derived(
    "training, features and evaluations of the trials that lost, and of a learner's choice of what "
    "they start from; of `auto`, what it looked at",
    unit="FLOP",
    after="validate_flops",
)
def search_flops(best: TrialRecord, lost: Sequence[TrialRecord]) -> int:
    return best.choice_flops + best.ledger.search + sum(searched(trial) for trial in lost)


@derived("features of the images that a head was fitted on, of `spent_flops`", unit="FLOP")
def extract_flops(best: TrialRecord, lost: Sequence[TrialRecord]) -> int:
    return best.ledger.extract


@derived("the id of the trial that won", after="search_flops")
def trial(best: TrialRecord, lost: Sequence[TrialRecord]) -> str:
    return best.id


def searched(trial: TrialRecord | RungRecord) -> int:
    """Returns the FLOPs of a trial that are of the search where it lost."""
    return sum(getattr(trial.ledger, purpose) for purpose in SEARCHED)


def full_method(trial: TrialRecord) -> str:
    """Returns the method's name; of `auto` with what it chose, as `auto: dense@48px+probe`."""
    chosen = trial.notes.get("chosen")
    return f"{trial.method}: {chosen}" if chosen else trial.method


def rank(trial: TrialRecord | RungRecord) -> tuple[bool, float, float, str]:
    """Returns a sort key that puts better trials, or rungs, first; no two are equal.

    Best is the highest `dev`. At a tie none or the smaller learning rate is better, then the
    smaller id. A diverged trial is behind all others.

    Example:
        >>> best_half = sorted(trials, key=rank)[: len(trials) // 2]
    """
    dev = -math.inf if trial.dev is None else trial.dev
    return trial.diverged, -dev, trial.learning_rate or 0.0, trial.id


def winner(trials: Iterable[TrialRecord]) -> TrialRecord:
    """Returns the best of some trials (at least one); see `rank`."""
    return min(trials, key=rank)


def check_trial(given: Mapping[str, Any], where: str) -> None:
    """Raises a UserError where a trial's JSON object lacks a purpose or a score."""
    for purpose in PURPOSES:
        if purpose not in given["ledger"]:
            raise UserError(f"{where} ledger: no field {purpose!r}, expected integer")
    for score in ("dev", "dev_test"):
        value = given[score]
        if not given["diverged"] and (value is None or not math.isfinite(value)):
            raise UserError(
                f"{where}: {score} is {value!r}, expected a finite number since the trial did not "
                "diverge"
            )
