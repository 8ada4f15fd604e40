"""Bars on a terminal, lines elsewhere."""

import io

import pytest
import rich.console

from ctl_jax.experiment.progress import Progress


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_is_lines_elsewhere_and_bars_on_a_terminal(terminal):
    console = rich.console.Console(file=io.StringIO(), force_terminal=terminal, width=100)
    with Progress(console) as progress:
        progress.set(0, 10)
        with progress.stage("digits, dense", steps=4):
            progress.step(2)
        progress.advance(5, "[1/2] done")
        progress.advance(5)
    printed = console.file.getvalue()
    assert "[1/2] done" in printed
    assert ("\x1b[" in printed) == terminal
    if not terminal:
        assert printed == "[1/2] done\n"
