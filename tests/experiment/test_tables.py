"""What a run prints of its tasks and trials."""

from ctl_jax import data
from ctl_jax.experiment import default_config
from ctl_jax.experiment.config import validate
from ctl_jax.experiment.plan import Plan
from ctl_jax.experiment.tables import outcome, print_loaded, print_plan
from ctl_jax.experiment.tasks import TaskInfo


def test_the_plan_names_stream_metrics_and_what_was_left_out(console):
    config = default_config()
    config.methods = ("scratch",)
    config.stream.update(
        {"variant": "FULL", "ablation": "random", "num_tasks": 2, "shuffle": "within_year"}
    )
    found = {"notes": ("'train/train' is taken for 'train'",), "passed_over": {"hidden": 1234}}
    examples = dict.fromkeys(data.SPLITS, 7)
    mnist, voc = data.stream("mnist+voc/2007")
    tasks = (
        TaskInfo(mnist, 10, examples, "f"),
        TaskInfo(voc, 20, examples, "f", **found),
    )
    plan = Plan(tasks, (), None, {}, {}, {}, None, None, ())
    print_plan(console, validate(config), plan, done=0)
    printed = console.file.getvalue()
    assert "Tasks of FULL, random, shuffled: within_year" in printed
    lines = {line.split()[1]: line for line in printed.splitlines() if line.startswith("│")}
    assert "accuracy" in lines["mnist"]
    assert "mAP" in lines["voc_2007"]
    assert "Pascal 2007: 'train/train' is taken for 'train'" in printed
    assert "Pascal 2007: files passed over: hidden 1,234" in printed
    assert "MNIST: " not in printed


def test_what_only_decoding_tells(console):
    (spec,) = data.stream("voc/2007")
    notes = ("the same files are in two splits: 1 of 6 test are in train too",)
    print_loaded(console, data.Task(spec, 20, {}, "f", ("a", "b", "c"), notes, {"hidden": 1}))
    lines = ["3 corrupt examples left out", *notes]
    assert console.file.getvalue() == "".join(f"Pascal 2007: {line}\n" for line in lines)


def test_the_outcome_of_a_trial_names_its_metric():
    record = {
        "task": "voc_2007",
        "method": "dense",
        "budget_flops": 10**9,
        "learning_rate": 0.1,
        "seed": 0,
        "steps": 5,
        "metric": "mAP",
        "dev": 0.25,
        "dev_test": 0.5,
        "diverged": False,
        "wall_s": 1.0,
    }
    assert outcome(record).endswith("5 steps, mAP dev 0.250, dev_test 0.500, 1.0 s")
    assert outcome({**record, "diverged": True}).endswith("diverged after 5 steps")
