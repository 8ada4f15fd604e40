"""The page of examples runs as it stands there."""

import pathlib
import re

import pytest

from ctl_jax import pruning

PAGE = (pathlib.Path(pruning.__file__).parent / "README.md").read_text()
SECTIONS = {
    title: "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    for title, text in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
}
# Libraries that ctl_jax does not need itself.
OPTIONAL = ("haiku", "equinox")


@pytest.mark.parametrize("title", SECTIONS)
def test_example(title, tmp_path, monkeypatch):
    code = SECTIONS[title]
    assert "pruning.prune(" in code or "pruning.select(" in code
    for library in OPTIONAL:
        if f"import {library}" in code:
            pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, f"README.md, {title}", "exec"), {"__name__": "example"})


def test_contents_name_every_section():
    contents = re.findall(r"\[(.+?)\]\(#(.+?)\)", PAGE)
    assert [name for name, _ in contents] == list(SECTIONS)
    for name, anchor in contents:
        assert anchor == re.sub(r"[^\w -]", "", name).lower().replace(" ", "-")
