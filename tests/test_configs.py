"""The configs for one's own images through the whole command: weights, a small model, its card."""

import json
import pathlib

import numpy as np
import PIL.Image
import pytest

from ctl_jax import experiment, main, models

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "configs"
TINY = (
    "--config.data.image_size=16",
    "--config.finetune.batch_size=8",
    "--config.finetune.learning_rates=0.05",
)
NETWORK = ("--config.model.name=resnet18", "--config.model.stages=1", "--config.model.width=8")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of bright and dark images, of two classes."""
    folder = tmp_path_factory.mktemp("data") / "lamps"
    rng = np.random.default_rng(0)
    for name, level in (("off", 40), ("on", 200)):
        (folder / name).mkdir(parents=True)
        for number in range(40):
            pixels = level + rng.integers(0, 40, (20, 16, 3))
            PIL.Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.png")
    return folder


def _run(config, workdir, *flags):
    words = ["ctl_jax", f"--config={CONFIGS}/{config}.py", f"--workdir={workdir}", *TINY, *flags]
    return main.main(words)


@pytest.fixture(scope="module")
def pretrained(images, tmp_path_factory):
    """The folder of a run that made weights."""
    workdir = tmp_path_factory.mktemp("runs") / "source"
    flags = (f"--config.images={images}", "--config.budget=8epochs", *NETWORK)
    assert _run("pretrain", workdir, *flags, "--config.finetune.ema=0.5") == 0
    return workdir


def test_pretraining_leaves_weights_and_the_curve_of_their_loss(pretrained):
    (folder,) = experiment.best_models(pretrained).values()
    model = models.load(folder)
    assert (model.classes, model.image_size) == (("off", "on"), 16)
    assert (pretrained / "figures" / "training_lamps.png").stat().st_size > 1000
    lamps = np.stack([np.full((16, 16, 3), level, np.uint8) for level in (60, 220)])
    assert list(model(lamps).argmax(-1)) == [0, 1]


def test_the_best_model_for_ones_own_images(images, pretrained, tmp_path, capsys):
    """From the folder of a run that pretrained; its pruned networks have names of classes, too."""
    flags = ("--config.methods=filters@0.5,linear_probe", "--config.budget=2e7")
    assert (
        _run(
            "my_task",
            tmp_path,
            f"--config.images={images}",
            f"--config.weights={pretrained}",
            *flags,
        )
        == 0
    )
    told = capsys.readouterr().out
    (folder,) = experiment.best_models(tmp_path).values()
    for words in (
        "The best model:\n\nlamps\n",
        "95% interval",
        "of the whole network",
        f"folder         {folder}\n",
        f"python -m ctl_jax.predict {tmp_path} IMAGES...\n",
    ):
        assert words in told
    model = models.load(folder)
    assert model.classes == ("off", "on")
    assert "off, on" in (folder / "card.md").read_text()


def test_without_weights_the_run_pretrains_and_says_so(images, tmp_path, capsys):
    flags = (*NETWORK, "--config.pretrain.task=digits", "--config.pretrain.steps=2")
    assert (
        _run(
            "my_task",
            tmp_path,
            f"--config.images={images}",
            "--config.budget=1e8",
            *flags,
            "--plan",
        )
        == 0
    )
    assert "Pretraining: 2 steps on Digits" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("config", "flags", "expected"),
    [
        (
            "my_task",
            ["--config.budget=1e3"],
            "config.budget='1000 flops': expected enough for 2 images",
        ),
        ("my_task", ["--config.budget=lots"], "config.budget: budget 'lots': expected an amount"),
        ("my_task", ["--config.images=/nowhere/x"], "config.images='/nowhere/x': "),
        ("my_task", ["--config.image=x"], "config.image: unknown key; did you mean config.images?"),
        ("my_task", ["--config.weights=/nowhere/x"], "/nowhere/x"),
        (
            "pretrain",
            ["--config.budget=0epochs"],
            "config.budget: budget of 0 epochs: expected more",
        ),
        ("pretrain", ["--config.finetune.ema=1"], "config.finetune.ema=1.0: expected a fraction"),
    ],
)
def test_what_cannot_be_done_is_one_line(images, tmp_path, capsys, config, flags, expected):
    given = [f"--config.images={images}", *NETWORK, *flags]
    if any("images" in flag for flag in flags):
        del given[0]
    if any("weights" in flag for flag in flags):
        given = [word for word in given if word not in NETWORK]
    assert _run(config, tmp_path, *given) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ctl_jax: ")
    assert expected in line


def test_nevis_as_its_authors_ran_it(tmp_path):
    """Of a tiny network and few steps; the search by rungs."""
    config = f"--config={CONFIGS}/nevis_reference.py:variant=digits,setting="
    small = [
        *("--config.data.dirs=", "--config.data.image_size=16", "--config.budgets.amounts=20steps"),
        *("--config.finetune.evaluate_every=5", "--config.finetune.log_every=5", *NETWORK[1:]),
    ]
    searched = [*small, "--config.finetune.trials=4", "--config.strategy=halving"]
    assert main.main(["ctl_jax", f"{config}full", f"--workdir={tmp_path}", *searched]) == 0
    lines = map(json.loads, (tmp_path / "records.jsonl").read_text().splitlines())
    made = {kind: [] for kind in ("run", "rung", "trial", "train")}
    for line in lines:
        made.get(line["type"], []).append(line)
    assert len(made["rung"]) == 4 + 2
    (trial,) = made["trial"]
    assert (trial["batch_size"], trial["steps"]) == (16, 20)
    assert 0 < trial["label_smoothing"] < 0.3
    # A warm-up of seven epochs is longer than that.
    rates = [line["learning_rate"] for line in made["train"]]
    assert rates == pytest.approx(
        [trial["learning_rate"] * share for share in (0.25, 0.5, 0.75, 1)]
    )
    plan = [f"{config}cheap", f"--workdir={tmp_path}", *small, "--plan"]
    assert main.main(["ctl_jax", *plan]) == 0


def test_an_unknown_setting_of_nevis_is_named(tmp_path, capsys):
    config = f"--config={CONFIGS}/nevis_reference.py:setting=free"
    assert main.main(["ctl_jax", config, f"--workdir={tmp_path}"]) == 2
    assert "setting=free: expected one of full, cheap" in capsys.readouterr().err
