"""What is shown of the config's keys: the command line's help, and docs/config.md."""

import pathlib
import re

import pytest

from ctl_jax.compute.budgets import UNITS
from ctl_jax.experiment.config import KEYS, read_value, reference
from ctl_jax.experiment.tunings import TUNINGS

DOCS = pathlib.Path(__file__).resolve().parents[3] / "docs"


def test_the_page_is_that_of_the_keys():
    page = (DOCS / "config.md").read_text()
    assert page == reference.markdown(), "python -m ctl_jax.experiment.config.reference > docs/..."
    rows = re.findall(r"^\| `([a-z0-9_.]+)[@A-Z_\[\]]*` \|", page, re.MULTILINE)
    assert sorted(rows) == sorted([*KEYS, *TUNINGS, *UNITS])


def test_help_fits_a_terminal_and_names_every_key():
    for full in (False, True):
        text = reference.help_text(full)
        words = re.findall(r"[\w.]+", text)
        assert set(KEYS) <= {word.removeprefix("config.") for word in words}
        assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("name", KEYS)
def test_a_default_is_shown_as_the_command_line_reads_it(name):
    (shown,) = re.findall(rf"--config\.{name}=(.*)", reference.help_text(full=True))
    assert read_value(name, [shown]) == KEYS[name].default


@pytest.mark.parametrize("name", KEYS)
def test_a_key_has_a_sentence_a_type_and_a_default_that_passes_its_check(name):
    key = KEYS[name]
    assert re.fullmatch(r"\S.*\.", key.sentence)
    values = key.default if key.is_list else (key.default,)
    assert {type(value) for value in values} <= {key.kind}
    assert key.check is None or key.check.holds(key.default)
    assert "|" not in key.sentence + (key.check.expected if key.check else "")
