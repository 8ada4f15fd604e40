"""Config files and their checks."""

import importlib.util
import math
import pathlib

import ml_collections
import pytest

from ctl_jax.compute import Budget
from ctl_jax.errors import UserError
from ctl_jax.experiment import config_arguments, default_config, validate
from ctl_jax.experiment.config import KEYS, Budgets, budgets, flatten

CONFIGS = sorted((pathlib.Path(__file__).resolve().parents[3] / "configs").glob("*.py"))


def _valid():
    config = default_config()
    config.weights = "weights.npz"
    return config


def _set(config, key, value):
    with config.ignore_type(), config.unlocked():
        config.update_from_flattened_dict({key: value})
    return config


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_in_the_repository_is_valid(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = validate(module.get_config())
    first = {"pretrain": "scratch", "nevis_reference": "scratch", "my_task": "auto"}
    assert config.methods[0] == first.get(path.stem, "dense")
    assert module.__doc__
    assert f"configs/{path.name}" in module.__doc__


def test_validation_keeps_values_and_freezes():
    config = validate(_valid())
    assert dict(flatten(config.to_dict())) == dict(flatten(_valid()))
    with pytest.raises(AttributeError):
        config.weights = "other.npz"


@pytest.mark.parametrize("value", ["dense,scratch", ("dense,scratch",), ["dense", "scratch"]])
def test_names_may_be_joined_by_commas(value):
    assert validate(_set(_valid(), "methods", value)).methods == ("dense", "scratch")


def test_equal_methods_are_one():
    names = (" dense", "filters@.5", "filters@0.50", "dense", "filters@5e-1", "channels@.5")
    config = validate(_set(_valid(), "methods", names))
    assert config.methods == ("dense", "filters@0.5", "channels@0.5")


def test_the_name_of_a_folder_may_hold_a_comma():
    config = validate(_set(_valid(), "data.dirs", ("nevis:/a,b", "folder:/c")))
    assert config.data.dirs == ("nevis:/a,b", "folder:/c")
    config = validate(_set(_valid(), "data.dirs", "tfds:/a, folder:/c"))
    assert config.data.dirs == ("tfds:/a", "folder:/c")


FLOATS = [name for name, key in KEYS.items() if key.kind is float]


@pytest.mark.parametrize("key", FLOATS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0])
def test_every_number_is_one(key, value):
    default = KEYS[key].default
    if isinstance(default, tuple):
        value = (*default[:-1], value)
    with pytest.raises(UserError, match=r"^config\.[^\n]*[:;] expected "):
        validate(_set(_valid(), key, value))


def test_budgets_are_a_range_or_a_list():
    found = budgets(Budgets(min_flops=1e9, max_flops=1e11))
    assert found == (Budget(1e9), Budget(1e10), Budget(1e11))
    config = _set(_valid(), "budgets.amounts", ["0.5epochs, 2 epoch", "30seconds", "2e12"])
    config.budgets.min_flops = 1e12  # More than the most, which is not asked for.
    found = validate(config).budgets
    assert found.amounts == ("0.5 epochs", "2 epochs", "30 seconds", "2000000000000 flops")
    assert [str(budget) for budget in budgets(found)] == list(found.amounts)


def test_one_value_does_for_a_tuple_and_an_int_for_a_float():
    config = _set(_set(_valid(), "finetune.learning_rates", 1), "seeds", 3)
    config = validate(config)
    assert config.finetune.learning_rates == (1.0,)
    assert config.seeds == (3,)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("finetune.batchsize", 3, r"unknown key; did you mean config\.finetune\.batch_size\?"),
        ("finetune.batch_sizes", (8, 8), "expected sizes of 1 to 1048576, each once, or none"),
        ("finetune.batch_sizes", (8, 0), "expected sizes of 1 to 1048576, each once, or none"),
        ("finetune.search", "sobol", "expected one of grid, random, rule"),
        ("finetune.trials", 0, "expected 1 to 1000"),
        ("finetune.label_smoothings", (0.1, 1.0), r"expected fractions in \[0, 1\), each once"),
        ("finetune.mixup", -0.1, "expected zero or a positive number"),
        ("optimizer", 3, "unknown key"),
        ("finetune.batch_size", "32", "expected int, found str"),
        ("finetune.batch_size", True, "expected int, found bool"),
        ("finetune.batch_size", -1, "expected at least 1, at most 1048576, or 0"),
        ("finetune.learning_rates", (), "at least one positive number"),
        ("finetune.learning_rates", (0.1, 0.1), "each once"),
        ("finetune.learning_rates", (0.1, -0.1), "positive"),
        ("finetune.learning_rates", (0.1, "x"), r"learning_rates\[1\]='x': expected float"),
        ("finetune.momentum", 1.0, r"\[0, 1\)"),
        ("finetune.momentum", float("nan"), r"\[0, 1\)"),
        ("finetune.crop_area", (0.5, 0.2), "0 < least <= most <= 1"),
        ("finetune.crop_area", (0.5,), "two areas"),
        (
            "finetune.crop_area",
            (1e-4, 1.0),
            r"crop_aspect=.*narrowest crop would have 0\.28 pixels",
        ),
        ("finetune.crop_aspect", (1.0, 1e30), "narrowest crop would have .* pixels"),
        ("finetune.crop_aspect", (1.0, float("inf")), "two ratios"),
        ("finetune.crop_aspect", (1e-30, 1.0), "narrowest crop would have"),
        ("finetune.crop_aspect", (0.0, 1.0), "two ratios"),
        ("finetune.crop_aspect", (2.0, 1.0), "two ratios"),
        ("pretrain.crop_area", (1e-4, 1.0), "smallest crop would have 0.32 pixels"),
        ("weights", "a\0b", "without a null character"),
        ("data.dirs", ("tfds:a\0",), "without a null character"),
        ("finetune.batch_size", 10**12, "at most 1048576"),
        ("pretrain.batch_size", 10**12, "at most 1048576"),
        ("model.width", 10**12, "a number of channels"),
        ("model.stages", (10**12,), "1 to 1000"),
        ("budgets.min_flops", float("inf"), "positive number of FLOPs"),
        ("budgets.max_flops", 1e9, r"at least config\.budgets\.min_flops"),
        ("budgets.amounts", ("2 epochs", "2.0epochs"), "amounts: '2 epochs' twice; expected each "),
        ("budgets.amounts", ("2e9", "2000000000 flops"), "'2000000000 flops' twice"),
        ("budgets.amounts", ("2 days",), r"config\.budgets\.amounts: budget of 2 'days': unknown"),
        ("budgets.amounts", ("0 epochs",), r"config\.budgets\.amounts: budget of 0 epochs: exp"),
        ("budgets.amounts", ("inf",), "'inf': expected an amount and a unit"),
        ("budgets.amounts", ("1.5",), r"budget of 1\.5 flops: expected a whole number"),
        ("budgets.amounts", ("1epoch",) * 1001, "at most 1000 budgets"),
        ("budgets.amounts", (1,), r"amounts\[0\]=1: expected str, found int"),
        ("strategy", "grids", r"config\.strategy='grids': expected one of grid"),
        ("keep_models", "last", "one of none, best, all"),
        ("watch", ("tensorbord",), r"config\.watch='tensorbord': .*did you mean 'tensorboard'\?"),
        ("watch", ("a.py",), r"config\.watch='a\.py': expected one of tensorboard, or PACKAGE"),
        ("methods", ("dense", "dens"), "unknown method 'dens'"),
        ("methods", ("dense", "dense"), "each once"),
        ("methods", (), "at least one method"),
        ("stream.missing", "ignore", "one of error, skip"),
        ("stream.ablation", "no_mnist", "one of '', remove_first_30"),
        ("stream.ablation", "random", r"num_tasks=0: expected at least 1 .*ablation='random'"),
        ("stream.num_tasks", 3, r"num_tasks=3: expected 0 .*ablation=''"),
        ("stream.num_tasks", -1, "0 or a number of tasks"),
        ("stream.shuffle", "years", "one of '', within_year, order"),
        ("stream.shuffle", True, "expected str, found bool"),
        ("stream.seed", -1, "0 to"),
        ("model.version", "v2", "one of '', v1, v1.5"),
        ("model.width", -8, "0 .*or a number of channels"),
        ("model.epsilon", float("inf"), "or a positive number"),
        ("model.name", "resnet51", "one of resnet18"),
        ("model.preprocess", "none", "one of "),
        ("pruning.criterion", "l3", "one of l1, l2"),
        ("seeds", (-1,), "0 to"),
        ("weights", "", "expected a file or folder"),
        ("pretrain.task", "synthetic_source", "expected ''"),
        ("data.image_size", 4, "pixels"),
        ("finetune.evaluate_every", -1, "0 or a number of steps"),
        ("finetune.evaluate_every", 15, r"multiple of config\.finetune\.log_every=10"),
        ("finetune.report", "first", "one of last, best"),
        ("finetune.report", "best", r"'last' where config\.finetune\.evaluate_every=0"),
        ("finetune.compute_dtype", "float16", "one of '', float32, bfloat16"),
        ("checkpoint.every_s", -1.0, "0 or a number of seconds"),
        ("checkpoint.every_s", float("nan"), "0 or a number of seconds"),
    ],
)
def test_bad_values_are_named(key, value, expected):
    with pytest.raises(UserError, match=expected) as error:
        validate(_set(_valid(), key, value))
    assert "config." in str(error.value)
    assert "\n" not in str(error.value)


def test_a_message_shows_no_more_than_fits():
    """Python writes no integer of more than 4,300 digits."""
    for key, value, shown in (
        ("finetune.batch_size", 10**5000, "<int>: expected at least 1"),
        ("model.stages", (10**5000,), "<tuple>: expected blocks a stage"),
        ("model.name", "x" * 10**5, f"'{'x' * 199}...: expected one of "),
        ("model.name", ("x",) * 100, f"{('x',) * 100!r}"[:200] + "...: expected str, found tuple"),
    ):
        with pytest.raises(UserError) as error:
            validate(_set(_valid(), key, value))
        assert str(error.value).startswith(f"config.{key}={shown}")


def test_a_missing_key_is_named():
    config = ml_collections.ConfigDict(_valid().to_dict())
    del config.pruning.round_to
    with pytest.raises(UserError, match=r"config\.pruning\.round_to: missing"):
        validate(config)


def test_scratch_alone_needs_no_weights():
    config = default_config()
    config.methods = ("scratch",)
    assert validate(config).weights == ""


def test_arguments_of_a_config_file():
    assert config_arguments("", variant="FULL").variant == "FULL"
    assert config_arguments("variant=SHORT", variant="FULL").variant == "SHORT"
    for text in ("SHORT", "variants=SHORT", "variant=", "variant=SHORT,x=1"):
        with pytest.raises(UserError, match="expected variant="):
            config_arguments(text, variant="FULL")
