"""Watchers by name: those of the package, and functions of a user's own."""

import re

import pytest

from ctl_jax.errors import UserError
from ctl_jax.experiment import watchers
from ctl_jax.experiment.config import rules


def own(run):
    """A user's watcher."""


NOTHING = 7


def test_by_name_or_by_the_path_of_a_function():
    name = f"{__name__}:own"
    found = watchers.find(["tensorboard", name])
    assert list(found) == ["tensorboard", name]
    assert found[name] is own
    assert found["tensorboard"].__name__ == "tensorboard"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_hooks:wandb", "'no_hooks:wandb': ModuleNotFoundError: No module named 'no_hooks'"),
        (f"{__name__}:wandb", "AttributeError: .* has no attribute 'wandb'; expected PACKAGE"),
        (f"{__name__}:NOTHING", "it is 7; expected a function"),
    ],
)
def test_what_is_not_there_is_one_line(name, message):
    with pytest.raises(UserError, match=r"config\.watch=.*" + message):
        watchers.find([name])


def test_a_module_that_fails_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "broken_hooks.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="'broken_hooks:wandb': ZeroDivisionError: division by"):
        watchers.find(["broken_hooks:wandb"])


def test_a_name_is_given_once(monkeypatch):
    monkeypatch.setattr(watchers, "_WATCHERS", dict(watchers._WATCHERS))
    assert watchers.watcher("own")(own) is own
    assert watchers.find(["own"]) == {"own": own}
    with pytest.raises(UserError, match="watcher 'own': there is one of this name"):
        watchers.watcher("own")(own)


def test_the_config_knows_them():
    named = ("tensorboard", "a.b:C.d", "tensorboard")
    assert rules.known_watchers(named) == ("tensorboard", "a.b:C.d")
    text = "config.watch='tensorbord': expected one of tensorboard, or PACKAGE.MODULE:FUNCTION; did"
    with pytest.raises(UserError, match=re.escape(f"{text} you mean 'tensorboard'?")):
        rules.known_watchers(("tensorbord",))
    with pytest.raises(UserError, match=r"PACKAGE\.MODULE:FUNCTION$"):
        rules.known_watchers(("a:",))
