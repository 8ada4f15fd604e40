"""The README's Python runs as it stands there."""

import pathlib
import re

import pytest

README = (pathlib.Path(__file__).resolve().parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_python_runs(block, capsys):
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    ratio, explanation = capsys.readouterr().out.split("\n", 1)
    assert 0.4 < float(ratio) < 0.5
    assert "params/stage1_block1/conv1/kernel" in explanation
