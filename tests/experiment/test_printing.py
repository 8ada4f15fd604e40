"""What a run prints of its tasks and steps."""

import dataclasses

import pytest

from ctl_jax import compute, data, records
from ctl_jax.experiment.config.sections import Stream
from ctl_jax.experiment.printing import outcome, print_loaded, print_plan
from ctl_jax.experiment.steps import Step, closure
from ctl_jax.experiment.tasks import TaskInfo

from .samples import RECORD


class Finished(set):
    """Ids of what is done."""

    def __contains__(self, step):
        return step.id in set(self)


def test_the_plan_names_stream_metrics_and_what_was_left_out(config, make_plan, console):
    config.methods = ("scratch",)
    found = {"notes": ("'train/train' is taken for 'train'",), "passed_over": {"hidden": 1234}}
    examples = dict.fromkeys(data.SPLITS, 7)
    mnist, voc = data.stream("mnist+voc/2007")
    tasks = (
        TaskInfo(mnist, 10, examples, "f"),
        TaskInfo(voc, 20, examples, "f", **found),
    )
    plan = dataclasses.replace(make_plan(config), tasks=tasks, missing=((mnist, "it is gone"),))
    stream = Stream(variant="FULL", ablation="random", num_tasks=2, shuffle="within_year")
    plan.workspace.config = dataclasses.replace(plan.config, stream=stream)
    print_plan(console, plan, {}, Finished())
    printed = console.file.getvalue()
    assert "Tasks of FULL, random, shuffled: within_year" in printed
    lines = {line.split()[1]: line for line in printed.splitlines() if line.startswith("│")}
    assert "accuracy" in lines["mnist"]
    assert "mAP" in lines["voc_2007"]
    assert "Pascal 2007: 'train/train' is taken for 'train'" in printed
    assert "Pascal 2007: files passed over: hidden 1,234" in printed
    assert "MNIST: " not in printed.replace("missing: MNIST: it is gone", "")


def test_the_plan_says_what_is_done_and_what_is_known_of_the_rest(config, make_plan, console):
    config.methods = ("dense", "filters@0.5+lp_ft")
    plan = make_plan(config)
    wanted = closure(plan.strategy(Finished()))
    trials = [step.id for step in wanted.values() if step.kind == "finetune"]
    assert len(trials) == 16
    (cut,) = (step.id for step in wanted.values() if step.kind == "prune")
    print_plan(console, plan, wanted, Finished([cut, *trials[:2]]))
    some = {id: step for id, step in wanted.items() if step.params.get("method") != "dense"}
    print_plan(console, plan, some, Finished())
    whole, part = (
        line for line in console.file.getvalue().splitlines() if line.startswith("Trials: ")
    )
    axes = "2 tasks x 2 methods x 2 budgets x 1 seeds x 2 learning rates"
    assert whole.startswith(f"Trials: 16 = {axes}; 2 done already. In all ")
    assert part.startswith(f"Trials: 8 so far, by the strategy 'grid' over {axes}; 0 done already.")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"batch_sizes": (4, 8)}, "8 = {} x 2 learning rates x 2 batch sizes;"),
        ({"label_smoothings": (0.1, 0.2)}, "8 = {} x 2 learning rates x 2 label smoothings;"),
        (
            {"search": "random", "trials": 3},
            "6 = {} x 3 drawn learning rates and label smoothings;",
        ),
        ({"search": "rule"}, "2 = {}, learning rates by a rule;"),
    ],
)
def test_the_plan_says_what_is_searched(config, make_plan, console, changes, line):
    config.stream.variant, config.methods = "digits", ("dense",)
    config.finetune.update(changes)
    plan = make_plan(config)
    print_plan(console, plan, closure(plan.strategy(Finished())), Finished())
    axes = "1 tasks x 1 methods x 2 budgets x 1 seeds"
    assert f"Trials: {line.format(axes)}" in console.file.getvalue()


def test_a_method_that_makes_no_step_has_one_trial(config, make_plan, console):
    config.stream.variant, config.methods = "digits", ("dense", "probe")
    plan = make_plan(config)
    print_plan(console, plan, closure(plan.strategy(Finished())), Finished())
    whole = "1 tasks x 2 methods x 2 budgets x 1 seeds x 2 learning rates (one trial where no step"
    assert f"Trials: 6 = {whole} is made);" in console.file.getvalue()


def test_the_plan_says_what_was_done_to_the_weights(config, make_plan, console):
    config.methods = ("dense",)
    plan = make_plan(config)
    origin = {"remarks": ["pos_embed has shape (1, 5, 8); it was resized to (1, 17, 8)"]}
    plan.workspace.network = dataclasses.replace(plan.workspace.network, origin=origin)
    print_plan(console, plan, {}, Finished())
    assert f"weights: {origin['remarks'][0]}" in console.file.getvalue()


def test_what_only_decoding_tells(console):
    (spec,) = data.stream("voc/2007")
    known = "'train/train' is taken for 'train'"
    notes = ("the same files are in two splits: 1 of 6 test are in train too",)
    info = TaskInfo(spec, 20, {}, "f", (known,))
    task = data.Task(spec, 20, {}, "f", ("a", "b", "c"), (known, *notes), {"hidden": 1})
    print_loaded(console, info, task)
    lines = ["3 corrupt examples left out", *notes]
    assert console.file.getvalue() == "".join(f"Pascal 2007: {line}\n" for line in lines)


TRIAL = dataclasses.replace(
    RECORD,
    variant="voc/2007",
    task="voc_2007",
    dataset="voc",
    domain="object",
    year=2007,
    budget="2 epochs",
    budget_flops=10**9,
    spent_flops=9 * 10**8,
    metric="mAP",
    dev=0.25,
    dev_test=0.5,
    ledger=compute.Ledger(train=9 * 10**8),
)


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (
            TRIAL,
            "voc_2007 dense 2 epochs lr 0.1 seed 0: 5 steps, mAP dev 0.250, dev_test 0.500, 1.0 s",
        ),
        (
            dataclasses.replace(TRIAL, diverged=True, budget="1000000000 flops"),
            "voc_2007 dense 1 GFLOP lr 0.1 seed 0: diverged after 5 steps",
        ),
        (
            dataclasses.replace(
                TRIAL, steps=0, learning_rate=None, solver="ridge", examples=90, method="probe"
            ),
            "voc_2007 probe 2 epochs seed 0: ridge on 90 images, mAP dev 0.250, dev_test 0.500, "
            "1.0 s",
        ),
        (
            records.PretrainRecord(task="source", steps=3, flops=1, metric=0.5, loss=1.25),
            "pretrained on source: dev accuracy 0.500, loss 1.250",
        ),
        (
            records.PaceRecord(id="", device="cpu", flops_per_second=2e9, flops=1, wall_s=1.0),
            "measured 2 GFLOP a second",
        ),
        (
            records.PruneRecord(id="", cut="all@0.5", keep="{}", groups=2, cut_groups=1, notes=()),
            "",
        ),
    ],
)
def test_the_outcome_of_a_step(record, line):
    assert outcome(record) == line


def test_steps_of_other_kinds_count_no_trials(config, make_plan, console):
    config.methods = ("scratch",)
    step = Step("prune", {"scope": "all", "ratio": 0.5, "criterion": "l2", "round_to": 1})
    print_plan(console, make_plan(config), {step.id: step}, Finished([step.id]))
    assert "Trials: 0 so far" in console.file.getvalue()
    assert "; 0 done already. In all 0 FLOP" in console.file.getvalue()
