"""What `auto` tried, what it chose, and what it expects of more compute: facts, and a paragraph."""

import dataclasses
import math
import statistics
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ctl_jax import formatting, records
from ctl_jax.records import HeadOption, HeadRecord, LookedAt, LookRecord, RunTask, TrialRecord
from ctl_jax.report._budgets import labels
from ctl_jax.report._table import Table, place
from ctl_jax.report.aggregate import metric

# What has to be said wherever expected scores are shown.
CAVEAT = (
    "Expected scores come from other tasks and what was seen of this one: they rank networks, and "
    "may all be too high or too low; what counts is the measured score."
)
# The share of what may be that intervals of expected scores hold, and how far they reach.
LEVEL = 0.8
_REACH = statistics.NormalDist().inv_cdf((1 + LEVEL) / 2)
# Of more tasks each has a line in the terminal, not a paragraph.
_FEW = 5
_WIDTH = 80


class Look(NamedTuple):
    """A look at a network.

    Attributes:
      method: the network's name.
      images: whose features there were then.
      flops: what the look took: the features that were not there yet, and fits.
      entropies: of the network, and of its first stages where heads were fitted on those, too:
        the cross-entropy on images that were left out of the fit, as a share of that of a
        guess that knows how frequent each class is.
    """

    method: str
    images: int
    flops: int
    entropies: Mapping[str, float]


class Head(NamedTuple):
    """A head that was fitted at last.

    Attributes:
      method: the full name of the method that it makes.
      entropy: its cross-entropy on images that were left out of the fit, in nats; None where
        there is no record of it.
    """

    method: str
    entropy: float | None


class Gain(NamedTuple):
    """What ten times the budget is expected to add to a score, with its interval."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Choice:
    """What `auto` did on a task.

    Attributes:
      task: the task.
      trial: what came of it: the best of its trials on dev.
      last: its last look.
      looks: all looks that computed something, first to last.
      heads: those that were fitted at last.
      is_finished: whether nothing of it is left to do; else the trial is the best so far.
      gain: of what is finished.
    """

    task: RunTask
    trial: TrialRecord
    last: LookRecord
    looks: Sequence[Look]
    heads: Sequence[Head]
    is_finished: bool
    gain: Gain | None

    @property
    def method(self) -> str:
        """The full name of the method that was chosen."""
        return str(self.trial.notes["chosen"])

    @property
    def network(self) -> str:
        """The name of the network that was chosen."""
        network, plus, _ = self.method.partition("+")
        # A probe of the whole network is known by that name alone.
        return network if plus else "dense"

    @property
    def metric(self) -> str:
        """Name of the score."""
        return metric(self.task)

    def is_seen(self, option: HeadOption) -> bool:
        """Whether there was a look at an option's network, perhaps within a deeper one."""
        return any(option.method in look.entropies for look in self.looks)


def of_table(table: Table) -> list[Choice]:
    """What `auto` did on each task, in the run's order; of several budgets at the best."""
    chains = _chains(table)
    if not chains:
        return []
    heads = {each.id: each for each in table.prepared if isinstance(each, HeadRecord)}
    pending, found = {place(each) for each in table.pending}, []
    for task in table.tasks:
        trials = {
            trial.id: where
            for trial in table.trials
            if trial.task == task.name
            and "chosen" in trial.notes
            and (where := (trial.task, trial.budget_flops, trial.seed)) in chains
        }
        if trials:
            trial = records.winner(trial for trial in table.trials if trial.id in trials)
            is_finished = place(trial) not in pending
            found.append(_choice(task, trial, chains[trials[trial.id]], heads, is_finished))
    return found


def _chains(table: Table) -> dict[tuple[str, int, int], list[LookRecord]]:
    """Looks by task, budget and seed, first to last."""
    chains: dict[tuple[str, int, int], list[LookRecord]] = {}
    looks = [each for each in table.prepared if isinstance(each, LookRecord)]
    for record in sorted(looks, key=lambda record: (len(record.looks), len(record.paced))):
        key = (record.task, record.budget_flops, record.seed)
        chains.setdefault(key, []).append(record)
    return chains


def _choice(
    task: RunTask,
    trial: TrialRecord,
    chain: Sequence[LookRecord],
    heads: Mapping[str, HeadRecord],
    is_finished: bool,
) -> Choice:
    last = chain[-1]
    spent = {len(record.looks): record.spent_flops for record in chain}
    looks = [
        Look(
            look.method,
            look.images,
            spent[number] - spent.get(number - 1, 0),
            _entropies(look),
        )
        for number, look in enumerate(last.looks, start=1)
        if number in spent
    ]
    tried = trial.notes.get("heads", {})
    entropies = {
        name: heads[id].notes.get("cross_entropy") for name, id in tried.items() if id in heads
    }
    fitted = [Head(name, entropies.get(name)) for name in tried]
    gain = _gain(task, trial, last) if is_finished else None
    return Choice(task, trial, last, looks, fitted, is_finished, gain)


def _entropies(look: LookedAt) -> dict[str, float]:
    """The cross-entropies by network, each of the head that was fitted on the most images."""
    by_images = sorted(zip(look.fitted, look.of, look.scores, strict=True))
    return {network: math.exp(-score) for _, network, score in by_images}


def _gain(task: RunTask, trial: TrialRecord, last: LookRecord) -> Gain | None:
    if trial.dev is None:
        return None
    # As if there were one more image, half right: that of a score of 1 is finite, too.
    images = task.dev_examples or 1
    share = (trial.dev * images + 0.5) / (images + 1)
    logit = math.log(share / (1 - share))
    middle, reach = last.tenfold_logit, _REACH * last.tenfold_deviation
    ends = (_sigmoid(logit + change) - share for change in (middle, middle - reach, middle + reach))
    return Gain(*ends)


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def expected(option: HeadOption) -> tuple[float, float]:
    """Both ends of the interval of an option's expected score."""
    reach = _REACH * option.deviation
    return _sigmoid(option.logit - reach), _sigmoid(option.logit + reach)


def paragraph(choice: Choice) -> str:
    """What was tried, chosen and is expected of ten times the budget, in sentences."""
    sentences = [
        _looked(choice),
        _weighed(choice),
        _fitted(choice),
        _scored(choice),
        outlook(choice),
    ]
    budget = labels([choice.trial.budget])[0]
    return f"{choice.task.title}, {budget}: " + " ".join(filter(None, sentences))


def _looked(choice: Choice) -> str:
    if not choice.looks:
        return "auto looked at no network on the way."
    parts = [
        f"at {look.method} on {look.images:,} images ({formatting.flops(look.flops)}, "
        f"{100 * look.flops / choice.last.budget_flops:.0f}% of the budget; cross-entropy on "
        f"left-out images {_of_guess(look)})"
        for look in choice.looks
    ]
    return f"auto looked {', then '.join(parts)}."


def _of_guess(look: Look) -> str:
    said = f"{look.entropies[look.method]:.2f} of a guess's"
    inside = [
        f"{share:.2f} of {name}" for name, share in look.entropies.items() if name != look.method
    ]
    return f"{said}, {', '.join(inside)}" if inside else said


def _weighed(choice: Choice) -> str:
    options = choice.last.options
    if not options:
        return ""
    shown = [f"{option.method} ({formatting.metric(option.accuracy)})" for option in options]
    if len(options) == 1:
        return f"The budget pays for one network alone, {shown[0]}."
    said = f"Of the {len(options)} networks that it could afford it expected most of {shown[0]}, "
    said += f"next of {shown[1]}"
    begun = [n for n, option in enumerate(options) if option.method == _first(choice)]
    if begun and begun[0] > 0:
        said += f", and stayed with {shown[begun[0]]}, which was begun and hardly worse"
    return f"{said}."


def _first(choice: Choice) -> str:
    """The network of the head that was planned first."""
    return choice.last.answers[0].method if choice.last.answers else ""


def _fitted(choice: Choice) -> str:
    trial, last, heads = choice.trial, choice.last, {head.method: head for head in choice.heads}
    if not choice.is_finished:
        return f"It is not finished: {_next(last)}; so far it has {choice.method}."
    chosen = _with_entropy(heads[choice.method]) if choice.method in heads else choice.method
    others = [_with_entropy(head) for name, head in heads.items() if name != choice.method]
    images = trial.examples or last.answers[0].images
    all_of = "all " if images == choice.task.train_examples else ""
    said = f"It fitted {_count(len(heads))} on {all_of}{images:,} images"
    if last.trains:
        said += f" ({', '.join(map(_with_entropy, choice.heads))})"
        said += ", trained the whole network with what was left"
        if (dev := trial.notes.get("trained")) is not None:
            said += f" ({formatting.metric(dev)} on dev)"
        said += ", and took "
        return f"{said}{choice.method}, the better by dev."
    if others:
        said += f", and took {chosen}, better on left-out images than {', '.join(others)}"
    else:
        said += f": {choice.method}"
    return f"{said}."


def _next(last: LookRecord) -> str:
    if last.next_method is not None:
        return f"next it looks at {last.next_method} on {last.next_images:,} images"
    heads = f"it fits {_count(len(last.answers))}"
    return f"{heads}, and trains the whole network with what is left" if last.trains else heads


def _count(heads: int) -> str:
    return "one head" if heads == 1 else f"{heads} heads"


def _with_entropy(head: Head) -> str:
    return head.method if head.entropy is None else f"{head.method} ({head.entropy:.3f} nats)"


def _scored(choice: Choice) -> str:
    trial = choice.trial
    said = f"All in all that took {formatting.flops(trial.spent_flops)}"
    if trial.dev is None or trial.dev_test is None:
        return f"{said}, and diverged."
    return (
        f"{said} and gave {trial.metric} {formatting.metric(trial.dev)} on dev and "
        f"{formatting.metric(trial.dev_test)} on dev_test{_interval(choice)}."
    )


def _interval(choice: Choice) -> str:
    """Of an accuracy on dev_test, Wilson's."""
    import scipy.stats

    images, score = choice.task.dev_test_examples, choice.trial.dev_test
    if not images or score is None or choice.metric != "accuracy":
        return ""
    found = scipy.stats.binomtest(round(score * images), images).proportion_ci(method="wilson")
    return f" (95% interval {found.low:.2f} to {found.high:.2f})"


def outlook(choice: Choice) -> str:
    """What is expected of ten times the budget, a sentence; "" where that is not known."""
    gain, last = choice.gain, choice.last
    if gain is None:
        return ""
    more = f"Ten times the budget (another {formatting.flops(9 * last.budget_flops)})"
    if last.tenfold_logit == last.tenfold_deviation == 0:
        return f"{more} would choose the same head: no gain is expected of it."
    said = f"{more} would give about {_points(gain, choice.metric)}"
    if gain.low <= 0 <= gain.high:
        said += ", so that a gain is not sure"
    return f"{said}."


def _points(gain: Gain, of: str) -> str:
    value, low, high = (f"{100 * each:+.1f}" for each in gain)
    return f"{value} points of {of} ({100 * LEVEL:.0f}% interval {low} to {high})"


def lines(table: Table) -> list[str]:
    """What `auto` did as plain text: a paragraph a task, of many tasks a line each."""
    found = of_table(table)
    if not found:
        return []
    shown = ["", "How auto chose:"]
    if len(found) <= _FEW:
        for choice in found:
            shown += ["", *textwrap.wrap(paragraph(choice), _WIDTH)]
    else:
        shown += ["", *_aligned(found)]
    return [*shown, "", *textwrap.wrap(CAVEAT, _WIDTH)]


def _aligned(found: Sequence[Choice]) -> Iterator[str]:
    """A line a task, below a line that says what stands in them."""
    grid = [("task", "chosen", "images", "dev_test", "ten times the budget")]
    for choice in found:
        examples, gain = choice.trial.examples, choice.gain
        grid.append(
            (
                choice.task.name,
                choice.method,
                "all" if examples is None else f"{examples:,}",
                "-" if choice.trial.dev_test is None else formatting.metric(choice.trial.dev_test),
                "-" if gain is None else _points(gain, choice.metric),
            )
        )
    widths = [max(len(row[column]) for row in grid) for column in range(4)]
    for task, chosen, images, score, gained in grid:
        left = f"{task.ljust(widths[0])}  {chosen.ljust(widths[1])}"
        yield f"{left}  {images.rjust(widths[2])}  {score.rjust(widths[3])}  {gained}"
