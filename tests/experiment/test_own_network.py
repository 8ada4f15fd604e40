"""A user's own network goes through a whole run: pretrained, cut, finetuned, kept."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from ctl_jax import experiment, models, records

pytestmark = pytest.mark.usefixtures("without_figures")


class Net(nn.Module):
    """A network of nobody's family: two convolutions, a norm with `train`, a head "out"."""

    width: int = 8
    num_classes: int = 4

    @nn.compact
    def __call__(self, x, train: bool = True):
        x = nn.Conv(self.width, (3, 3), strides=2)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        x = nn.relu(nn.Conv(self.width, (3, 3), strides=2)(x))
        return nn.Dense(self.num_classes, name="out")(jnp.mean(x, axis=(1, 2)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The network with weights, as `models.save` leaves it."""
    variables = Net().init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    model = models.from_module(Net(), variables, image_size=16)
    path = tmp_path_factory.mktemp("own") / "net"
    models.save(path, model)
    return path


@pytest.mark.parametrize("name", ["", f"{__name__}:Net"])
def test_a_run_takes_it_from_its_folder(config, console, tmp_path, folder, name):
    config.stream.variant = "digits"
    config.model.update({"name": name, "stages": (), "width": 0})
    config.weights = str(folder)
    config.methods = ("dense", "filters@0.5", "linear_probe")
    config.budgets.num, config.budgets.max_flops = 1, config.budgets.min_flops
    config.finetune.learning_rates = (0.05,)
    config.keep_models = "all"
    experiment.run(config, tmp_path, console)
    found = [
        line
        for path in sorted((tmp_path / "steps").glob("*.jsonl"))
        for line in map(records.from_json, map(json.loads, path.read_text().splitlines()))
        if isinstance(line, records.TrialRecord)
    ]
    assert {record.method for record in found} == set(config.methods)
    params = {record.method: record.params for record in found}
    assert params["filters@0.5"] < params["dense"]
    model = models.load(tmp_path / "models" / found[0].id)
    assert model.architecture == f"{__name__}:Net"
    assert model.num_classes == 10
