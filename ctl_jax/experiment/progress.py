"""Progress of a run: two bars on a terminal, plain lines elsewhere."""

import contextlib
from collections.abc import Iterator

import rich.console
import rich.progress


class Progress:
    """One bar for the run, by FLOPs, and one for what it does at the moment, by steps.

    Where the output is no terminal, each stage becomes one line when it is done.
    """

    def __init__(self, console: rich.console.Console):
        self._console = console
        self._bars = rich.progress.Progress(
            rich.progress.TextColumn("{task.description:<44.44}"),
            rich.progress.BarColumn(),
            rich.progress.TaskProgressColumn(),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._run = self._bars.add_task("run", total=None)
        self._stage: rich.progress.TaskID | None = None

    def __enter__(self) -> "Progress":
        self._bars.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._bars.stop()

    @contextlib.contextmanager
    def stage(self, label: str, steps: int) -> Iterator[None]:
        """Shows a bar for `steps` steps while the body runs."""
        self._stage = self._bars.add_task(label, total=steps)
        try:
            yield
        finally:
            self._bars.remove_task(self._stage)
            self._stage = None

    def step(self, done: int) -> None:
        """The stage has made `done` steps."""
        if self._stage is not None:
            self._bars.update(self._stage, completed=done)

    def set(self, done: int, total: int) -> None:
        """The run has come to `done` of `total` FLOPs, as far as is known what it will do."""
        self._bars.update(self._run, completed=done, total=total)

    def advance(self, flops: int, line: str = "") -> None:
        """The run is `flops` further; `line` says by what."""
        self._bars.update(self._run, advance=flops)
        if line:
            self._console.print(line, highlight=False, soft_wrap=True, markup=False)
