"""Config files: what is wrong with one is a line, with the file's own line."""

import pathlib
import re

import pytest

from ctl_jax import interrupts
from ctl_jax.errors import UserError
from ctl_jax.experiment import load_config, validate

HEAD = "from ctl_jax import experiment\n\ndef get_config():\n    c = experiment.default_config()\n"
TAIL = "    c.methods = ('scratch',)\n    return c\n"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a file into the current folder, and returns its name."""
    monkeypatch.chdir(tmp_path)

    def write(text, name="c.py"):
        content = text if isinstance(text, bytes) else text.encode()
        pathlib.Path(name).write_bytes(content)
        return name

    return write


def _complaint(given, overrides=None):
    with pytest.raises(UserError) as error:
        validate(load_config(given, overrides))
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


def test_a_file_and_what_the_command_line_changes(write):
    file = write(HEAD + "    c.budgets.num = 2\n" + TAIL)
    config = load_config(
        file,
        {
            "seeds": ["0", "1, 2"],
            "data.dirs": ["folder:/a b,folder:~/c", "('nevis:/d,e',)"],
            "finetune.flip": ["yes", "no"],
            "budgets.max_flops": ["1e12"],
            "weights": ["x,y"],
            "finetune.batch_size": ["1e2"],
            "methods": [" dense, filters@.5", "filters@0.50"],
        },
    )
    config = validate(config)
    assert config.seeds == (0, 1, 2)
    assert config.data.dirs == ("folder:/a b", "folder:~/c", "nevis:/d,e")
    assert config.finetune.flip is False
    assert (config.budgets.num, config.budgets.max_flops) == (2, 1e12)
    assert (config.weights, config.finetune.batch_size) == ("x,y", 100)
    assert config.methods == ("dense", "filters@0.5")


def test_an_empty_list_takes_the_place_of_the_file_s(write):
    file = write(HEAD + "    c.data.dirs = ('tfds:/a',)\n    c.model.stages = (1,)\n" + TAIL)
    config = load_config(file, {"data.dirs": [""], "model.stages": ["()"]})
    assert (config.data.dirs, config.model.stages) == ((), ())


def test_a_frozen_config_is_one(write):
    text = HEAD + "    c.methods = ('scratch',)\n    return experiment.validate(c)\n"
    assert load_config(write(text), {"seeds": ["7"]}).seeds == (7,)


def test_references_follow(write):
    lines = "    c.pretrain.batch_size = c.finetune.get_ref('batch_size')\n"
    config = load_config(write(HEAD + lines + TAIL), {"finetune.batch_size": ["8"]})
    assert config.pretrain.batch_size == 8


@pytest.mark.parametrize(
    ("given", "variant"),
    [("n.py", "a"), ("n.py:", "a"), ("n.py:variant=b", "b"), ("n.py:variant=b:c", "b:c")],
)
def test_arguments(write, given, variant):
    write(
        "from ctl_jax import experiment\n\n"
        "def get_config(text=''):\n"
        "    c = experiment.default_config()\n"
        "    c.stream.variant = experiment.config_arguments(text, variant='a').variant\n"
        "    return c\n",
        "n.py",
    )
    assert load_config(given).stream.variant == variant


def test_names_of_files(write, monkeypatch, tmp_path):
    file = write(HEAD + TAIL, "a:b c.py")
    for given in (file, f"{file}:", f"./{file}", f"{tmp_path}/{file}"):
        assert load_config(given).methods == ("scratch",)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_config(f"~/{file}").methods == ("scratch",)


def test_what_it_defines_has_a_module(write):
    """Dataclasses with annotations as texts look for it."""
    text = (
        "from __future__ import annotations\nimport dataclasses, typing\n"
        "@dataclasses.dataclass\nclass A:\n    x: typing.ClassVar[int] = 1\n    y: int = 2\n"
    )
    assert load_config(write(text + HEAD.partition("\n")[0] + HEAD.partition("\n")[2] + TAIL))


NO_FUNCTION = "expected a Python file with get_config(), e.g. configs/quickstart.py"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1\n", f"c.py: no get_config; {NO_FUNCTION}"),
        ("", f"c.py: no get_config; {NO_FUNCTION}"),
        ('{"a": 1}\n', f"c.py: no get_config; {NO_FUNCTION}"),
        ("async def get_config():\n    pass\n", "c.py: get_config() returned coroutine; expected"),
        ("def get_config():\n    yield\n", "c.py: get_config() returned generator; expected"),
        ("class get_config:\n    pass\n", "c.py: get_config() returned get_config; expected"),
        ("get_config = 3\n", f"c.py: get_config = 3; {NO_FUNCTION}"),
        ("seeds: [0]\nmodel:\n  name: x\n", "c.py, line 2: SyntaxError: "),
        (b"\x89PNG\r\n\x1a\n\0\0", "c.py: "),
        (b"x = '\xff'\n", "c.py, line 1: SyntaxError: (unicode error)"),
        ("x = 1\ndef get_config(:\n", "c.py, line 2: SyntaxError: invalid syntax"),
        ("if 1:\nx = 1\n", "c.py, line 2: IndentationError: "),
        ("import nowhere_to_be_found\n", "c.py, line 1: ModuleNotFoundError: No module named"),
        ("\nfrom . import other\n", "c.py, line 2: ImportError: attempted relative import"),
        ("1 / 0\n", "c.py, line 1: ZeroDivisionError: division by zero"),
        ("{}['key']\n", "c.py, line 1: KeyError: key"),
        ("raise SystemExit\n", "c.py, line 1: SystemExit"),
        ("raise ValueError('a\\n\\n  b')\n", "c.py, line 1: ValueError: a b"),
        ("raise ValueError('x' * 10_000)\n", "c.py, line 1: ValueError: xxx"),
        ("raise KeyError\n", "c.py, line 1: KeyError"),
        ("def f():\n    f()\nf()\n", "c.py, line 2: RecursionError: "),
        ("(" * 1000 + "\n", "c.py"),
    ],
)
def test_files_that_are_no_config(write, text, expected):
    assert _complaint(write(text)).startswith(expected)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("", "c.py: get_config() returned NoneType (is `return config` missing?); expected ctl_j"),
        ("    return 3\n", "c.py: get_config() returned int; expected ctl_jax.experiment.default"),
        (
            "    return {'seeds': (0,)}\n",
            "c.py: get_config() returned a config without stream.variant",
        ),
        ("    return {}\n", "c.py: get_config() returned a config without stream.variant"),
        ("    return {1: 2}\n", "c.py: config.1: unknown key; "),
        ("    d = {}\n    d['d'] = d\n    return d\n", "c"),
        (
            "    c.finetune.batchsize = 3\n",
            'c.py, line 5: AttributeError: Key "batchsize" does not',
        ),
        ("    c.nowhere.x = 3\n", "c.py, line 5: AttributeError: the config has no 'nowhere'"),
        ("    c['nowhere'] = 3\n", 'c.py, line 5: KeyError: Key "nowhere" does not exist and'),
        ("    c.finetune.batch_size = 'many'\n", "c.py, line 5: TypeError: Could not override fie"),
        ("    c.finetune = 3\n", "c.py, line 5: TypeError: Could not override field 'finetune'"),
        ("    c.seeds = 3\n", "c.py, line 5: TypeError: Could not override field 'seeds'"),
        ("    c.finetune.batch_size = 2.5\n", "c.py, line 5: TypeError: Could not override fie"),
        ("    c.finetune.batch_size = None\n" + TAIL, "config.finetune.batch_size=None: expected"),
        ("    c.finetune = dict(x=1)\n" + TAIL, "c.py: config.finetune.x: unknown key"),
        ("    c.weights = 'a\\0b'\n" + TAIL, r"config.weights='a\x00b': expected a text without a"),
        ("    c.budgets.num = c.get_ref('seeds')\n" + TAIL, "c"),
        (
            "    c.budgets.min_flops = c.budgets.get_ref('max_flops') / 0\n" + TAIL,
            "c.py, line 5: ZeroDivisionError: ",
        ),
        ("    return experiment.nowhere\n", "c.py, line 5: AttributeError: module 'ctl_jax.exp"),
        ("    return get_config()\n", "c.py, line 4: RecursionError: "),
    ],
)
def test_functions_that_return_no_config(write, lines, expected):
    message = _complaint(write(HEAD + lines))
    # A recursion may end at any line, and deep within another file.
    assert message.startswith(expected) or ("RecursionError" in expected and "Recurs" in message)


@pytest.mark.parametrize(
    ("signature", "arguments", "expected"),
    [
        ("", ":foo=1", r"get_config\(\) takes no arguments; expected --config=c\.py$"),
        ("a, b", ":foo=1", r"get_config\(a, b\) cannot be called with one text; expected a fu"),
        ("a", "", r"get_config\(a\) cannot be called with nothing; expected a function"),
        ("*, a", ":a=1", r"get_config\(\*, a\) cannot be called with one text"),
    ],
)
def test_arguments_that_a_function_does_not_take(write, signature, arguments, expected):
    file = write(f"def get_config({signature}):\n    raise KeyError\n")
    assert re.search(f"^--config={file}{arguments}: {expected}", _complaint(f"{file}{arguments}"))


def test_what_is_no_file(write, tmp_path):
    write("", "here")
    (tmp_path / "folder.py").mkdir()
    assert _complaint("no.py") == f"--config=no.py: there is no 'no.py'; {NO_FUNCTION}"
    assert _complaint("no.py:a=b").startswith("--config=no.py:a=b: there is no 'no.py'; expected")
    assert _complaint("here:x=1").startswith("here: no get_config; ")
    assert _complaint("folder.py").startswith("--config=folder.py: 'folder.py' is a folder; ")
    assert _complaint("~nobody-here/c.py").startswith("~nobody-here/c.py: there is no user")
    assert _complaint("").startswith("--config=: there is no ''; ")


def test_a_user_error_of_the_file_s_own_stays(write):
    text = "from ctl_jax.errors import UserError\nraise UserError('x=3: expected 4')\n"
    assert _complaint(write(text)) == "x=3: expected 4"


def test_ctrl_c_is_no_fault_of_the_file(write):
    with pytest.raises(KeyboardInterrupt):
        load_config(write("raise KeyboardInterrupt\n"))
    stop = "import signal\nfrom ctl_jax import interrupts\nraise interrupts.Stopped(signal.SIGTERM)"
    with pytest.raises(interrupts.Stopped):
        load_config(write(stop))


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("finetune.batch_size", "x", "--config.finetune.batch_size=x: expected an integer"),
        ("finetune.flip", "maybe", "--config.finetune.flip=maybe: expected true or false"),
        ("seeds", "0,x", r"--config.seeds[1]=x: expected an integer"),
        ("seeds", "0,0", "config.seeds=(0, 0): expected"),
        ("finetune.learning_rates", "", "config.finetune.learning_rates=(): expected"),
        ("finetune.learning_rates", "nan", "config.finetune.learning_rates=(nan,): expected"),
        ("finetune.crop_aspect", "1,1e400", "config.finetune.crop_aspect=(1.0, inf): "),
        ("finetune.batch_size", "1e30", "config.finetune.batch_size=10000000000000000000"),
        ("finetune", "3", "config.finetune: a section"),
        ("nowhere", "3", "config.nowhere: unknown key"),
    ],
)
def test_values_that_are_none(write, key, text, expected):
    assert _complaint(write(HEAD + TAIL), {key: [text]}).startswith(expected)
