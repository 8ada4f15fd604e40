"""Writes a trained model in forms that other programs run.

python -m ctl_jax.export runs/flowers --to=safetensors,onnx,stablehlo --out=small
"""

import sys
from collections.abc import Sequence

from ctl_jax import startup, streams

if __name__ == "__main__":
    # Before the imports below, which look at the environment.
    startup.prepare("ctl_jax.export")

from ctl_jax import exports, trained
from ctl_jax.errors import UserError
from ctl_jax.values import read_list

_COMMAND = "ctl_jax.export"


def main(argv: Sequence[str]) -> int:
    """Exports what the command line says.

    Returns:
      The exit status: 0, or 2 where the input is wrong, which is said in one line.
    """
    return startup.guarded(_COMMAND, lambda: _run(argv))


def _run(argv: Sequence[str]) -> int:
    arguments = _parser().parse_args(argv)
    targets = read_list("--to", arguments.to, str)
    if not targets:
        raise UserError(f"--to is empty; expected some of {', '.join(exports.TARGETS)}")
    model = trained.open_model(arguments.model, arguments.task)
    for path in exports.write(model, targets, arguments.out):
        print(path)
    return 0


def _parser() -> startup.Parser:
    parser = startup.Parser(
        prog=f"python -m {_COMMAND}",
        description="Writes a trained model in forms that other programs run.",
        allow_abbrev=False,
    )
    trained.add_arguments(parser)
    parser.add_argument(
        "--to",
        default="safetensors",
        metavar="LIST",
        help=f"forms, joined by commas: {', '.join(exports.TARGETS)} (default %(default)s)",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder of the files")
    return parser


if __name__ == "__main__":
    sys.exit(streams.settle(main(sys.argv[1:]), printing=True))
