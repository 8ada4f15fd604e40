"""Short names that a config file has for keys: of values, of help, and of what is wrong."""

import pytest

from ctl_jax import arguments, main
from ctl_jax.errors import UserError
from ctl_jax.experiment import load_config, naming_as_typed, short_names_of

FILE = """
from ctl_jax import experiment

{short}

def get_config():
    config = experiment.default_config()
    config.data.image_size = experiment.following(config, "weights", lambda w: 64 if w else 32)
    config.seeds = experiment.following(config, "stream.seed", lambda seed: (seed,))
    config.methods, config.stream.variant = ("scratch",), "digits"
    config.model.name, config.model.stages, config.model.width = "resnet18", (1,), 4
    return config
"""
SHORT = """
SHORT = {"images": "stream.variant", "budget": "budgets.amounts", "mirror": "finetune.flip"}
"""


@pytest.fixture
def write(tmp_path):
    def write(short=SHORT):
        path = tmp_path / "c.py"
        path.write_text(FILE.format(short=short))
        return str(path)

    return write


def test_a_short_name_stands_for_its_key(write):
    words = ["--config.images=/a b", "--config.budget", "1e9", "--noconfig.mirror"]
    given = arguments.parse(["p", f"--config={write()}:", "--workdir=w", *words])
    config = load_config(given.config.removesuffix(":"), given.overrides)
    assert config.stream.variant == "/a b"
    assert config.budgets.amounts == ("1e9",)
    assert config.finetune.flip is False


def test_what_follows_from_another_key_follows_the_command_line(write):
    file = write()
    assert load_config(file).data.image_size == 32
    assert load_config(file, {"weights": ["w"]}).data.image_size == 64
    assert load_config(file, {"stream.seed": ["7"]}).seeds == (7,)
    both = load_config(file, {"weights": ["w"], "data.image_size": ["48"]})
    assert both.data.image_size == 48


def test_help_shows_them(write):
    for flag in ("--help", "--helpfull"):
        text = arguments.help_text(["p", f"--config={write()}", flag], "")
        assert "    --config.images\n        A variant of" in text
        assert "The same as --config.stream.variant." in " ".join(text.split())
    assert "--config.images" not in arguments.help_text(["p", "--helpfull"], "")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--config.image=x"], r"config.image: unknown key; did you mean config\.images\?$"),
        (["--images=x"], r"--images: unknown flag; did you mean --config\.images\?$"),
        (["--config.images"], "--config.images: expected a value"),
        (["--config.mirror=x"], "^--config.mirror=x: expected true or false$"),
        (["--config.images=x", "--config.stream.variant=y"], "the same key as --config.images"),
        (["--config.budget=1 hour"], r"^config\.budget: .*unknown unit"),
        (["--config.images=nothing"], r"^config\.images='nothing': "),
        # Under its own name where that was typed.
        (["--config.stream.variant=nothing"], r"^config\.stream\.variant='nothing': "),
        (["--config.budget=1"], r"^config\.budget='1 flop': expected at least one step"),
    ],
)
def test_what_is_wrong_is_named_as_it_was_typed(write, tmp_path, capsys, words, expected):
    status = main.main(["p", f"--config={write()}", f"--workdir={tmp_path / 'w'}", *words])
    line = capsys.readouterr().err.removeprefix("ctl_jax: ").strip()
    assert status == 2
    with pytest.raises(UserError, match=expected):
        raise UserError(line)


def test_another_key_that_begins_alike_is_left_alone():
    text = "config.budgets.amounts_2=1, config.budgets.amounts.x, config.budgets.amounts: 3"
    with (
        pytest.raises(UserError, match=r"amounts_2=1, config\.budgets\.amounts\.x, config\.b: 3"),
        naming_as_typed(["b"], {"b": "budgets.amounts"}),
    ):
        raise UserError(text)


@pytest.mark.parametrize(
    ("short", "expected"),
    [
        ("SHORT = dict(images='stream.variant')", r"line 4: SHORT is computed; expected SHORT ="),
        ("SHORT: dict = ['images']", r"SHORT=\['images'\]; expected SHORT = "),
        (
            "SHORT = {'images': 'stream.x'}",
            r"SHORT\['images'\]='stream\.x': expected",
        ),
        ("SHORT = {'stream': 'stream.variant'}", r"SHORT\['stream'\]: expected a name"),
        ("SHORT = {'a.b': 'stream.variant'}", r"SHORT\['a\.b'\]: expected a name"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(write, short, expected):
    with pytest.raises(UserError, match=expected):
        load_config(write(short))


def test_what_is_no_python_has_none(tmp_path):
    assert short_names_of(str(tmp_path / "none.py")) == {}
    (tmp_path / "c.py").write_text("SHORT = {'images'")
    assert short_names_of(str(tmp_path / "c.py")) == {}
