"""Predicts what is on images, by a trained model: one line an image, path, class and probability.

python -m ctl_jax.predict runs/flowers photo1.jpg folder/ --top=3
"""

import sys

from ctl_jax import startup, streams

if __name__ == "__main__":
    # Before the imports below, which look at the environment.
    startup.prepare("ctl_jax.predict")

import collections
import contextlib
import csv
import io
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any, NamedTuple

import numpy as np

from ctl_jax import compilation, trained
from ctl_jax.data import decoding, images
from ctl_jax.data.formats import columns, leftovers, table_files, tables
from ctl_jax.data.formats.encoded import is_picture
from ctl_jax.errors import UserError
from ctl_jax.models import Model

_COMMAND = "ctl_jax.predict"
# Images that the network takes at a time.
BATCH = 32
# Decoded images that wait for it, in batches.
_AHEAD = 3


class Picture(NamedTuple):
    """An image that is to be looked at: its name for people, and what reads the encoded file."""

    name: str
    read: Callable[[], bytes]


class Prediction(NamedTuple):
    """The likeliest classes of an image with their probabilities, or why it cannot be read."""

    name: str
    classes: list[tuple[str, float]]
    error: str = ""


def find(names: Sequence[str]) -> list[Picture]:
    """The images that paths mean.

    Args:
      names: files; folders, in which every picture counts, but for hidden ones; and tables (csv,
        tsv, jsonl, parquet) with a column of paths or of images.

    Raises:
      UserError: a folder without pictures, or no table of images. What is not there reading says.
    """
    found: list[Picture] = []
    for name in names:
        path = pathlib.Path(name).expanduser()
        if path.is_dir():
            inside = list(_inside(path))
            if not inside:
                raise UserError(f"{name}: no image in this folder; expected some")
            found += map(_file, inside)
        elif path.suffix.casefold() in tables.SUFFIXES:
            found += _of_table(path)
        else:
            found.append(_file(str(path)))
    return found


def _file(path: str) -> Picture:
    return Picture(path, pathlib.Path(path).read_bytes)


def _inside(folder: pathlib.Path) -> Iterator[str]:
    for outer, inner, names in os.walk(folder):
        inner[:] = sorted(name for name in inner if leftovers.of_folder(name) is None)
        for name in sorted(names):
            if is_picture(name) and not name.startswith("."):
                yield os.path.join(outer, name)


def _of_table(path: pathlib.Path) -> list[Picture]:
    table = tables.read(path)
    column = columns.image_of(table)
    if column in table.encoded:
        encoded = tables.ArrowImages([(path, table.encoded[column]())])
        return [
            Picture(encoded.where(row), lambda row=row: encoded.read([row])[0])  # type: ignore[misc]
            for row in range(len(encoded.sizes))
        ]
    texts = [columns.text(value) for value in table.values[column]]
    places = table_files.find(path.parent, texts)
    return [
        _file(str(path.parent / (place or text))) for place, text in zip(places, texts, strict=True)
    ]


def predict(
    model: Model, pictures: Sequence[Picture], *, top: int = 1, batch_size: int = BATCH
) -> Iterator[Prediction]:
    """What is on images, in their order.

    Images are decoded on all cores while the network computes; some batches are in memory, however
    many images there are. All batches are of one size, so that one program does.

    Args:
      model: a classifier.
      pictures: from `find`.
      top: how many classes are wanted of each, the likeliest first.
      batch_size: how many the network takes at a time.

    Yields:
      A prediction for each image.

    Raises:
      UserError: `top` is below 1, or the model says something of each pixel.
    """
    if top < 1:
        raise UserError(f"top is {top}; expected at least 1")
    size, how = model.image_size, model.preprocess.interpolation
    batch_size = max(1, min(batch_size, len(pictures)))

    def decode(picture: Picture) -> np.ndarray | str:
        try:
            return images.decode(picture.read(), size, how)
        except (OSError, UserError) as error:
            return str(error.strerror or error) if isinstance(error, OSError) else str(error)

    def compute(decoded: list[np.ndarray]) -> np.ndarray:
        batch = np.zeros((batch_size, size, size, 3), np.uint8)
        batch[: len(decoded)] = decoded
        return model.logits(batch)[: len(decoded)]

    with contextlib.ExitStack() as stack:
        pools = (
            futures.ThreadPoolExecutor(decoding.cores(), "decode"),
            futures.ThreadPoolExecutor(1),
        )
        for pool in pools:
            stack.callback(pool.shutdown, cancel_futures=True)
        decoders, computer = pools
        waiting: collections.deque[Any] = collections.deque()
        rest = iter(pictures)
        computing: collections.deque[Any] = collections.deque()
        while True:
            for picture in itertools.islice(rest, _AHEAD * batch_size - len(waiting)):
                waiting.append((picture.name, decoders.submit(decode, picture)))
            if not waiting:
                break
            count = min(batch_size, len(waiting))
            part = [(name, job.result()) for name, job in (waiting.popleft() for _ in range(count))]
            good = [each for _, each in part if not isinstance(each, str)]
            computing.append((part, computer.submit(compute, good) if good else None))
            if len(computing) > 1:
                yield from _predictions(model, top, *computing.popleft())
        for each in computing:
            yield from _predictions(model, top, *each)


def _predictions(
    model: Model, top: int, part: list[tuple[str, Any]], job: futures.Future[np.ndarray] | None
) -> Iterator[Prediction]:
    """Those of a batch."""
    logits = iter(job.result() if job else ())
    for name, decoded in part:
        if isinstance(decoded, str):
            yield Prediction(name, [], decoded)
        else:
            yield Prediction(name, _classes(model, next(logits), top))


def _classes(model: Model, logits: np.ndarray, top: int) -> list[tuple[str, float]]:
    if logits.ndim != 1:
        raise UserError(f"{model.architecture} says something of each pixel; expected a classifier")
    values = logits.astype(np.float64)
    if model.multi_label:
        probabilities = np.exp(-np.logaddexp(0, -values))
    else:
        powers = np.exp(values - values.max())
        probabilities = powers / powers.sum()
    order = np.argsort(-values, kind="stable")[:top]
    return [(model.classes[i] if model.classes else str(i), float(probabilities[i])) for i in order]


def _as_text(found: Iterator[Prediction], pictures: Sequence[Picture], top: int) -> Iterator[str]:
    width = max(len(picture.name) for picture in pictures)
    for name, classes, _ in found:
        shown = "  ".join(f"{label} {probability:.3f}" for label, probability in classes)
        yield f"{name:{width}}  {shown}"


def _as_json(found: Iterator[Prediction], pictures: Sequence[Picture], top: int) -> Iterator[str]:
    last = "["
    for name, classes, _ in found:
        predictions = [{"label": label, "probability": value} for label, value in classes]
        yield last
        last = json.dumps({"path": name, "predictions": predictions}) + ","
    yield from (("[]",) if last == "[" else (last[:-1], "]"))


def _as_csv(found: Iterator[Prediction], pictures: Sequence[Picture], top: int) -> Iterator[str]:
    def line(cells: Sequence[Any]) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="").writerow(cells)
        return text.getvalue()

    numbers = [""] if top == 1 else range(1, top + 1)
    yield line(["path", *(f"{what}{n}" for n in numbers for what in ("label", "probability"))])
    for name, classes, _ in found:
        yield line([name, *itertools.chain.from_iterable(classes)])


def main(argv: Sequence[str]) -> int:
    """Predicts what the command line says.

    Returns:
      The exit status: 0; 2 where the input is wrong, which is said in one line, or where not one
      image can be read. Single images that cannot be read are named on standard error.
    """
    return startup.guarded(_COMMAND, lambda: _run(argv))


def _run(argv: Sequence[str]) -> int:
    arguments = _parser().parse_args(argv)
    pictures = find(arguments.images)
    model = trained.open_model(arguments.model, arguments.task)
    compilation.enable_cache()
    top = min(arguments.top, model.num_classes)
    bad: list[str] = []

    def good() -> Iterator[Prediction]:
        for prediction in predict(model, pictures, top=top):
            if prediction.error:
                bad.append(prediction.name)
                startup.fail(_COMMAND, f"{prediction.name}: {prediction.error}; passed over")
            else:
                yield prediction

    for line in arguments.form(good(), pictures, top):
        print(line, flush=True)
    if len(bad) == len(pictures):
        raise UserError(f"none of {len(pictures)} images can be read; expected some")
    return 0


def _parser() -> startup.Parser:
    parser = startup.Parser(
        prog=f"python -m {_COMMAND}",
        description="Says what is on images, by a trained model: path, class and probability.",
        allow_abbrev=False,
    )
    trained.add_arguments(parser)
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGES",
        help="images, folders of them, and tables (csv, tsv, jsonl, parquet) with a column of them",
    )
    parser.add_argument(
        "--top", type=int, default=1, metavar="N", help="how many classes of each (default 1)"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--json", dest="form", action="store_const", const=_as_json, default=_as_text,
        help="print a JSON list of objects with path and predictions",
    )  # fmt: skip
    form.add_argument(
        "--csv", dest="form", action="store_const", const=_as_csv, default=_as_text,
        help="print comma-separated values, below a header",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(streams.settle(main(sys.argv[1:]), printing=True))
