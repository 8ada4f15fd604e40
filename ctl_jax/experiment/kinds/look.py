"""A look of `auto` at a task: features of some images, heads on them, and what to do next."""

import functools
import importlib.resources
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ctl_jax import heads, records
from ctl_jax.compute import Ledger
from ctl_jax.experiment.auto import candidates, expectation, policy
from ctl_jax.experiment.jobs import Job
from ctl_jax.experiment.kinds import head
from ctl_jax.experiment.methods import parse_method
from ctl_jax.experiment.steps import (
    Kind,
    Output,
    Step,
    content_id,
    register,
    variables_of_input,
)
from ctl_jax.experiment.workspace import Workspace

# Of a trial's inputs: the last look, and heads that were fitted and not taken.
LOOKED, LOST = "looked", "lost"
# In what it was chosen by: a network that was trained and not taken.
TRAINED = "trained"
# The unit of `About.native`, in pixels.
_UNIT = 64


@functools.cache
def prior() -> expectation.Prior:
    """The prior that comes with the package; made by benchmarks/meta.py."""
    folder = importlib.resources.files("ctl_jax.experiment.auto")
    return expectation.read(folder.joinpath("prior.json").read_text(encoding="utf-8"))


@functools.cache
def prior_id() -> str:
    """What tells it from others."""
    return content_id(prior().to_json())


def make(
    budget_flops: int,
    epoch_flops: int,
    found: Sequence[candidates.Candidate],
    wish: head.Wish,
    before: Step | None = None,
    method: str = "",
    images: int = 0,
    paced: Sequence[str] = (),
    fit_slowness: float = 1.0,
) -> Step:
    """The step of a look.

    Args:
      budget_flops: what `auto` may spend on the task, all in all.
      epoch_flops: what an epoch of training the whole network takes of that.
      found: what it chooses from.
      wish: a head on the network that is looked at; of the first look, which computes nothing, on
        any.
      before: the look before this one.
      method: the candidate that is looked at.
      images: how many training images.
      paced: candidates whose speed was measured, where the budget is of time.
      fit_slowness: see `policy.Setting`.
    """
    params: dict[str, Any] = {
        "task": dict(wish.task),
        "multi_label": wish.multi_label,
        "seed": wish.seed,
        "budget_flops": budget_flops,
        "epoch_flops": epoch_flops,
        "candidates": [each.to_json() for each in found],
        "prior": prior_id(),
        "method": method,
        "images": images,
        **wish.network,
    }
    if paced:
        params["paced"] = list(paced)
    if fit_slowness != 1:
        params["fit_slowness"] = fit_slowness
    inputs = {"weights": wish.start} if wish.start else {}
    if before is not None:
        inputs["before"] = before
    if images:
        inputs |= head.shards(wish, "train", images)
    return Step("look", params, inputs)


def flops(step: Step, workspace: Workspace) -> int:
    """Of the fits, at most."""
    params = step.params
    if not params["images"]:
        return 0
    setting = setting_of(step, 1)._replace(fit_slowness=1.0)
    return policy.fit_flops(setting, setting.candidates[params["method"]], params["images"])


def run(step: Step, workspace: Workspace, job: Job) -> Output:
    """Fits heads on the images that there are, and decides.

    Raises:
      DamagedModel: features cannot be read back.
    """
    began, params = time.monotonic(), step.params
    task = workspace.tasks[params["task"]["name"]]
    looks: tuple[records.LookedAt, ...] = ()
    if (earlier := step.inputs.get("before")) is not None:
        before = workspace.result(earlier)
        assert isinstance(before, records.LookRecord)
        looks, native = before.looks, before.native_side
    else:
        # Its images are there then, also of a task that is made on first use.
        workspace.loader.load(task.spec)
        native = workspace.loader.native_side(task.spec)
    if params["images"]:
        looks = (*looks, _look(step, workspace))
    setting, seen = setting_of(step, native), list(map(_seen, looks))
    found = policy.decide(prior(), setting, seen)
    record = records.LookRecord(
        id=step.id,
        task=task.spec.name,
        budget_flops=params["budget_flops"],
        seed=params["seed"],
        native_side=native,
        looks=looks,
        options=tuple(map(_option, found.options)),
        next_method=found.look[0] if found.look else None,
        next_images=found.look[1] if found.look else 0,
        answers=tuple(records.HeadAnswer(**answer._asdict()) for answer in found.answers),
        trains=found.trains,
        tenfold_logit=found.tenfold.logit,
        tenfold_deviation=found.tenfold.deviation,
        paced=tuple(params.get("paced", ())),
        flops=looks[-1].fit_flops if params["images"] else 0,
        spent_flops=spent_on(step, looks, {}),
        wall_s=time.monotonic() - began,
    )
    return Output([record])


def setting_of(step: Step, native: int) -> policy.Setting:
    """What `auto` decides about in a look.

    Args:
      step: of the look.
      native: median short side of the task's images on disk, in pixels.
    """
    params = step.params
    found = map(candidates.from_json, params["candidates"])
    return policy.Setting(
        params["budget_flops"],
        params["task"]["examples"]["train"],
        expectation.About(params["task"]["num_classes"], native / _UNIT),
        params["multi_label"],
        params["epoch_flops"],
        {each.method: each for each in found},
        params.get("fit_slowness", 1.0),
    )


def _look(step: Step, workspace: Workspace) -> records.LookedAt:
    params = step.params
    classes, multi_label = params["task"]["num_classes"], params["multi_label"]
    candidate = setting_of(step, 1).candidates[params["method"]]
    train = head.features(step, workspace, "train")
    scores, spent, wanted = [], 0, policy.fits(candidate, params["images"], classes)
    for name, images in wanted:
        columns = slice(*candidate.inside.get(name, (None,)))
        shards = [
            heads.Shard(shard.features[:, columns], shard.labels)
            for shard in head.first(train, images)
        ]
        fitted = heads.fit(
            policy.SOLVERS[False], shards, classes, multi_label=multi_label, seed=params["seed"]
        )
        spent += fitted.flops
        labels = np.concatenate([shard.labels for shard in shards])
        crossed = float(fitted.notes["cross_entropy"])
        scores.append(expectation.entropy(label_entropy(labels, classes), crossed))
    return records.LookedAt(
        method=params["method"],
        images=params["images"],
        of=tuple(name for name, _ in wanted),
        fitted=tuple(images for _, images in wanted),
        scores=tuple(scores),
        fit_flops=spent,
    )


def label_entropy(labels: np.ndarray, classes: int) -> float:
    """The entropy of the labels' frequencies in nats; of several labels the mean of theirs.

    Args:
      labels: int [n], or 0 and 1 [n, K].
      classes: K.
    """
    if labels.ndim == 1:
        # As if there were one more image, of all classes: no class is impossible.
        share = (np.bincount(labels, minlength=classes) + 1 / classes) / (len(labels) + 1)
        return float(-(share * np.log(share)).sum())
    share = (labels.sum(0, dtype=np.int64) + 0.5) / (len(labels) + 1)
    return float(-(share * np.log(share) + (1 - share) * np.log1p(-share)).mean())


def _seen(look: records.LookedAt) -> policy.Look:
    scores = list(zip(look.of, look.fitted, look.scores, strict=True))
    return policy.Look(look.method, look.images, scores, look.fit_flops)


def _option(option: policy.Option) -> records.HeadOption:
    return records.HeadOption(
        method=option.candidate.method,
        solver=policy.SOLVERS[option.kernel],
        images=option.images,
        accuracy=option.expected.accuracy,
        logit=option.expected.logit,
        deviation=option.expected.deviation,
        flops=option.flops,
    )


def searched(trial: Step, workspace: Workspace) -> Ledger:
    """What a trial of `auto` spent besides what it rests on."""
    last, chosen = trial.inputs.get(LOOKED), trial.params.get("auto")
    if last is None or chosen is None:
        return Ledger()
    answers = chosen["answers"]
    taken = "", 0
    if chosen["best"] is not None:
        best = workspace.result(trial.inputs["weights"])
        assert isinstance(best, records.HeadRecord)
        taken = answers[chosen["best"]]["method"], best.examples
    heads_lost = {
        int(name.removeprefix(f"{LOST}/")): workspace.result(step)
        for name, step in trial.inputs.items()
        if name.startswith(f"{LOST}/")
    }
    lost = {n: record for n, record in heads_lost.items() if isinstance(record, records.HeadRecord)}
    last_record = workspace.result(last)
    assert isinstance(last_record, records.LookRecord)
    images = {answers[n]["method"]: record.examples for n, record in lost.items()}
    flops = spent_on(last, last_record.looks, images, taken)
    found = Ledger(search=flops + sum(record.flops for record in lost.values()))
    if (trained := chosen.get(TRAINED)) is not None:
        found += Ledger(search=trained["train"], validate=trained["validate"])
    return found


def spent_on(
    last: Step,
    looks: Sequence[records.LookedAt],
    lost: Mapping[str, int],
    taken: tuple[str, int] = ("", 0),
    *,
    cost: Callable[[candidates.Candidate, int, int], int] = candidates.Candidate.flops,
) -> int:
    """FLOPs of features that were computed, and of fits for looks.

    Args:
      last: the last look.
      looks: all.
      lost: networks whose heads were fitted and not taken, and the numbers of their images.
      taken: the network whose features count elsewhere, and of how many images.
      cost: of a candidate's features: `Candidate.price`, for what it takes of the budget.
    """
    known = {each["method"]: candidates.from_json(each) for each in last.params["candidates"]}
    images = dict(lost)
    for each in looks:
        images[each.method] = max(each.images, images.get(each.method, 0))
    there = dict([taken])
    features = (cost(known[name], n, there.get(name, 0)) for name, n in images.items())
    return sum(features) + sum(each.fit_flops for each in looks)


def heads_tried(trial: Step) -> dict[str, Any]:
    """What the notes of a trial of `auto` say: which method it is, and the heads it was among.

    Returns:
      "chosen", the method's name, "heads", the ids of heads by the methods that they make, and
      "trained", what a network that was trained and not taken came to on dev.
    """
    answers, best = trial.params["auto"]["answers"], trial.params["auto"]["best"]
    names = [parse_method(f"{each['method']}+probe@{each['solver']}").name for each in answers]
    steps = [trial.inputs["weights" if n == best else f"{LOST}/{n}"] for n in range(len(answers))]
    heads = {name: step.id for name, step in zip(names, steps, strict=True)}
    trained = trial.params["auto"].get(TRAINED)
    of_trained = {TRAINED: trained["dev"]} if trained else {}
    return {"chosen": "dense" if best is None else names[best], "heads": heads, **of_trained}


# What `policy` decides stands in its records: a change there raises the version, too.
register("look", Kind(1, flops, run, restore=variables_of_input))
