"""The steps of `auto`, named one after the other by what is finished."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from ctl_jax import records
from ctl_jax.compute import Budget
from ctl_jax.errors import UserError
from ctl_jax.experiment import stretches, tunings
from ctl_jax.experiment.auto import candidates, policy
from ctl_jax.experiment.auto.candidates import Candidate
from ctl_jax.experiment.config import Config
from ctl_jax.experiment.kept_models import TRIAL, is_so_far
from ctl_jax.experiment.kinds import head, look
from ctl_jax.experiment.methods import Method, parse_method
from ctl_jax.experiment.steps import Finished, Step
from ctl_jax.experiment.strategies import Point
from ctl_jax.experiment.tasks import TaskInfo
from ctl_jax.finetune.step import MAX_STEPS

# FLOPs that take long enough for a model of what is best so far: seconds of a CPU core.
_LONG = 5 * 10**11
# Of a trial's inputs: what measured the budget; with a name behind it, another speed.
PACE = "pace"
_FITS, _TRAINING = "fits", "training"
# Of so many networks that are expected to be best the speed is measured, each for itself.
_PACED = 3


class Plan(candidates.Costs, Protocol):
    """What is asked of a run's plan."""

    def wish(self, point: Point, budget_flops: int) -> head.Wish:
        """A head of a point's method, on what its network is after a cut and its correction."""

    def answer(
        self, point: Point, budget_flops: int, inputs: Mapping[str, Step], chosen: Mapping[str, Any]
    ) -> Step:
        """The trial of `auto`, whose point has the method that was chosen."""

    def candidates(self) -> Sequence[Candidate]:
        """Those of the run."""

    def epoch_flops(self, task: TaskInfo) -> int:
        """Of an epoch of training the whole network."""

    def batch_size(self, task: TaskInfo) -> int:
        """Of training the whole network."""

    def pace(self, point: Point, weights: Step | None, *, of_heads: bool = False) -> Step:
        """The step that measures how fast a point's method is, or fits of heads are."""

    def named(self, budget: Budget, end: int) -> str:
        """A budget as the config has it."""

    @property
    def origin(self) -> str:
        """What tells plans of one task apart that start it from different networks."""

    @property
    def config(self) -> Config: ...


class Case(NamedTuple):
    """A task that `auto` is to learn.

    Attributes:
      plan: of the run.
      point: where on its axes; its method is `auto`.
      budget_flops: what may be spent, all in all.
      inputs: of the trial: what measured the budget, and networks' speeds.
      slowness: of a FLOP of training the whole network, where the budget is of time; of a FLOP of
        its forward passes it is 1.
      fit_slowness: of a FLOP of fitting heads.
    """

    plan: Plan
    point: Point
    budget_flops: int
    inputs: Mapping[str, Step]
    slowness: float = 1.0
    fit_slowness: float = 1.0

    @property
    def epoch_flops(self) -> int:
        """What an epoch of training the whole network takes of the budget."""
        return round(self.slowness * self.plan.epoch_flops(self.point.task))


def steps(case: Case, finished: Finished | None) -> list[Step]:
    """The steps that are wanted so far, with what is below them.

    The last one is the trial, once it is known. Before it there may be trials of what is best so
    far, whose models stay as long as it is not done: what an interrupted run has to show.

    Args:
      case: which task.
      finished: what is done; None: nothing is.

    Raises:
      UserError: the budget pays for no head, or for more steps than can be made.
    """
    found = _of_task(case)
    step = _look(case, found, None, found[0].method, 0)
    if PACE not in case.inputs or finished is None or step not in finished:
        return [*case.inputs.values(), *_after(case, found, step, finished)]
    case, found, timed = _timed(case, found, step, finished)
    if timed.kind == PACE:
        return [*case.inputs.values(), step, timed]
    return [*case.inputs.values(), *_after(case, found, timed, finished)]


def _after(
    case: Case, found: Sequence[Candidate], step: Step, finished: Finished | None
) -> list[Step]:
    """The steps from a first look on."""
    so_far = list[Step]()
    while finished is not None and step in finished:
        record = finished.record(step)
        assert isinstance(record, records.LookRecord)
        if _is_worth_keeping(case, record):
            so_far.append(_so_far(case, step, record))
            if so_far[-1] not in finished:
                return [*_kept(case, so_far), step]
        if record.next_method is None:
            *before, last = _at_last(case, step, record, finished)
            so_far += filter(is_so_far, before)
            others = [each for each in before if not is_so_far(each)]
            is_done = last.kind == TRIAL and last in finished
            return [*(so_far if is_done else _kept(case, so_far)), *others, last]
        step = _look(case, found, step, record.next_method, record.next_images)
    return [*_kept(case, so_far), step]


def _timed(
    case: Case, found: Sequence[Candidate], first: Step, finished: Finished
) -> tuple[Case, list[Candidate], Step]:
    """A case whose budget is of time, with speeds of the networks that matter.

    FLOPs of different networks, and of fits, take different times. Fits are measured, and the
    networks that are expected to be best, until they still are by their own speeds; and training
    is, where the budget pays for it.

    Args:
      case: with the speed of the whole network's forward passes.
      found: the candidates.
      first: the first look.
      finished: with it.

    Returns:
      The case and the candidates, with what is known so far; and the look that decides by it, or
      the step that measures what is to be known before.
    """
    plan, timed, paced = case.plan, {each.method: each for each in found}, [Method().name]
    whole, record = _speed(finished.record(case.inputs[PACE])), finished.record(first)
    assert isinstance(record, records.LookRecord)
    pace = plan.pace(case.point, case.inputs[PACE].inputs.get("weights"), of_heads=True)
    if pace not in finished:
        return case, list(found), pace
    inputs = {**case.inputs, f"{PACE}/{_FITS}": pace}
    case = case._replace(inputs=inputs, fit_slowness=whole / _speed(finished.record(pace)))
    if case.budget_flops >= policy.EPOCHS * case.epoch_flops:
        point = _training(case)
        pace = plan.pace(point, plan.start(point.method))
        if pace not in finished:
            return case, list(found), pace
        inputs = {**case.inputs, f"{PACE}/{_TRAINING}": pace}
        case = case._replace(inputs=inputs, slowness=whole / _speed(finished.record(pace)))
    while True:
        step = _look(case, list(timed.values()), first, found[0].method, 0, paced)
        setting = look.setting_of(step, record.native_side)
        options = policy.decide(look.prior(), setting, ()).options
        names = (option.candidate.method for option in options[:_PACED])
        name = next((name for name in names if name not in paced), None)
        if name is None:
            return case, list(timed.values()), step
        point = case.point._replace(method=_method(name, "ridge"))
        pace = plan.pace(point, plan.start(point.method))
        if pace not in finished:
            return case, list(found), pace
        paced.append(name)
        timed[name] = timed[name]._replace(slowness=whole / _speed(finished.record(pace)))
        case = case._replace(inputs={**case.inputs, f"{PACE}/{name}": pace})


def _speed(record: records.Record) -> float:
    assert isinstance(record, records.PaceRecord)
    return record.flops_per_second


def _of_task(case: Case) -> list[Candidate]:
    """The candidates with what is spent on a task before the first image: corrections of cuts."""
    plan, point = case.plan, case.point

    def make() -> list[Candidate]:
        found = []
        for candidate in plan.candidates():
            start = _wish(case, candidate.method).start
            before = plan.workspace.charge(start, point.task.spec.name, done=False)
            fixed = stretches.spent(before)
            found.append(candidate._replace(fixed_flops=fixed))
        _check(case, look.setting_of(_look(case, found, None, found[0].method, 0), 1))
        return found

    key = ("candidates", point.task.spec.name, point.seed, case.budget_flops)
    return plan.workspace.once(key, make)


def _check(case: Case, setting: policy.Setting) -> None:
    """Raises a UserError where the budget pays for no head, or for more steps than can be made."""
    plan, task, budget = case.plan, case.point.task, case.point.budget
    examples, whose = task.examples["train"], f"FLOPs for {{!r}} on task {task.spec.name!r}"
    if examples < policy.FEWEST:
        raise UserError(
            f"task {task.spec.name!r}: {examples} training images; expected at least "
            f"{policy.FEWEST} for 'auto'"
        )
    least, method = policy.least(setting)
    if least > case.budget_flops:
        raise UserError(
            f"{plan.named(budget, 0)}: expected enough for {policy.FEWEST} images, which cost "
            f"{least:,} {whose.format(method)}"
        )
    step = plan.epoch_flops(task) * plan.batch_size(task) // examples
    if case.budget_flops > MAX_STEPS * step:
        raise UserError(
            f"{plan.named(budget, -1)}: expected at most {MAX_STEPS:,} steps, each of which costs "
            f"{step:,} {whose.format('auto')}"
        )


def _look(
    case: Case,
    found: Sequence[Candidate],
    before: Step | None,
    method: str,
    images: int,
    paced: Sequence[str] = (),
) -> Step:
    speeds = case.slowness, case.fit_slowness, *(each.slowness for each in found)
    key = (case.budget_flops, before and before.id, method, images, speeds, tuple(paced))
    return case.plan.workspace.once(
        ("look", case.point.task.spec.name, case.point.seed, case.plan.origin, *key),
        lambda: look.make(
            case.budget_flops,
            case.epoch_flops,
            found,
            _wish(case, method),
            before,
            method,
            images,
            paced,
            case.fit_slowness,
        ),
    )


def _wish(case: Case, network: str, solver: str = "ridge") -> head.Wish:
    point = case.point._replace(method=_method(network, solver))
    return case.plan.wish(point, case.budget_flops)


def _method(network: str, solver: str) -> Method:
    probe = tunings.parse(network, f"probe@{solver}")
    return dataclasses.replace(parse_method(network), tuning=probe)


def _head(case: Case, answer: records.HeadAnswer) -> Step:
    wish = _wish(case, answer.method, answer.solver)
    return head.make(wish, answer.images, judged_on="left out")


def _is_worth_keeping(case: Case, record: records.LookRecord) -> bool:
    """Whether what is best so far is made a model: it takes little beside what is still to come."""
    left = record.budget_flops - record.spent_flops
    return case.plan.config.keep_models != "none" and bool(record.looks) and left >= _LONG


def _so_far(case: Case, step: Step, record: records.LookRecord) -> Step:
    last = record.looks[-1]
    answer = records.HeadAnswer(method=last.method, solver="ridge", images=last.images)
    return _trial(case, step, [answer], 0, so_far=True)


def _kept(case: Case, trials: Sequence[Step]) -> list[Step]:
    """The trials whose models stay, where any do."""
    if case.plan.config.keep_models == "none":
        return list(trials)
    return [trial.kept() for trial in trials]


def _at_last(case: Case, step: Step, record: records.LookRecord, finished: Finished) -> list[Step]:
    """The heads that are left to fit; once they are, the trial of the best of them.

    Where the whole network is trained, too, that trial comes before the last one.
    """
    fitted = [_head(case, answer) for answer in record.answers]
    if not all(each in finished for each in fitted):
        # Of several workers each may take one.
        return [step, *(each.kept() for each in fitted)]
    results = [_result(finished.record(each)) for each in fitted]
    entropies = [float(each.notes["cross_entropy"]) for each in results]
    best = entropies.index(min(entropies))
    if not record.trains:
        return [_trial(case, step, record.answers, best)]
    before = _trial(case, step, record.answers, best, so_far=True)
    if before not in finished:
        return [step, before]
    lost = {answer.method: answer.images for answer in record.answers}
    looked = sum(each.fit_flops for each in record.looks)
    features = look.spent_on(step, record.looks, lost, cost=Candidate.price) - looked
    fits = looked + sum(each.flops for each in results)
    spent = features + round(case.fit_slowness * fits)
    # In FLOPs of training: the rest has to take the time that is left.
    spent = case.budget_flops - round((case.budget_flops - spent) / case.slowness)
    trained = _trained(case, step, record, fitted, spent)
    if trained not in finished:
        return [before, trained]
    if _is_better(case, finished.record(trained), finished.record(before)):
        return [before, trained]
    came_to = _trial_record(finished.record(trained))
    lost_to = {
        "id": trained.id,
        "train": came_to.ledger.train,
        "validate": came_to.ledger.validate,
        "dev": came_to.dev,
    }
    return [before, trained, _trial(case, step, record.answers, best, trained=lost_to)]


def _training(case: Case) -> Point:
    """Where on the axes the training of the whole network is."""
    settings = case.plan.config.finetune
    rates = sorted(settings.learning_rates)
    return case.point._replace(
        method=Method(),
        learning_rate=rates[len(rates) // 2],
        batch_size=case.plan.batch_size(case.point.task),
        mixup=settings.mixup,
        label_smoothing=settings.label_smoothing,
    )


def _trained(
    case: Case, step: Step, record: records.LookRecord, fitted: Sequence[Step], spent: int
) -> Step:
    """The trial that trains the whole network with what is left."""
    point = _training(case)
    answers = list(map(dataclasses.asdict, record.answers))
    inputs = {**case.inputs, look.LOOKED: step}
    inputs |= {f"{look.LOST}/{number}": each for number, each in enumerate(fitted)}
    if (start := case.plan.start(point.method)) is not None:
        inputs["weights"] = start
    chosen = {"answers": answers, "best": None, "spent": spent}
    return case.plan.answer(point, case.budget_flops, inputs, chosen)


def _trial(
    case: Case,
    step: Step,
    answers: Sequence[records.HeadAnswer],
    best: int,
    *,
    so_far: bool = False,
    trained: Mapping[str, Any] | None = None,
) -> Step:
    """The trial of the best of some heads, which all that was not taken is charged to."""
    fitted = [_head(case, answer) for answer in answers]
    lost = {f"{look.LOST}/{n}": each for n, each in enumerate(fitted) if n != best}
    inputs = {"weights": fitted[best], **case.inputs, look.LOOKED: step, **lost}
    chosen: dict[str, Any] = {"answers": list(map(dataclasses.asdict, answers)), "best": best}
    if so_far:
        chosen["so_far"] = True
    if trained is not None:
        # No input: its model is not needed for this one.
        chosen[look.TRAINED] = dict(trained)
    method = _method(answers[best].method, answers[best].solver)
    point = case.point._replace(method=method)
    return case.plan.answer(point, case.budget_flops, inputs, chosen)


def _result(record: records.Record) -> records.HeadRecord:
    assert isinstance(record, records.HeadRecord)
    return record


def _is_better(case: Case, trained: records.Record, fitted: records.Record) -> bool:
    """Whether a trained network is taken; one that diverged is not."""
    ours, theirs = _trial_record(trained), _trial_record(fitted)
    if ours.dev is None or theirs.dev is None:
        return False
    task = case.point.task
    epochs = ours.steps * case.plan.batch_size(task) / task.examples["train"]
    return policy.is_better(ours.dev, theirs.dev, task.examples["dev"], epochs)


def _trial_record(record: records.Record) -> records.TrialRecord:
    assert isinstance(record, records.TrialRecord)
    return record
