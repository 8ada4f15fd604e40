"""What README, docs/, the config files and the help pages show is right as it stands there."""

import ast
import csv
import pathlib
import re
import shlex
import statistics

import jax
import pytest
from PIL import Image

from ctl_jax import arguments, cluster, experiment, export, exports, models, predict
from ctl_jax.data import cli
from ctl_jax.experiment.config import KEYS

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


def _text(path):
    """A Markdown file, or a Python file's docstring, with lines that go on joined."""
    text = path.read_text()
    if path.suffix == ".py":
        text = ast.get_docstring(ast.parse(text)) or ""
    return text.replace("\\\n", " ")


# The commands of results.md are of the commits that it names.
GUIDES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "launch/README.md")),
    *sorted(page for page in DOCS.rglob("*.md") if page.name != "results.md"),
]
PAGES = [
    *GUIDES,
    ROOT / "ctl_jax/main.py",
    *(ROOT / name for name in ("launch/tpu.py", "launch/gke.py", "ctl_jax/data/cli.py")),
    *sorted((ROOT / "configs").glob("*.py")),
]


def _shown(pattern):
    """What stands behind the pattern, to the end of the line or of the code in it, page by page."""
    return [
        pytest.param(found, id=f"{page.name}: {found.strip()[:60]}")
        for page in PAGES
        for found in dict.fromkeys(re.findall(pattern, _text(page)))
    ]


BLOCKS = [
    pytest.param(block, id=f"{page.name}: {number}")
    for page in GUIDES
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", _text(page), re.DOTALL))
    # Those for other people's services are run by docs/test_running.py.
    if not re.search("^import (wandb|mlflow)", block, re.MULTILINE)
]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The current folder has the files that the pages name: images, and weights by timm's names."""
    for number in range(40):
        folder = tmp_path / "flowers" / ("rose", "tulip")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 20), (5 * number, 0, 0)).save(folder / f"{number}.png")
    module = models.create("resnet18", num_outputs=5, stages=(1, 1, 1, 1), width=8)
    variables = models.init(module, jax.random.key(0), image_size=32)
    model = models.Model("resnet18", {"stages": (1, 1, 1, 1), "width": 8}, variables, "nevis", 32)
    exports.write(model, ["safetensors"], tmp_path / "exported")
    (tmp_path / "exported" / "model.safetensors").rename(tmp_path / "resnet18.safetensors")
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("block", BLOCKS)
def test_python_runs(block, capsys):
    exec(compile(block, "page.md", "exec"), {"__name__": "page"})
    # A number that a line ends with in a comment is what it prints.
    for shown in re.findall(r"^print\(.*# (\d+\.(\d+))$", block, re.MULTILINE):
        said, digits = shown
        assert f"{float(capsys.readouterr().out.split()[-1]):.{len(digits)}f}" == said


@pytest.mark.parametrize("page", GUIDES[:3], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files(page):
    """Those of docs/ are checked where the site is built."""
    for link in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert link.startswith("https://") or (page.parent / link).exists(), link


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_exist(page):
    rooms = "ctl_jax|tests|configs|launch|docs|benchmarks"
    for name in re.findall(rf"`((?:{rooms})/[\w./]*)`", page.read_text()):
        assert (ROOT / name).exists(), name


def test_the_figure_has_numbers_of_the_results():
    """Where it has not: docs/figures/auto.csv, then python docs/figures/auto.py."""
    rows = csv.DictReader((DOCS / "figures/auto.csv").read_text().splitlines())
    accuracies = {row["accuracy"] for row in rows}
    assert len(accuracies) > 10
    assert accuracies <= set(re.findall(r"\.\d+", (DOCS / "results.md").read_text()))


@pytest.mark.parametrize(
    ("results", "title"),
    [
        ("evidence", "The paper's comparison"),
        ("learners", "Learners over nine real sets"),
    ],
)
def test_means_are_those_of_their_results(results, title):
    """The first number of each cell, and the file in docs/figures/ of what it is a mean of."""
    found: dict[tuple[str, float], dict[str, list[float]]] = {}
    for row in csv.DictReader((DOCS / f"figures/{results}.csv").read_text().splitlines()):
        budget = float(row["budget"].removesuffix(" flops"))
        by_task = found.setdefault((row["method"], budget), {})
        by_task.setdefault(row["task"], []).append(float(row["dev_test"]))
    section = (DOCS / "results.md").read_text()
    section = section.split(f"\n## {title}\n")[1].split("\n## ")[0]
    for method in dict.fromkeys(method for method, _ in found):
        means = [
            statistics.fmean(map(statistics.fmean, by_task.values()))
            for (name, _), by_task in found.items()
            if name == method
        ]
        (line,) = re.findall(rf"^\| `{re.escape(method)}` (\| \W*\.\d.*)", section, re.MULTILINE)
        shown = re.findall(r"\| \W*(\.\d{3})", line)
        assert shown == [f"{mean:.3f}".lstrip("0") for mean in means]


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


# Of values alone; those of the examples in extending/ are tested with these.
@pytest.mark.parametrize(
    "shown", _shown(r"`(--config\.(?!section|SECTION|.*(?:csv:|cent))[^`=]*=[^`]*)`")
)
def test_values(shown):
    given = arguments.parse(["program", "--config=c", "--workdir=w", *shlex.split(shown)])
    config = ROOT / "configs/nevis.py"
    assert given.overrides
    experiment.validate(experiment.load_config(f"{config}:variant=FULL", given.overrides))


@pytest.mark.parametrize("shown", _shown(r"`--config\.([\w.]+)`"))
def test_keys(shown):
    assert shown in {*KEYS, *experiment.short_names_of(str(ROOT / "configs/my_task.py"))}


@pytest.mark.parametrize("shown", _shown(r"-m ctl_jax\.data ([^`\n]*)"))
def test_data_commands(shown):
    cli._parser().parse_args(shlex.split(shown))


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
