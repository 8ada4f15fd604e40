"""A run small enough for a test: two synthetic tasks, a tiny network, saved weights."""

import dataclasses
import functools
import io
import pathlib

import jax
import numpy as np
import pytest
import rich.console

from ctl_jax import data, experiment, finetune, models
from ctl_jax.data.task import fingerprint
from ctl_jax.experiment import parse_method, workspace
from ctl_jax.experiment.config import budgets, validate
from ctl_jax.experiment.jobs import Job
from ctl_jax.experiment.method_costs import cost_by_classes
from ctl_jax.experiment.plan import Plan
from ctl_jax.experiment.plan import make_plan as plan_of
from ctl_jax.experiment.steps import KINDS, Output, Step
from ctl_jax.experiment.store import Store
from ctl_jax.experiment.tasks import TaskInfo, TaskLoader
from ctl_jax.experiment.workspace import Workspace

from .undrawn import fake_figures

_counted = {}


@pytest.fixture(scope="module", autouse=True)
def _costs_are_counted_once():
    """For all tests: counting what a network costs is a quarter of the time of a small run."""

    def counted(module, recipe, variables, **sizes):
        leaves, structure = jax.tree.flatten(variables)
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        key = module, recipe, structure, shapes, tuple(sizes.items())
        if key not in _counted:
            _counted[key] = cost_by_classes(module, recipe, variables, **sizes)
        return _counted[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workspace, "cost_by_classes", counted)
        yield


@pytest.fixture(scope="module")
def without_figures():
    """See `fake_figures`."""
    with pytest.MonkeyPatch.context() as patch:
        fake_figures(patch.setattr)
        yield


@pytest.fixture
def console():
    """Keeps what a run prints: `console.file.getvalue()`."""
    return rich.console.Console(file=io.StringIO(), width=140)


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> pathlib.Path:
    """Random weights of the small network, as a checkpoint."""
    path = tmp_path_factory.mktemp("weights") / "checkpoint"
    config = _network(experiment.default_config())
    module = models.create("resnet18", num_outputs=1, stages=(1, 1), width=8)
    models.save_checkpoint(path, models.init(module, jax.random.key(1), config.data.image_size))
    return path


@pytest.fixture
def config(weights):
    """2 tasks x 3 methods x 2 budgets x 1 seed x 2 learning rates = 24 trials."""
    return _config(weights)


@pytest.fixture(scope="module")
def shared_config(weights):
    """The same for a run that several tests look at, none of which may change it."""
    return _config(weights)


def _config(weights):
    config = _network(experiment.default_config())
    config.stream.variant = "digits+shapes"
    config.data.max_eval_examples = 40
    config.weights = str(weights)
    config.methods = ("dense", "filters@0.5", "scratch")
    config.budgets.min_flops = 4e7
    config.budgets.max_flops = 1.2e8
    config.budgets.num = 2
    config.finetune.batch_size = 8
    config.finetune.learning_rates = (0.02, 0.2)
    config.finetune.log_every = 4
    return config


@pytest.fixture(scope="session")
def on_digits(weights):
    """A config of a tiny pretrained network on one task; what is asked of it is left to say."""
    config = experiment.default_config()
    config.stream.variant = "digits"
    config.data.image_size, config.data.max_eval_examples = 16, 40
    config.model.name, config.model.stages, config.model.width = "resnet18", (1, 1), 8
    config.pruning.round_to = 1
    config.weights = str(weights)
    config.finetune.batch_size = 8
    return config


def _network(config):
    config.data.image_size = 16
    config.model.name = "resnet18"
    config.model.stages = (1, 1)
    config.model.width = 8
    config.pruning.round_to = 1
    return config


@pytest.fixture
def small_source(monkeypatch):
    """Pretraining on digits: the source task that there is takes half a minute to make."""
    monkeypatch.setattr(data, "source_spec", lambda name: data.stream("digits")[0])


@pytest.fixture
def thirds():
    """Makes a task of a kind."""
    return _thirds


def _thirds(kind):
    """Bright and dark thirds of an image; each is a label, or their number in binary a class."""
    rng = np.random.default_rng(0)
    spec = data.TaskSpec("thirds", "Thirds", "thirds", "tfds", "object", kind, 2015)
    splits = {}
    for name in data.SPLITS:
        bright = rng.integers(0, 2, (40, 6)).astype(np.uint8)
        rows = np.repeat(bright, 3, axis=1)[:, :16]
        images = 170 * rows[:, :, None, None] + rng.integers(0, 50, (40, 16, 16, 3))
        labels = bright if kind == "multi_label" else bright[:, :5].sum(axis=1).astype(np.int32)
        splits[name] = data.Split(images.astype(np.uint8), labels)
    return data.Task(spec, 6, splits, fingerprint(6, splits))


@pytest.fixture
def make_plan():
    """The plan of a config, of a run whose folder is not there."""

    def make(config):
        checked = validate(config)
        workspace = Workspace(checked, TaskLoader(checked.data), Store("nowhere", {}), pytest.fail)
        return plan_of(workspace)

    return make


# Compiled once for all tests.
_make_step = functools.cache(finetune.make_step)


@dataclasses.dataclass(frozen=True)
class Trial:
    """A step that can be run without a run's folder."""

    step: Step
    workspace: Workspace
    task: data.Task

    def run(self, scratch=None) -> Output:
        """What it gives; it goes on from the checkpoints that are in `scratch`."""
        return KINDS[self.step.kind].run(self.step, self.workspace, Job(self.step, None, scratch))

    def with_(self, **params) -> "Trial":
        """The same with other parameters."""
        step = dataclasses.replace(self.step, params={**self.step.params, **params})
        return dataclasses.replace(self, step=step)


class _Loader:
    """Of one task that is not on disk."""

    def __init__(self, task):
        self.load = lambda spec, **options: task


@pytest.fixture
def one_trial(config, console):
    """The last trial on a task, by the run's last method; from scratch if there are no weights."""
    config.methods = ("scratch",)
    config.weights = ""

    def make(task):
        checked = validate(config)
        store = Store("nowhere", {})
        workspace = Workspace(checked, _Loader(task), store, pytest.fail)
        workspace.compiled = functools.partial(_make_step, workspace.module)
        examples = {name: len(split) for name, split in task.splits.items()}
        info = TaskInfo(task.spec, task.num_classes, examples, task.fingerprint)
        workspace.tasks[task.spec.name] = info
        methods = {name: parse_method(name) for name in checked.methods}
        plan = Plan(workspace, (info,), (), methods, budgets(checked.budgets), None, None)
        return Trial(plan.trial(plan.points()[-1]), workspace, task)

    return make
