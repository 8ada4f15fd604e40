"""One finetuning on one task: a trial."""

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from ctl_jax import finetune, models, records
from ctl_jax.experiment import build, ensembles, rungs, training
from ctl_jax.experiment.checkpointing import Keeper
from ctl_jax.experiment.jobs import Job
from ctl_jax.experiment.kinds import prune
from ctl_jax.experiment.kinds.look import heads_tried, searched
from ctl_jax.experiment.method_costs import MethodCost
from ctl_jax.experiment.steps import Kind, Output, Step, nearest, register, trained_on
from ctl_jax.experiment.stretches import (
    mean_step,
    new_head,
    padded_outputs,
    plan,
    spent,
    spent_by,
    total_updates,
)
from ctl_jax.experiment.tasks import loaded
from ctl_jax.experiment.workspace import Workspace
from ctl_jax.models.heads import ENSEMBLE
from ctl_jax.trees import Tree

# What a trial's record says of how good it is; null where it diverged, and top-5 accuracy also for
# multi-label tasks and for fewer than five classes.
SCORES = ("dev", "dev_test", "dev_top5", "dev_test_top5")
# Of a trial's inputs: the steps by which a learner chose what it starts from.
CHOSEN_BY = "chosen_by"
# In a record's notes: how much the trained network counts in an ensemble.
_WEIGHT = "ensemble"


def flops(step: Step, workspace: Workspace) -> int:
    """Of all its updates, and of its evaluations; nothing where its start is all that there is."""
    stretches, params = plan(step, workspace), step.params
    if not stretches:
        return 0
    updates = total_updates(stretches)
    counts, forward = params["task"]["examples"], stretches[-1].cost.forward
    begun, every = rungs.begun(step), params["finetune"]["evaluate_every"]
    evaluations = evaluations_between(begun, updates - 1, every) + 1
    forwards = evaluations * counts["dev"] + counts["dev_test"]
    if training.is_ensemble(step):
        forwards += counts["dev"] + counts["dev_test"]
    added = spent_by(stretches, updates) - spent_by(stretches, begun)
    return added + rungs.maps_again(step, stretches) + forward * forwards


def evaluations_between(begun: int, updates: int, every: int) -> int:
    """How many of the updates after the first `begun` are multiples of `every`."""
    return updates // every - begun // every if every else 0


def shapes(step: Step, workspace: Workspace) -> Tree:
    """Those of the network that it starts from, with the task's head."""
    params = step.params
    headed = workspace.headed(step.inputs.get("weights"), new_head(step), params["image_size"])
    outputs = params["task"]["num_classes"]
    one = jax.eval_shape(functools.partial(models.with_head, num_outputs=outputs), headed)
    if training.is_ensemble(step):
        record = workspace.result(step)
        assert isinstance(record, records.TrialRecord)
        if 0 < record.notes[_WEIGHT] < 1:
            return {kind: {**one[kind], ENSEMBLE: one[kind]} for kind in one}
    return one


def run(step: Step, workspace: Workspace, job: Job) -> Output:
    """Finetunes, evaluates on dev and dev_test, and accounts for every FLOP.

    Returns:
      A "task" record, a "train" record every `finetune.log_every` steps, a "dev" record every
      `finetune.evaluate_every`, then the "trial" record: the same after an interruption, but for
      the time it took. The model has the weights that are reported.

    Raises:
      Stopped: the run was told to stop; the trial is saved.
      Lost: another worker has it.
    """
    if not step.params["phases"]:
        return _fitted(step, workspace)
    began, info = time.monotonic(), workspace.tasks[step.params["task"]["name"]]
    task = workspace.loader.load(info.spec, image_size=step.params["image_size"])
    stretches = plan(step, workspace)
    evaluate, logits = training.evaluator(step, workspace, task)
    with training.keeper_of(step, workspace, job, stretches, evaluate) as keeper:
        result, before_s = training.train(step, workspace, task, stretches, keeper)
        dev_flops, test_flops = (
            stretches[-1].cost.forward * len(task.splits[name]) for name in ("dev", "dev_test")
        )
        ledger = training.charged(step, workspace, stretches, result.steps) + searched(
            step, workspace
        )
        ledger = ledger.add("validate", len(keeper.dev) * dev_flops)
        scores: dict[str, Any] = dict.fromkeys(SCORES)
        reported_step, variables = result.steps, result.variables
        if not result.diverged:
            reported_step, scores, variables = _scores(evaluate, result, keeper)
            ledger = ledger.add("validate", dev_flops + test_flops)
        about = describe(step, workspace)
        if training.is_ensemble(step) and not result.diverged:
            start = workspace.variables(step.inputs.get("weights"))
            start = models.resize_head(start, padded_outputs(task.num_classes))
            found = ensembles.averaged(start, variables, logits)
            variables, scores = found.variables, _both(found.dev, found.dev_test)
            ledger = ledger.add("validate", dev_flops + test_flops)
            about["notes"] = {**about["notes"], _WEIGHT: found.weight}
            members = 2 if 0 < found.weight < 1 else 1
            about |= {name: members * about[name] for name in ("params", "forward_flops")}
    own = spent_by(stretches, result.steps) + ledger.validate
    own += rungs.maps_again(step, stretches) - rungs.before(step, stretches, keeper, dev_flops)
    trial = records.TrialRecord(
        **about,
        steps=result.steps,
        reported_step=reported_step,
        spent_flops=spent(ledger),
        own_flops=own,
        **scores,
        diverged=result.diverged,
        # What a search spent on rungs is no part of the trial's budget.
        ledger=ledger.add("search", rungs.searched(step, stretches)),
        wall_s=before_s + time.monotonic() - began,
    )
    lines: list[records.Record] = [
        records.TaskRecord(**loaded(task)),
        *(training.train_record(step, stretches, entry) for entry in result.history),
        *(training.dev_record(step, stretches, dev) for dev in keeper.dev),
        trial,
    ]
    multi_label = task.splits["train"].labels.ndim == 2
    return Output(lines, _model(step, workspace, variables, multi_label))


def _fitted(step: Step, workspace: Workspace) -> Output:
    """A trial that makes no update: its start is all that there is of it."""
    start = step.inputs["weights"]
    head: Any = workspace.result(start)
    examples = step.params["task"]["examples"]
    # By a whole forward pass, as for those that are trained.
    forward = head_cost(step, workspace).forward
    ledger = workspace.charge(start, step.params["task"]["name"], done=True)
    ledger += searched(step, workspace)
    ledger = ledger.add("validate", forward * (examples["dev"] + examples["dev_test"]))
    trial = records.TrialRecord(
        **describe(step, workspace),
        steps=0,
        reported_step=0,
        spent_flops=spent(ledger),
        own_flops=0,
        **{name: getattr(head, name) for name in SCORES},
        diverged=False,
        ledger=ledger,
        wall_s=head.wall_s,
    )
    # Read here, where what is damaged is made again.
    variables = workspace.variables(start)
    return Output([trial], _model(step, workspace, variables, start.params["multi_label"]))


def head_cost(step: Step, workspace: Workspace) -> MethodCost:
    """What the network of a trial costs that makes no update."""
    params, start = step.params, step.inputs["weights"]
    of = start, params["task"]["num_classes"], params["image_size"]
    return MethodCost(None, workspace.forward(*of), workspace.params(*of))


def label(step: Step, workspace: Workspace) -> tuple[str, int]:
    """What a progress bar says, and how many updates there are."""
    title = workspace.tasks[step.params["task"]["name"]].spec.title
    updates = total_updates(plan(step, workspace))
    return f"{title}, {step.params['method']}", updates


def describe(step: Step, workspace: Workspace) -> dict[str, Any]:
    """What a trial's record says of it beforehand."""
    params, spec = step.params, workspace.tasks[step.params["task"]["name"]].spec
    stretches = plan(step, workspace)
    cut, adapted = nearest(step, "prune"), nearest(step, "adapt")
    of_cut = {} if cut is None else cut.params
    cost = stretches[-1].cost if stretches else head_cost(step, workspace)
    head = step.inputs.get("weights")
    # Not on a task before it, whose network it starts from.
    trained = bool(stretches) or (
        adapted is not None and adapted.params["task"]["name"] == spec.name
    )
    fitted: Mapping[str, Any] = {}
    notes: Mapping[str, Any] = {}
    if head is not None and head.kind == "head":
        record = workspace.result(head)
        assert isinstance(record, records.HeadRecord)
        fitted, notes = head.params, record.notes
    if "auto" in params:
        notes = {**notes, **heads_tried(step)}
    return {
        "id": step.id,
        "variant": workspace.config.stream.variant,
        "task": spec.name,
        "title": spec.title,
        "dataset": spec.dataset,
        "domain": spec.domain,
        "year": spec.year,
        "method": params["method"],
        "scope": of_cut.get("scope"),
        "ratio": of_cut.get("ratio"),
        "criterion": of_cut.get("criterion"),
        "budget": params["budget"],
        "budget_flops": params["budget_flops"],
        "learning_rate": params["learning_rate"] if trained else None,
        "batch_size": params["finetune"]["batch_size"] if trained else None,
        "label_smoothing": params["finetune"].get("label_smoothing", 0.0) if trained else None,
        "image_size": params["image_size"],
        "solver": fitted.get("solver"),
        "examples": fitted.get("images"),
        "notes": notes,
        **_choice(step, workspace),
        "seed": params["seed"],
        "flops_per_step": mean_step(stretches) if stretches else None,
        "forward_flops": cost.forward,
        "params": cost.params,
        "metric": spec.metric,
    }


def _choice(step: Step, workspace: Workspace) -> dict[str, Any]:
    """What a trial's record says of what it started from, and of how that was chosen."""
    task, scores, spent_on_it = step.params["task"]["name"], dict[str, float](), 0
    for name, look in step.inputs.items():
        if name.startswith(f"{CHOSEN_BY}/"):
            record = workspace.result(look)
            assert isinstance(record, records.NeighboursRecord)
            scores[record.source or ""] = record.dev
            spent_on_it += record.flops
    return {
        "start_task": trained_on(step.inputs.get("weights"), but=task),
        "candidates": scores,
        "choice_flops": spent_on_it,
    }


def _scores(
    evaluate: training.Evaluate, result: finetune.FitResult, keeper: Keeper
) -> tuple[int, dict[str, Any], Tree]:
    """Which step's weights a trial reports, their `SCORES`, and they: of equal ones the earlier."""
    last = evaluate("dev", result.variables)
    step, dev, top5, variables = result.steps, last.value, last.top5, result.variables
    if keeper.best is not None and keeper.best.dev.value >= dev:
        (step, dev, top5), variables = keeper.best
    test = evaluate("dev_test", variables)
    scores = dict(zip(SCORES, (dev, test.value, top5, test.top5), strict=True))
    return step, scores, variables


def _both(dev: finetune.Scores, test: finetune.Scores) -> dict[str, Any]:
    """The `SCORES` of a trial."""
    return dict(zip(SCORES, (dev.value, test.value, dev.top5, test.top5), strict=True))


def _model(
    step: Step, workspace: Workspace, variables: Tree, multi_label: bool
) -> Callable[[], models.Model]:
    """The network with those outputs alone that the task has."""
    params, name = step.params, step.params["task"]["name"]

    def make() -> models.Model:
        # Of a group, one process alone comes here, and reads the folder.
        keep = prune.of_whole(step, workspace)
        return build.as_model(
            workspace.network,
            variables,
            params["image_size"],
            params["finetune"]["compute_dtype"],
            classes=workspace.tasks[name].class_names,
            num_outputs=params["task"]["num_classes"],
            keep="" if keep is None else keep.to_json(),
            multi_label=multi_label,
            notes={"step": step.id, "task": name, "method": params["method"]},
        )

    return make


register("finetune", Kind(5, flops, run, shapes, label=label))
