"""Writes the report of a finished run again, or one that compares several.

    python -m ctl_jax.report runs/quickstart
    python -m ctl_jax.report runs/seeds0 runs/seeds1 --out=runs/both
    python -m ctl_jax.report in21k=runs/a in1k=runs/b --baseline='dense (in1k)' --out=runs/weights

Runs are put together: other seeds, methods, budgets and tasks stand beside each other. With a label
a run's methods end with it, so that runs of other weights can be told apart.
"""

import sys

from ctl_jax import startup, streams

if __name__ == "__main__":
    # Before the imports below, which look at the environment.
    startup.prepare("ctl_jax.report", with_jax=False)

from collections.abc import Sequence

from ctl_jax import report
from ctl_jax.report._merging import split

_COMMAND = "ctl_jax.report"


def main(argv: Sequence[str]) -> int:
    """Reports what the command line says.

    Returns:
      The exit status: 0; 2 where the input is wrong, which is said in one line.
    """
    return startup.guarded(_COMMAND, lambda: _run(argv))


def _run(argv: Sequence[str]) -> int:
    given = _parser().parse_args(argv)
    several = len(given.runs) > 1 or split(given.runs[0])[0]
    workdir = "" if several else given.runs[0]
    lines = report.read_runs(given.runs)
    shown = report.summary(lines, workdir, given.baseline)
    out = given.out or workdir
    for path in report.write(lines, out, given.baseline) if out else ():
        print(f"wrote {path}")
    print(f"\n{shown}")
    return 0


def _parser() -> startup.Parser:
    parser = startup.Parser(
        prog=f"python -m {_COMMAND}",
        description="Writes the report of a run again, or one that compares several runs.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="[LABEL=]RUN",
        help="the --workdir of a run; with a label its methods are told apart from other runs'",
    )
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        help="where the report goes (default: the run's folder; of several runs it is not written)",
    )
    parser.add_argument(
        "--baseline",
        metavar="METHOD",
        help="the method that others are compared with (default: dense, or the first)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(streams.settle(main(sys.argv[1:]), printing=True))
