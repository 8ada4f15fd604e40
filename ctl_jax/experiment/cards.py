"""Cards of a run's best models: card.md in the folder of each."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from ctl_jax import files, formatting, records, report
from ctl_jax.compute import Budget
from ctl_jax.experiment import run_records
from ctl_jax.experiment.plan import Plan
from ctl_jax.finetune import metrics
from ctl_jax.models import card


def write(plan: Plan, lines: Iterable[Mapping[str, Any]], products: Collection[str]) -> None:
    """Writes a card into the folder of each best model that was evaluated and is there.

    Args:
      plan: of the run.
      lines: its records, as JSON objects.
      products: ids of the steps whose models are there.
    """

    def write_one(found: report.Best) -> None:
        folder = plan.workspace.store.model(found.trial.id)
        # What a worker that was killed here left half-written.
        files.sweep(folder)
        files.write_text(folder / "card.md", card.render(facts(plan, found)))

    files.at_once(write_one, [each for each in report.best(lines) if each.trial.id in products])


def facts(plan: Plan, found: report.Best) -> card.Facts:
    """What a card says of a model."""
    task, trial, test = found.task, found.trial, found.test
    network, info = plan.workspace.network, plan.workspace.tasks[task.name]
    counts = {name: info.examples[name] for name in ("train", "dev", "dev_test")}
    return card.Facts(
        task=task.title,
        dataset=task.dataset,
        multi_label=task.kind == "multi_label",
        classes=info.class_names,
        examples={**counts, test.split: test.examples},
        data_notes=formatting.data_notes(task.notes, task.passed_over),
        architecture=network.name,
        options=network.options,
        image_size=trial.image_size or plan.config.data.image_size,
        preprocess=network.preprocess,
        method=records.full_method(trial),
        cut=_cut(found),
        budget=formatting.budgets([Budget.parse(trial.budget)])[0],
        learning_rate=trial.learning_rate,
        seed=trial.seed,
        scores=[
            *_scores(trial, counts),
            card.Score(test.split, test.metric, test.score, test.examples, test.low, test.high),
        ],
        costs=[
            card.Cost("FLOPs an image", "FLOP", test.forward_flops, test.whole_forward_flops),
            card.Cost("parameters", "", test.params, test.whole_params),
            card.Cost(
                f"seconds an image, {test.device}", "s", test.latency_s, test.whole_latency_s
            ),
        ],
        spent=found.spent,
        weights=_weights(plan, trial.method),
        license=str(network.origin.get("license", "")) if plan.config.weights else None,
        device=test.device,
        versions=run_records.versions(),
    )


def _scores(trial: records.TrialRecord, counts: Mapping[str, int]) -> Iterator[card.Score]:
    """On dev, which chose the model, so that no interval holds for it; and on dev_test."""
    if trial.dev is not None:
        yield card.Score("dev", trial.metric, trial.dev, counts["dev"])
    if trial.dev_test is not None:
        interval: tuple[float, ...] = ()
        if trial.metric == "accuracy":
            correct = round(trial.dev_test * counts["dev_test"])
            interval = metrics.accuracy_interval(correct, counts["dev_test"])
        yield card.Score("dev_test", trial.metric, trial.dev_test, counts["dev_test"], *interval)


def _cut(found: report.Best) -> str:
    """What pruning left, a sentence; "" of a whole network."""
    trial, test = found.trial, found.test
    if trial.scope is None:
        return ""
    return (
        f"{trial.ratio:g} of the channels of scope {trial.scope} were dropped by their "
        f"{trial.criterion}; those that are left: {report.widths(test.widths)}"
    )


def _weights(plan: Plan, method: str) -> str:
    """Where the weights that it started from come from; "" of random ones."""
    if not plan.methods[method].pretrained:
        return ""
    if plan.config.weights:
        return plan.config.weights
    assert plan.workspace.source is not None
    steps, title = plan.config.pretrain.steps, plan.workspace.source.spec.title
    return f"trained in this run on {title}, {steps} steps"
