"""The command line: flags of the program, and values for keys of the config."""

import pytest

from ctl_jax import arguments
from ctl_jax.errors import UserError
from ctl_jax.experiment.config import KEYS

GIVEN = ("--config=c.py", "--workdir=w")


def _parse(*words):
    return arguments.parse(["program", *words])


def test_flags():
    given = _parse("--config=c.py:x=1", "--workdir", "w", "--plan", "--worker=0/2", "-group=auto")
    assert given == arguments.Arguments("c.py:x=1", {}, "w", True, "0/2", "auto")
    assert _parse(*GIVEN) == arguments.Arguments("c.py", {}, "w", False, "", "")
    assert not _parse(*GIVEN, "--plan", "--noplan").plan
    # As scripts do that add to a command line; two config files would be another matter.
    assert _parse(*GIVEN, "--workdir=v", "--config=c.py").workdir == "v"


@pytest.mark.parametrize(
    ("words", "overrides"),
    [
        (["--config.seeds=0"], {"seeds": ["0"]}),
        (["-config.seeds", "0"], {"seeds": ["0"]}),
        (["--config.seeds=0", "--config.seeds=1,2"], {"seeds": ["0", "1,2"]}),
        (["--config.weights="], {"weights": [""]}),
        (["--config.weights=a=b"], {"weights": ["a=b"]}),
        (["--config.finetune.learning_rates", "-1"], {"finetune.learning_rates": ["-1"]}),
        (["--config.finetune.flip"], {"finetune.flip": ["true"]}),
        (["--config.finetune.flip", "no"], {"finetune.flip": ["no"]}),
        (["--noconfig.finetune.flip"], {"finetune.flip": ["false"]}),
        (["--config.finetune.flip", "--plan"], {"finetune.flip": ["true"]}),
    ],
)
def test_values_of_the_config(words, overrides):
    assert _parse(*GIVEN, *words).overrides == overrides
    assert _parse(*words, *GIVEN).overrides == overrides


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], r"--config: expected a config file, e\.g\. configs/quickstart\.py"),
        (["--config="], "--config: expected a config file"),
        (["--config"], "Missing value for flag --config"),
        (["--config=c.py"], "--workdir: expected the run's folder"),
        ([*GIVEN, "--config=d.py"], "--config=d.py: expected one config file, there is c.py too"),
        ([*GIVEN, "--workdirs=w"], r"^--workdirs: unknown flag; did you mean --workdir\?$"),
        ([*GIVEN, "--seeds=w"], r"^--seeds: unknown flag; did you mean --config\.seeds\?$"),
        ([*GIVEN, "--flip"], r"did you mean --config\.finetune\.flip\?$"),
        ([*GIVEN, "--confg.seeds=0"], r"did you mean --config\.seeds\?$"),
        ([*GIVEN, "--zzz=0"], "^--zzz: unknown flag; see --help$"),
        ([*GIVEN, "-é\n"], "unknown flag; see --help$"),
        ([*GIVEN, "--plan=maybe"], "--plan=maybe"),
        ([*GIVEN, "--noplan=1"], "--noplan"),
        ([*GIVEN, "stray"], "unexpected argument 'stray'; expected flags only"),
        ([*GIVEN, "--", "--plan"], "unexpected argument '--plan'"),
        ([*GIVEN, "--=3"], "unexpected argument '--=3'"),
        ([*GIVEN, "--config.=3"], "config.: unknown key"),
        ([*GIVEN, "--config.finetune=3"], r"config\.finetune: a section; .*config\.finetune\."),
        ([*GIVEN, "--config.data.dirs.x=1"], "did you mean config.data.dirs"),
        ([*GIVEN, "--config.finetune.batchsize=1"], "did you mean config.finetune.batch_size"),
        ([*GIVEN, "--config.finetune.batch_size"], "config.finetune.batch_size: expected a value"),
        ([*GIVEN, "--config.weights", "--plan"], "config.weights: expected a value"),
        ([*GIVEN, "--noconfig.seeds"], r"--noconfig\.seeds: expected --config\.seeds=VALUE"),
        ([*GIVEN, "--noconfig.finetune.flip=1"], "expected --config.finetune.flip=VALUE"),
        ([*GIVEN, "--flagfile=/nowhere"], "--flagfile: Unable to open flagfile.*'/nowhere'"),
        ([*GIVEN, "--flagfile"], "--flagfile"),
        ([*GIVEN, "--flagfile=."], "--flagfile: .*directory"),
    ],
)
def test_what_is_wrong_is_named(words, expected):
    with pytest.raises(UserError, match=expected) as error:
        _parse(*words)
    assert "\n" not in str(error.value).replace("-é\n", "")


def test_flags_from_a_file(tmp_path):
    file = tmp_path / "flags"
    file.write_text("# A run.\n--workdir=w\n--config.seeds=0\n")
    given = _parse("--config=c.py", f"--flagfile={file}", "--config.seeds=1")
    assert (given.workdir, given.overrides) == ("w", {"seeds": ["0", "1"]})
    file.write_bytes(b"\xff\xfe\0")
    with pytest.raises(UserError, match=r"^--flagfile: .*; expected a text with a flag a line$"):
        _parse(f"--flagfile={file}")


@pytest.mark.parametrize("flag", ["--help", "-h", "-?", "--helpshort", "--helpfull"])
def test_help(flag):
    text = arguments.help_text(["program", "--workdir=w", "--wrong", flag], "Does this.\n\n")
    assert text.startswith("Does this.\n")
    for each in ("--config:", "--workdir:", "--[no]plan", "--worker:", "--config.KEY=VALUE"):
        assert each in text
    keys = [f"--config.{key}=" in text for key in KEYS]
    assert all(keys) if flag == "--helpfull" else not any(keys)


def test_no_help_is_asked_for():
    assert arguments.help_text(["program", *GIVEN, "--", "--help"], "Does this.") == ""
