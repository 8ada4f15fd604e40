"""The hooks that docs/running.md shows, as they stand there, with stand-ins of their services."""

import contextlib
import io
import json
import pathlib
import re
import sys
import types

import pytest
import rich.console

from ctl_jax import experiment
from ctl_jax.finetune import multihost

from ..experiment.undrawn import fake_figures

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "running.md"


class WandB(types.ModuleType):
    """As much of wandb as is used, strict: runs by their ids."""

    def __init__(self):
        super().__init__("wandb")
        self.runs, self.open = {}, []

    @contextlib.contextmanager
    def init(self, *, project, group, name, config, id, resume):
        assert resume == "allow"
        assert len(id) <= 64
        assert not self.open
        run = self.runs.setdefault(id, types.SimpleNamespace(name=name, config=config, points=[]))
        assert (run.name, run.config) == (name, config)
        self.open.append(id)
        run.log = lambda data, step=None: run.points.extend((k, step, data[k]) for k in data)
        try:
            yield run
        finally:
            self.open.clear()


class MLflow(types.ModuleType):
    """As much of mlflow as is used, strict: runs by their tag."""

    def __init__(self):
        super().__init__("mlflow")
        self.runs, self.experiment, self.active = {}, None, None

    def set_experiment(self, name):
        self.experiment = name

    def search_runs(self, *, filter_string, output_format):
        assert output_format == "list"
        (wanted,) = re.fullmatch(r"tags\.training = '(\w+)'", filter_string).groups()
        return [
            types.SimpleNamespace(info=types.SimpleNamespace(run_id=id))
            for id, run in self.runs.items()
            if run.tags["training"] == wanted
        ]

    @contextlib.contextmanager
    def start_run(self, run_id=None, run_name=None, tags=None):
        assert self.active is None
        if run_id is None:
            run_id = f"run{len(self.runs)}"
            self.runs[run_id] = types.SimpleNamespace(name=run_name, config={}, points=[], tags={})
        self.active = self.runs[run_id]
        self.active.tags |= tags
        try:
            yield
        finally:
            self.active = None

    def log_params(self, params):
        # What was said once may not change.
        assert not self.active.config or self.active.config == params
        self.active.config = dict(params)

    def log_metrics(self, metrics, step=None):
        self.active.points.extend((name, step, metrics[name]) for name in metrics)


def test_those_of_the_page():
    """All others are run by test_docs.py."""
    assert set(_hooks()) == {"wandb", "mlflow"}


def _hooks():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return {
        found[1]: block
        for block in blocks
        if (found := re.search(r"^import (wandb|mlflow)", block, re.MULTILINE))
    }


@pytest.fixture
def config():
    """A search by halving over two rates, of a tiny network from random weights."""
    config = experiment.default_config()
    config.stream.variant = "digits"
    config.data.image_size, config.data.max_eval_examples = 16, 40
    config.model.name, config.model.stages, config.model.width = "resnet18", (1,), 4
    config.methods, config.strategy = ("scratch",), "halving"
    config.budgets.amounts = ("16steps",)
    config.finetune.batch_size = 8
    config.finetune.learning_rates = (0.01, 0.1)
    config.finetune.log_every = 2
    return config


@pytest.mark.parametrize("service", [WandB, MLflow])
def test_a_hook(service, config, tmp_path, monkeypatch):
    """It is interrupted and goes on: a run a setting, with every point once."""
    fake_figures(monkeypatch.setattr)
    fake, console = service(), rich.console.Console(file=io.StringIO(), width=140)
    name = fake.__name__
    monkeypatch.setitem(sys.modules, name, fake)
    (tmp_path / "my_hooks.py").write_text(_hooks()[name])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_hooks", raising=False)
    config.watch = (f"my_hooks:{name}",)

    def points():
        return sum(len(run.points) for run in fake.runs.values())

    with monkeypatch.context() as patch:
        patch.setattr(multihost, "stop_requested", lambda: points() > 8)
        with pytest.raises(KeyboardInterrupt):
            experiment.run(config, tmp_path / "run", console)
    assert 8 < points() < 24
    experiment.run(config, tmp_path / "run", console)
    assert "failed" not in console.file.getvalue()
    lines = list(map(json.loads, (tmp_path / "run/records.jsonl").read_text().splitlines()))
    (trial,) = (line for line in lines if line["type"] == "trial")
    losses = {line["step"]: line["loss"] for line in lines if line["type"] == "train"}
    assert [run.config["learning_rate"] for run in fake.runs.values()] == [0.01, 0.1]
    for run in fake.runs.values():
        assert run.name.startswith("digits/scratch/16steps/lr=0.")
        won = run.config["learning_rate"] == trial["learning_rate"]
        seen = [(step, value) for name, step, value in run.points if name == "train/loss"]
        assert seen == (sorted(losses.items()) if won else seen[:4])
        tested = [value for name, _, value in run.points if name == "result/dev_test"]
        assert tested == [trial["dev_test"]] * won
