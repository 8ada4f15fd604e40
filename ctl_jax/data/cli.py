"""Commands about data: what there is, what is missing, and getting it.

python -m ctl_jax.data status --variant=FULL --dir=tfds:DIR --dir=nevis:DIR --dir=folder:DIR
python -m ctl_jax.data prepare mnist cifar10 --dir=tfds:DIR
python -m ctl_jax.data import german_tsr german_tsr.zip
python -m ctl_jax.data show german_tsr --out=german_tsr.png
python -m ctl_jax.data status ~/flowers ~/birds.zip "table.csv?image=file&label=species"
python -m ctl_jax.data show ~/flowers --out=flowers.png
"""

import argparse
import collections
import functools
import json
import pathlib
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import rich.console
import rich.progress
import rich.table

from ctl_jax import files, formatting, home, object_store, startup
from ctl_jax.data import _importing, _loading, _preview, catalogue, places, prepare, sources
from ctl_jax.data import _status as state
from ctl_jax.data.dataset import DataSet
from ctl_jax.data.source import Dirs
from ctl_jax.data.sources import imported, tfds
from ctl_jax.data.task import SPLITS, TaskSpec
from ctl_jax.errors import UserError
from ctl_jax.values import read_list

_NAME = "a data set of the catalogue"
_TASK = f"{_NAME}, or the path of a folder, archive, table, TFDS or Hugging Face data set"
_STREAM = "a stream of Nevis'22, or data sets and paths joined by +"
_COMMAND = "ctl_jax.data"


def main(argv: Sequence[str]) -> int:
    """Runs a command.

    Args:
      argv: its words, without the program's name.

    Returns:
      The exit status: 0, or 2 where something was wrong, which is said in a line a thing. What an
      interrupted command has done is kept: the same command goes on.
    """
    return startup.guarded(_COMMAND, lambda: _run(argv))


def _run(argv: Sequence[str]) -> int:
    # A pipe or a file has no width; its tables should not be cut to a terminal's.
    console = rich.console.Console(width=None if sys.stdout.isatty() else 160)
    commands = {"status": _status, "prepare": _prepare, "import": _import, "show": _show}
    arguments = _parser().parse_args(argv)
    return commands[arguments.command](arguments, console)


def _parser() -> argparse.ArgumentParser:
    parser = startup.Parser(
        prog=f"python -m {_COMMAND}",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = functools.partial(_add, parser.add_subparsers(dest="command", required=True))
    status = add("status", "What there is of each task's data, and what to do about the rest.")
    status.add_argument("names", nargs="*", metavar="NAME_OR_PATH", help=_TASK)
    status.add_argument("--variant", help=f"instead of names, {_STREAM} (default FULL)")
    status.add_argument("--json", action="store_true", help="print JSON")
    prepare_ = add("prepare", "Lets TFDS download and prepare official sets, in ArrayRecord.")
    prepare_.add_argument("names", nargs="*", metavar="NAME", help=_NAME)
    prepare_.add_argument("--variant", default="", help=f"instead of NAMEs, {_STREAM}")
    for command in (status, prepare_):
        command.add_argument(
            "--stop_year",
            type=int,
            default=catalogue.ALL_YEARS,
            help="only tasks before this year (default %(default)s: all)",
        )
    import_ = add("import", "Turns a set into a TFDS one in ArrayRecord, so that runs start fast.")
    import_.add_argument("name", metavar="NAME", help=_NAME)
    import_.add_argument(
        "path", metavar="PATH", help="what dm_nevis has written, an image folder, or a zip archive"
    )
    show = add("show", "Writes a picture of a data set: samples of each class, sizes of splits.")
    show.add_argument("name", metavar="NAME_OR_PATH", help=_TASK)
    show.add_argument("--out", required=True, metavar="FILE.png", help="the picture")
    return parser


def _add(commands: Any, name: str, words: str) -> argparse.ArgumentParser:
    """A command with the flags that all of them have."""
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=words, description=words, allow_abbrev=False
    )
    kinds = ", ".join(f"{source.name} ({source.holds})" for source in sources.registered())
    # argparse takes "%" for a place to fill in.
    default = str(tfds.default_dir()).replace("%", "%%")
    command.add_argument(
        "--dir",
        action="append",
        default=[],
        metavar="KIND:DIR",
        help=f"a folder to look in, of kind {kinds}; may be given several times, or joined by "
        f"commas. Without one of kind tfds: {default}, where there is one",
    )
    return command


def _dirs(arguments: argparse.Namespace) -> list[str]:
    """The folders that are named, and TFDS's own where none of that kind is."""
    dirs = [text for joined in arguments.dir for text in read_list("--dir", joined, str)]
    if not any(places.kind_and_path(text)[0] == "tfds" for text in dirs):
        dirs += [f"tfds:{tfds.default_dir()}"] if tfds.default_dir().is_dir() else []
    return dirs


def _is(folder: pathlib.Path, text: str) -> bool:
    """Whether a text names that TFDS folder."""
    kind, path = places.kind_and_path(text)
    return kind == "tfds" and pathlib.Path(home.expand(path)) == folder


def _of_kind(kind: str, dirs: Sequence[str]) -> Dirs:
    (found,) = [there for source, there in places.resolve(dirs).items() if source.name == kind]
    return found


def _one(name: str) -> TaskSpec:
    """The data set of a name; a stream's name is refused."""
    specs = catalogue.stream(name)
    if name in catalogue.VARIANTS or len(specs) > 1:
        raise UserError(f"NAME {name!r}: expected one data set, not a stream")
    return specs[0]


def _status(arguments: argparse.Namespace, console: rich.console.Console) -> int:
    if arguments.names and arguments.variant is not None:
        raise UserError("status: expected either names and paths or --variant=STREAM")
    variant = "+".join(arguments.names) or arguments.variant or "FULL"
    found = state.look(catalogue.stream(variant, arguments.stop_year), _dirs(arguments))
    counts = collections.Counter(status.state for status in found)
    if arguments.json:
        content = {
            "variant": variant,
            "stop_year": arguments.stop_year,
            "counts": {name: counts[name] for name in state.STATES},
            "tasks": [status.as_dict() for status in found],
        }
        print(json.dumps(content, indent=2))
        return 0
    table = rich.table.Table(
        title="Tasks" if arguments.names else f"Tasks of {variant}", title_justify="left"
    )
    for column in ("task", "year", "domain", "state", "origin"):
        table.add_column(column)
    for column in ("classes", *SPLITS, "size"):
        table.add_column(column, justify="right")
    for status in found:
        table.add_row(*_cells(status))
    console.print(table)
    summary = ", ".join(
        f"{words}: {counts[name]}" for name, words in state.STATES.items() if counts[name]
    )
    console.print(f"{len(found)} tasks. {summary.capitalize()}", highlight=False)
    _print_instructions(found, console)
    notes = {status.spec.key: (_called(status.spec), _notes(status)) for status in found}
    if any(lines for _, lines in notes.values()):
        console.print("\nNotes:", highlight=False)
    for dataset, lines in notes.values():
        _print_lines(console, [f"  {dataset}: {line}" for line in lines])
    return 0


def _called(spec: TaskSpec) -> str:
    """What a line about a data set begins with."""
    return spec.name if spec.path else spec.dataset


def _notes(found: state.Status | DataSet) -> list[str]:
    return [*found.notes, *formatting.passed_over(found.passed_over)]


def _print_lines(console: rich.console.Console, lines: Iterable[str]) -> None:
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _print_instructions(found: Sequence[state.Status], console: rich.console.Console) -> None:
    """What to do, a line a data set."""
    for name in ("damaged", "can_be_prepared", "by_hand"):
        todo = {s.spec.key: f"{_called(s.spec)}: {s.instruction}" for s in found if s.state == name}
        if todo:
            console.print(f"\n{state.STATES[name].capitalize()}:", highlight=False)
        _print_lines(console, [f"  {line}" for line in todo.values()])


def _cells(status: state.Status) -> list[str]:
    spec = status.spec
    classes = "" if status.num_classes is None else str(status.num_classes)
    counts = [f"{status.examples[name]:,}" if status.examples else "" for name in SPLITS]
    size = "" if status.num_bytes is None else f"{formatting.si(status.num_bytes)}B"
    year = "" if spec.year is None else str(spec.year)
    words = state.STATES[status.state]
    return [spec.name, year, spec.domain, words, status.origin, classes, *counts, size]


def _prepare(arguments: argparse.Namespace, console: rich.console.Console) -> int:
    if bool(arguments.names) == bool(arguments.variant):
        raise UserError("prepare: expected either NAMEs of data sets or --variant=STREAM")
    dirs = _dirs(arguments)
    target = tfds.target(_of_kind("tfds", dirs))
    if target == tfds.default_dir() and home.is_temporary(target):
        raise UserError(
            "--dir=tfds:DIR: there is no home folder for what is prepared; expected a folder that "
            "lasts, here or in the variable TFDS_DATA_DIR"
        )
    if arguments.variant:
        specs = catalogue.stream(arguments.variant, arguments.stop_year)
        specs = tuple(spec for spec in specs if spec.source == "tfds")
    else:
        specs = tuple(map(_one, arguments.names))
    status = 0
    # TFDS makes the folder; until then there is nothing to be found in it.
    there = [text for text in dirs if target.is_dir() or not _is(target, text)]
    for spec in {spec.dataset: spec for spec in specs}.values():
        try:
            if (found := _loading.find_set(spec, there)) is not None:
                line = f"{spec.dataset} is there already: {found[1]}"
            elif spec.source != "tfds":
                _, instruction = state.instruction(spec, dirs)
                raise UserError(f"data set {spec.dataset!r} is not in TFDS: {instruction}")
            else:
                line = f"prepared {spec.dataset}: {prepare.prepare(spec.dataset, target)}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        except UserError as error:
            # A network that is away is no wrong input: the same command may do it later.
            cause = error.__cause__
            is_away = cause is not None and object_store.may_pass(cause)
            worse = startup.fail(_COMMAND, error, 1 if is_away else startup.BAD_INPUT)
            status = max(status, worse)
    return status


def _import(arguments: argparse.Namespace, console: rich.console.Console) -> int:
    spec = _one(arguments.name)
    target = _of_kind("imported", _dirs(arguments))[0]
    if target == imported.default_dir() and home.is_temporary(target):
        raise UserError(
            "--dir=imported:DIR: there is no home folder for what is imported; expected a folder "
            "that lasts, here or in the variable CTL_JAX_IMPORTED"
        )
    dataset = _importing.open_source(spec, pathlib.Path(home.expand(arguments.path)))
    with rich.progress.Progress(console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(f"importing {spec.dataset}")
        _importing.import_set(
            dataset,
            spec.dataset,
            home.in_utf8(target),
            lambda done, total: progress.update(bar, completed=done, total=total),
        )
    counts = ", ".join(f"{name} {len(dataset.splits[name]):,}" for name in SPLITS)
    line = f"imported {spec.dataset} ({dataset.num_classes} classes; {counts}): "
    line += str(imported.folder(target, spec.dataset))
    _print_lines(console, [line, *_notes(dataset)])
    return 0


def _show(arguments: argparse.Namespace, console: rich.console.Console) -> int:
    spec, dirs = _one(arguments.name), _dirs(arguments)
    path = pathlib.Path(home.expand(arguments.out))
    if path.suffix.lower() != ".png":
        raise UserError(f"--out={arguments.out}: expected the name of a .png file")
    if _loading.find_set(spec, dirs) is None:
        _, instruction = state.instruction(spec, dirs)
        raise UserError(f"data set {spec.dataset!r} is not there: {instruction}")
    dataset = _loading.open_set(spec, dirs)
    content = _preview.render(spec.title, dataset)
    try:
        files.write_bytes(path, content)
    except OSError as error:
        raise UserError(f"--out={arguments.out}: cannot be written ({error.strerror})") from error
    _print_lines(console, [f"wrote {path}", *_notes(dataset)])
    return 0
