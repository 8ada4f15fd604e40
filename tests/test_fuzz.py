"""Any command line and any config file ends with status 0, or with one line and status 2.

CTL_JAX_FUZZ_TRIES says how many of each are tried; for a long search e.g. 2000.
"""

import contextlib
import io
import os
import pathlib
import re

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ctl_jax import experiment, files
from ctl_jax.data import _preview, catalogue, cli, prepare
from ctl_jax.errors import UserError
from ctl_jax.experiment.config import KEYS
from ctl_jax.main import main
from ctl_jax.values import as_text

TRIES = int(os.environ.get("CTL_JAX_FUZZ_TRIES", "50"))

VALID = '''"""A small run."""

from ctl_jax import experiment


def get_config(arguments=""):
    args = experiment.config_arguments(arguments, variant="digits")
    config = experiment.default_config()
    config.stream.variant = args.variant
    config.data.image_size = 16
    config.model.name = "resnet18"
    config.model.stages = (1,)
    config.model.width = 8
    config.methods = ("scratch",)
    config.finetune.batch_size = 8
    config.finetune.learning_rates = (0.1,)
    config.budgets.min_flops = 1e9
    config.budgets.max_flops = 1e9
    config.budgets.num = 1
    return config
'''

# What breaks parsers: quotes, brackets, separators, spaces, what no terminal shows, what is no
# UTF-8, names of things.
NASTY = st.text(
    st.sampled_from([*"aZ019.,:;=~/\\-+@%$#*'\"()[]{}<>|&!? \t\n\r\x1b\x7f", *"é中\u2028\udce9"]),
    max_size=8,
)
NUMBERS = st.one_of(
    st.integers().map(str),
    st.floats().map(repr),
    st.sampled_from(
        ["1e400", "-1e400", "1e999999999", "0x10", "1_000", "1e3", "9" * 400, "٣", "½"]
    ),
)
WORDS = st.sampled_from(
    [
        *("", "None", "True", "no", "maybe", "dense", "Dense", " scratch", "filters@0.5"),
        *("filters@nan", "filters@1e-9", "FULL", "full", "digits", "digits+letters", "synthetic"),
        *("('a',)", "(1, 2)", "[0", "0,,1", "(0.5, 1.0)", "~", "~nobody-here/x", "/", "s3://b"),
        *("gs://", "file:///x", "C:\\x", "resnet50", "bfloat16", "random", "best", "l1", "1/2"),
    ]
)
TEXTS = st.one_of(WORDS, NUMBERS, NASTY, st.lists(NUMBERS, max_size=3).map(",".join))

ODD_KEYS = st.one_of(
    st.sampled_from(["finetune", "data.dirs.x", "", ".", "finetune.batchsize", "seed"]),
    NASTY,
)
# What makes sense for most keys of a type, in many ways of writing it.
RIGHT = {
    bool: ["true", "False", "0", "yes"],
    int: ["0", "1", "2", "16", "1e1", "1_0", "2030"],
    float: ["0", "0.5", ".1", "1e9", "5e9", "1e-4"],
    str: ["", "folder:/a", "'tfds:~/b'", "scratch", "dense+head_bn", "2epochs", "1e9 flops", "1 s"],
}
# As lists of none, one and two values.
LISTS = ["", "{}", "[{}]", "{},", "{}, {}", "({}, {})"]


def right(key):
    """Texts that may be right for a key: of its type, what its check names, its default."""
    named = re.findall(r"[\w.]+", key.check.expected) if key.check else []
    one = st.one_of(st.sampled_from(RIGHT[key.kind]), st.sampled_from(named or [""]))
    form = st.sampled_from(LISTS if key.is_list else ["{}"])
    texts = st.builds(lambda form, *values: form.format(*values), form, one, one)
    return st.one_of(texts, st.just(as_text(key.default)))


@st.composite
def words(draw):
    """One or two words of a command line."""
    key = draw(st.sampled_from(list(KEYS)))
    text = draw(right(KEYS[key]))
    forms = ["equals", "equals", "equals", "two", "switch"]
    form = draw(st.sampled_from(forms))
    wrong = draw(st.sampled_from(["", "", "key", "text", "text", "form"]))
    if wrong == "key":
        key = draw(ODD_KEYS)
    elif wrong == "text":
        text = draw(TEXTS)
    elif wrong == "form":
        form = draw(st.sampled_from(["no", "flag", "any"]))
    flag = draw(st.sampled_from(["config", "workdir", "plan", "noplan", "worker", "undefok", "x"]))
    return {
        "equals": [f"--config.{key}={text}"],
        "two": [f"--config.{key}", text],
        "switch": [f"-{draw(st.sampled_from(['', 'no']))}config.finetune.flip"],
        "no": [f"--noconfig.{key}"],
        "flag": [f"--{flag}={text}"],
        "any": [text],
    }[form]


COMMANDS = st.lists(words(), max_size=4).map(lambda found: [w for each in found for w in each])

# The line at which the file's function begins.
_BODY = VALID.splitlines().index('def get_config(arguments=""):')
TOKENS = [
    *(
        "None",
        "0",
        "-1",
        "1.5",
        "10**400",
        "10**5000",
        "(10**5000,)",
        "'x' * 10**5",
        "('x',) * 999",
        'float("nan")',
        "1j",
        "''",
        "'x'",
        '"\\0"',
        "b'x'",
    ),
    *("()", "[]", "{}", "(1, 'a')", "True", "config", "experiment", "nowhere", "1 / 0", "..."),
    *("exit()", "raise KeyError", "raise SystemExit(0)", "import nowhere", "from . import x"),
    *("lambda: 0", "get_config()", "return", "del config", "assert False", "(", ")", "'", "\\"),
    *("config.get_ref('seeds')", "config.seeds", "config.unlock()", "config.a.b.c", "object()"),
    *("range(3)", "dict(a=1)", "yield", "async", "\t", "\0", "é", "class", "=", "==", ":", "@"),
]


@st.composite
def config_files(draw):
    """The valid file, changed here and there."""
    lines = VALID.splitlines()
    for _ in range(draw(st.integers(1, 2))):
        at = draw(st.integers(_BODY, len(lines) - 1))
        token = draw(st.one_of(st.sampled_from(TOKENS), st.sampled_from(TOKENS), NASTY))
        key = draw(st.sampled_from([*KEYS, "nowhere", "finetune", "a.b"]))
        pieces = re.split(r"(\W+)", lines[at])
        piece = draw(st.integers(0, len(pieces) - 1))
        change = draw(st.sampled_from(["value", "set", "set", "token", "insert", "double", "cut"]))
        if change == "value":
            lines[at] = f"{lines[at].partition(' = ')[0]} = {token}"
        elif change == "set":
            lines.insert(-1, f"    config.{key} = {token}")
        elif change == "token":
            lines[at] = "".join([*pieces[:piece], token, *pieces[piece + 1 :]])
        elif change == "insert":
            lines.insert(at, f"    {token}")
        elif change == "double":
            lines.insert(at, lines[draw(st.integers(0, len(lines) - 1))])
        else:
            lines[at] = lines[at][: draw(st.integers(0, len(lines[at])))]
    text = "\n".join(lines) + "\n"
    if draw(st.integers(0, 20)) == 20:
        return text.encode("utf-16", "replace")
    return text.encode("utf-8", "surrogateescape")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A current folder of its own, with the valid config file."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "valid.py").write_text(VALID)
    with contextlib.chdir(folder):
        yield folder


def tried(share=1.0):
    """How often, and without shrinking by whole runs of the suite."""
    return settings(
        max_examples=max(1, int(TRIES * share)),
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )


def ends_well(*argv):
    """Runs a command line, and checks how it ends; returns the status."""
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        status = main(["ctl_jax.main", *argv])
    said = errors.getvalue()
    assert status in (0, 2)
    if status == 2:
        assert re.fullmatch(r"ctl_jax: [^\n]+\n", said), said
        assert "Traceback" not in said
    else:
        assert said == ""
    return status


@pytest.fixture
def _until_the_plan():
    """Stops a run before its plan: config, stream and folder are checked by then."""

    def run(config, workdir, console, **_):
        config = experiment.validate(config)
        experiment.runner.Store(workdir, config.to_dict())
        catalogue.stream(config.stream.variant, config.stream.stop_year)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "run", run)
        yield


@pytest.mark.usefixtures("folder", "_until_the_plan")
@tried()
@given(COMMANDS)
def test_command_lines(argv):
    ends_well("--config=valid.py", "--workdir=run", *argv)


@pytest.mark.usefixtures("_until_the_plan")
@tried()
@given(config_files(), st.sampled_from(["", "", "", ":", ":variant=digits", ":x"]))
def test_config_files(folder, content, arguments):
    (folder / "changed.py").write_bytes(content)
    ends_well(f"--config=changed.py{arguments}", "--workdir=run", "--config.seeds=0")


@pytest.mark.usefixtures("folder")
@tried(share=0.1)
@given(COMMANDS)
def test_plans(argv):
    # Sizes of networks are few, so that most plans are of programs that were traced before.
    argv = [word for word in argv if "model." not in word and "image_size" not in word]
    ends_well("--config=valid.py", "--workdir=run", *argv, "--plan")
    assert not pathlib.Path("run").exists()


@st.composite
def data_words(draw):
    """A word of a data command's line."""
    flags = ["dir", "variant", "stop_year", "out"]
    words = [".", "tfds:.", "nevis:.", "folder:.", "imported:.", "SHORT", "mnist", "x.png", "2015"]
    value = draw(st.one_of(st.sampled_from(words), TEXTS))
    forms = [value, f"--{draw(st.sampled_from(flags))}={value}", "--json", "digits", "x.png"]
    return draw(st.sampled_from(forms))


@pytest.fixture
def _harmless():
    """Nothing is downloaded, drawn or written."""

    def refuse(name, folder):
        raise UserError(f"data set {name!r}: expected a network")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "prepare", refuse)
        patch.setattr(_preview, "render", lambda title, dataset: b"")
        patch.setattr(files, "write_bytes", lambda path, content: None)
        yield


@pytest.mark.usefixtures("folder", "_harmless")
@tried()
@given(st.sampled_from(["status", "prepare", "import", "show", "x"]), st.lists(data_words()))
def test_data_commands(command, argv):
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            status = cli.main([command, *argv])
        except SystemExit as end:
            # Of --help.
            status = end.code
    assert status in (0, 2)
    # A line a data set.
    assert re.fullmatch(r"(ctl_jax\.data: [^\n]+\n)*", errors.getvalue()), errors.getvalue()
    assert bool(errors.getvalue()) == (status == 2)


@pytest.mark.usefixtures("folder", "_until_the_plan")
def test_the_valid_one_is_valid():
    assert ends_well("--config=valid.py", "--workdir=run") == 0
