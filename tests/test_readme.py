"""What README, the config files and the help pages show is right as it stands there."""

import ast
import pathlib
import re
import shlex

import pytest

from ctl_jax import arguments, cluster, experiment, export, predict
from ctl_jax.data import commands

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def _text(path):
    """A Markdown file, or a Python file's docstring, with lines that go on joined."""
    text = path.read_text()
    if path.suffix == ".py":
        text = ast.get_docstring(ast.parse(text)) or ""
    return text.replace("\\\n", " ")


PAGES = [
    *(ROOT / name for name in ("README.md", "launch/README.md", "ctl_jax/main.py")),
    *(ROOT / name for name in ("launch/tpu.py", "launch/gke.py", "ctl_jax/data/commands.py")),
    *sorted((ROOT / "configs").glob("*.py")),
]


def _shown(pattern):
    """What stands behind the pattern, to the end of the line or of the code in it, page by page."""
    return [
        pytest.param(found, id=f"{page.name}: {found.strip()[:60]}")
        for page in PAGES
        for found in dict.fromkeys(re.findall(pattern, _text(page)))
    ]


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_python_runs(block, capsys):
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    ratio, explanation = capsys.readouterr().out.split("\n", 1)
    assert 0.4 < float(ratio) < 0.5
    assert "params/stage1_block1/conv1/kernel" in explanation


# Of the launchers the program's flags stand behind "--".
@pytest.mark.parametrize("shown", _shown(r"(?:-m ctl_jax\.main|-- )\s+(--[^`|\n]*)"))
def test_commands(shown, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = shlex.split(shown, comments=True)
    # Where any config or folder may stand, there is one.
    stand_in = {
        "--config=...": "--config=configs/nevis.py",
        "--config=C": "--config=configs/nevis.py",
    }
    given = arguments.parse(["program", *(stand_in.get(word, word) for word in words)])
    config = experiment.validate(experiment.load_config(given.config, given.overrides))
    cluster.worker_from(given.worker, {}, grouped=bool(given.group))
    short = experiment.short_names_of(given.config)
    for key, texts in given.overrides.items():
        section, _, name = short.get(key, key).rpartition(".")
        value = getattr(getattr(config, section) if section else config, name)
        if isinstance(value, tuple):
            assert len(value) == len(texts[0].split(","))


@pytest.mark.parametrize("shown", _shown(r"`(--config\.(?!section)[^`]*)`"))
def test_values(shown):
    given = arguments.parse(["program", "--config=c", "--workdir=w", *shlex.split(shown)])
    config = ROOT / "configs/nevis.py"
    assert given.overrides
    experiment.validate(experiment.load_config(f"{config}:variant=FULL", given.overrides))


@pytest.mark.parametrize("shown", _shown(r"-m ctl_jax\.data ([^`\n]*)"))
def test_data_commands(shown):
    commands._parser().parse_args(shlex.split(shown))


@pytest.mark.parametrize("shown", _shown(r"-m ctl_jax\.(?:predict|export) ([^`\n]*)"))
def test_commands_on_finished_runs(shown):
    parser = export._parser() if "--to=" in shown else predict._parser()
    parser.parse_args(shlex.split(shown))


def test_pages_show_something():
    shown = [
        _shown(pattern) for pattern in (r"-m ctl_jax\.main", r"-m ctl_jax\.data", r"`--config\.")
    ]
    assert all(map(len, shown))
    assert len(_shown(r"(?:-m ctl_jax\.main|-- )\s+(--[^`|\n]*)")) > 8
