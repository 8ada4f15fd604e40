"""The examples of docs/extending/ do what their pages say, each from its one file."""

import importlib.util
import io
import itertools
import json
import pathlib
import shutil
import sys

import chex
import jax
import numpy as np
import pytest
import rich.console
from flax.traverse_util import flatten_dict
from PIL import Image

from ctl_jax import data, experiment, models
from ctl_jax.compute import Budget, Pace
from ctl_jax.compute.budgets import UNITS
from ctl_jax.data import source, sources
from ctl_jax.errors import UserError
from ctl_jax.experiment import strategies, tunings
from ctl_jax.models import formats, names

EXAMPLES = pathlib.Path(__file__).parents[2] / "docs" / "extending"


def load(name):
    """Runs an example, as an import does of a module in its room."""
    spec = importlib.util.spec_from_file_location(f"docs_extending_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def registries():
    """What examples register is forgotten."""
    there = (strategies._MAKERS, tunings.TUNINGS, UNITS, source._SOURCES)
    before = [dict(registry) for registry in there]
    yield
    for registry, entries in zip(there, before, strict=True):
        registry.clear()
        registry.update(entries)


@pytest.fixture
def run(registries, tmp_path):
    """Runs a small config; gives its trials, and the folder."""
    module = models.create("resnet18", num_outputs=1, stages=(1,), width=4)
    models.save_checkpoint(tmp_path / "weights", models.init(module, jax.random.key(1), 16))

    def run(**changes):
        config = experiment.default_config()
        config.stream.variant = "digits"
        config.data.image_size = 16
        config.data.max_eval_examples = 40
        config.model.name, config.model.stages, config.model.width = "resnet18", (1,), 4
        config.weights = str(tmp_path / "weights")
        config.budgets.min_flops = config.budgets.max_flops = 1e7
        config.budgets.num = 1
        config.finetune.batch_size = 8
        config.finetune.learning_rates = (0.1,)
        config.update_from_flattened_dict(changes)
        experiment.run(config, tmp_path / "run", rich.console.Console(file=io.StringIO()))
        lines = (tmp_path / "run" / "records.jsonl").read_text().splitlines()
        return [each for each in map(json.loads, lines) if each["type"] == "trial"]

    run.folder = tmp_path / "run"
    return run


def test_a_tuning(run):
    load("biases")
    (trial,) = run(methods=("filters@0.5+biases",), keep_models="all")
    assert trial["method"] == "filters@0.5+biases"
    trained = models.load(run.folder / "models" / trial["id"]).variables["params"]
    before = models.load_checkpoint(run.folder.parent / "weights")["params"]
    # No kernel but the head's has changed, and that of the stem was not cut.
    assert (trained["stem_conv"]["kernel"] == before["stem_conv"]["kernel"]).all()
    assert (trained["stem_bn"]["scale"] == before["stem_bn"]["scale"]).all()
    assert (trained["stem_bn"]["bias"] != before["stem_bn"]["bias"]).any()
    assert trained["head"]["kernel"].any()


@pytest.mark.parametrize("enough", [0.0, 0.999])
def test_a_strategy(run, enough):
    load("enough").enough.__globals__["ENOUGH"] = enough
    rates, budgets = (0.01, 0.1), ("1e7", "2e7", "4e7")
    trials = run(
        **{
            "strategy": "enough",
            "methods": ("dense",),
            "finetune.learning_rates": rates,
            "budgets.amounts": budgets,
        }
    )
    tried = budgets[:1] if enough == 0 else budgets
    found = [(trial["budget_flops"], trial["learning_rate"]) for trial in trials]
    assert found == list(itertools.product(map(int, map(float, tried)), rates))
    rows = (run.folder / "results.csv").read_text().splitlines()
    assert len(rows) == 1 + len(tried)


def test_a_budget_unit(run):
    load("cents")
    assert Budget.parse("2cents").flops(Pace(1e12, 4e9, lambda: 1e9)) == 1800 * 10**9
    (trial,) = run(**{"budgets.amounts": ("0.0005 cents",), "methods": ("dense",)})
    assert trial["budget"] == "0.0005 cents"
    assert 0 < trial["spent_flops"] <= trial["budget_flops"]


def test_a_source(run, tmp_path, monkeypatch):
    (tmp_path / "sources").mkdir()
    shutil.copy(EXAMPLES / "csv_source.py", tmp_path / "sources" / "csv_source.py")
    # As if the file lay in the room of the sources.
    monkeypatch.setattr(sources, "__path__", [*sources.__path__, str(tmp_path / "sources")])
    monkeypatch.delitem(sys.modules, "ctl_jax.data.sources.csv_source", raising=False)
    sources.load_modules()
    lines = ["path,label,split"]
    for number, split in enumerate(data.SPLITS * 3):
        label = "ab"[number % 3 == 0]
        Image.new("RGB", (20, 20), (80 * (number % 3), 0, 0)).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{label},{split}")
    (tmp_path / "umist.csv").write_text("\n".join(lines))
    given = {"stream.variant": "umist", "data.dirs": (f"csv:{tmp_path}",), "methods": ("dense",)}
    (trial,) = run(**given, **{"finetune.batch_size": 2})
    assert (trial["task"], trial["diverged"]) == ("umist", False)
    dataset = data.open_set(data.stream("umist")[0], [f"csv:{tmp_path}"])
    assert (dataset.class_names, len(dataset.splits["train"])) == (("a", "b"), 3)
    (tmp_path / "umist.csv").write_text("path,label\n")
    with pytest.raises(UserError, match=r"umist\.csv' has columns .*; expected path, label, split"):
        data.open_set(data.stream("umist")[0], [f"csv:{tmp_path}"])


def test_a_format_of_weights(tmp_path, monkeypatch):
    known = (*formats.formats(), load("json_weights").FORMAT)
    monkeypatch.setattr(formats, "formats", lambda: known)
    module = models.create("resnet18", num_outputs=3, stages=(1,), width=4)
    variables = models.init(module, jax.random.key(0), 16)
    flat = {path: np.asarray(leaf) for path, leaf in flatten_dict(variables, sep="/").items()}
    content = {
        name: {"shape": array.shape, "values": array.ravel().tolist()}
        for name, array in names.write(names.of_module(module)[0], flat).items()
    }
    (tmp_path / "resnet.json").write_text(json.dumps(content))
    found = models.load_pretrained(tmp_path / "resnet.json")
    assert found.architecture == "resnet18"
    chex.assert_trees_all_equal(found.variables, variables)
    (tmp_path / "half.json").write_text(json.dumps(content)[:1000])
    with pytest.raises(UserError, match="no readable JSON file of weights"):
        models.load_pretrained(tmp_path / "half.json")
