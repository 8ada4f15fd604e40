"""Says how far a run is: what is done, the time that is left, the best so far, who works on what.

    python -m ctl_jax.status runs/quickstart

It reads the run's folder, and changes nothing there.
"""

import sys

from ctl_jax import startup, streams

if __name__ == "__main__":
    # Before the imports below, which look at the environment.
    startup.prepare("ctl_jax.status")

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ctl_jax import experiment, files, formatting, records
from ctl_jax.compute import Budget
from ctl_jax.errors import UserError
from ctl_jax.experiment import steps
from ctl_jax.experiment.finished import Finished
from ctl_jax.experiment.leases import Leases
from ctl_jax.experiment.plan import Plan, make_plan
from ctl_jax.experiment.queue import LEASE_S
from ctl_jax.experiment.steps import KINDS, Step
from ctl_jax.experiment.store import Store
from ctl_jax.experiment.tasks import TaskLoader
from ctl_jax.experiment.workspace import Workspace

_COMMAND = "ctl_jax.status"


class Status(NamedTuple):
    """How far a run is, as far as its strategy has said what it wants.

    Attributes:
      steps: how many are wanted.
      done: how many of them are done.
      flops: of the steps that are wanted.
      left_flops: of those that are not done.
      seconds: what is left takes at the pace of the trials so far, if as many go on; None where no
        trial has been timed or nobody works.
      best: of each task the trial that is best on dev so far, in the run's order.
      work: who works, and on what.
    """

    steps: int
    done: int
    flops: int
    left_flops: int
    seconds: float | None
    best: list[records.TrialRecord]
    work: dict[str, list[str]]


def status(workdir: files.PathLike) -> Status:
    """How far a run is.

    Args:
      workdir: its folder, local or `gs://bucket/path`.

    Raises:
      UserError: there is no run, or its config, data or weights cannot be read here.
    """
    plan = _plan(workdir)
    workspace, store = plan.workspace, plan.workspace.store
    finished = store.finished()
    wanted = steps.closure(plan.strategy(finished))
    left, _ = steps.pending(wanted, finished)
    trials = list(_trials(store, wanted, finished))
    left_flops = sum(map(workspace.flops, left.values()))
    work = _work(plan, left)
    ranked: dict[str, records.TrialRecord] = {}
    for trial in sorted(trials, key=records.rank):
        if not trial.diverged:
            ranked.setdefault(trial.task, trial)
    timed = sum(trial.wall_s for trial in trials)
    pace = sum(trial.computed_flops for trial in trials) / timed * len(work) if timed else 0
    return Status(
        steps=len(wanted),
        done=len(wanted) - len(left),
        flops=sum(map(workspace.flops, wanted.values())),
        left_flops=left_flops,
        seconds=left_flops / pace if pace else None,
        best=[ranked[name] for name in workspace.tasks if name in ranked],
        work=work,
    )


def _plan(workdir: files.PathLike) -> Plan:
    """The run's plan, by the config that it was last used with."""
    folder = files.path(workdir)
    try:
        content = json.loads(files.read_text(folder / "config.json"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"run {folder}: no config.json; expected the --workdir of a run") from None
    except ValueError:
        raise UserError(
            f"run {folder}: config.json is not JSON; the run's command writes it again"
        ) from None
    # An earlier version's config lacks keys that came later.
    whole = experiment.default_config()
    with whole.unlocked(), whole.ignore_type():
        whole.update(_tuples(content))
    config = experiment.validate(whole)
    store = Store(workdir, config.to_dict())
    return make_plan(Workspace(config, TaskLoader(config.data, lambda name: None), store, _ignore))


def _tuples(value: Any) -> Any:
    """A config as it was before JSON made lists of its tuples."""
    if isinstance(value, dict):
        return {key: _tuples(each) for key, each in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _ignore(line: str) -> None:
    """What a worker would warn of, it has warned of."""


def _trials(
    store: Store, wanted: Mapping[str, Step], finished: Finished
) -> Iterator[records.TrialRecord]:
    for step in wanted.values():
        if step in finished:
            for record in store.load(step.id):
                if isinstance(record, records.TrialRecord):
                    yield record


def _work(plan: Plan, left: Mapping[str, Step]) -> dict[str, list[str]]:
    """Who holds leases of what is left, and what of it each does."""
    leases = Leases(plan.workspace.store.leases, LEASE_S)
    found: dict[str, list[str]] = {}
    # Steps may be short: as the folder is now, not as it was before the plan.
    for id, generation in leases.newest().items():
        if id in left and (holder := leases.holder(id, generation)) is not None:
            step = left[id]
            label = KINDS[step.kind].label
            found.setdefault(holder, []).append(
                label(step, plan.workspace)[0] if label else step.kind
            )
    return found


def lines(found: Status) -> Iterator[str]:
    """How far a run is, as plain text."""
    share = 100 * (1 - found.left_flops / found.flops) if found.flops else 100
    said = f"{found.done:,} of {found.steps:,} steps done, {share:.0f}% of "
    said += f"{formatting.flops(found.flops)}"
    if found.left_flops:
        said += f"; {formatting.flops(found.left_flops)} left"
    if found.seconds is not None:
        said += f", about {formatting.duration(found.seconds)} at the pace so far"
    yield f"{said}."
    if found.work:
        yield "At work:"
        yield from (f"  {who}  {'; '.join(what)}" for who, what in found.work.items())
    elif found.left_flops:
        yield "Nobody works on a step at this moment; the run's command goes on."
    if found.best:
        yield "Best on dev so far:"
        width = max(len(trial.task) for trial in found.best)
    for trial in found.best:
        budget = formatting.budgets([Budget.parse(trial.budget)])[0]
        score = formatting.metric(trial.dev)
        yield f"  {trial.task.ljust(width)}  {score}  {records.full_method(trial)}, {budget}"


def main(argv: Sequence[str]) -> int:
    """Says how far the run is that the command line names.

    Returns:
      The exit status: 0; 2 where the input is wrong, which is said in one line.
    """
    return startup.guarded(_COMMAND, lambda: _run(argv))


def _run(argv: Sequence[str]) -> int:
    parser = startup.Parser(
        prog=f"python -m {_COMMAND}",
        description="Says how far a run is that another process works on.",
        allow_abbrev=False,
    )
    parser.add_argument("run", metavar="RUN", help="the --workdir of a run")
    print("\n".join(lines(status(parser.parse_args(argv).run))))
    return 0


if __name__ == "__main__":
    sys.exit(streams.settle(main(sys.argv[1:]), printing=True))
