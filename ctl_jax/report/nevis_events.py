"""Writes what a run predicted as dm_nevis writes it, for the tools that read that.

    python -m ctl_jax.report.nevis_events runs/previous --out=nevis_output
    python -m ctl_jax.report.nevis_events runs/several --method=dynamic --seed=0 --out=nevis_output

The run has to have kept its predictions, `--config.keep_predictions=true`. dm_nevis
(github.com/google-deepmind/dm_nevis at 7dc53a24: experiments_jax/metrics/nevis_metrics.py and
dm_nevis/benchmarker/environment/) has no plotting code of its own and pickles none of this: a
prediction event is a folder of raw predictions, and a line of numbers, which go to TensorBoard. So
there are

- predictions/event_N/raw_predictions.npz: `targets` and `outputs`, of several labels an image
  probabilities, else logits. N counts training events and prediction events, which alternate;
- benchmark_metrics/events.out.tfevents.*: each number of each event, under the tags and at the
  steps that dm_nevis gives them: `tensorboard --logdir=DIR` shows them;
- events.jsonl: the same, a JSON object an event, with all of its fields.

`cumulative_train_flops_used` is `total_flops` of `stream.csv`: with features, cuts, and the choice
of what tasks start from, which dm_nevis leaves out. `peak_parameter_count` is that of the largest
network so far, as it is after the cut, in float32.
"""

import io
import json
import pathlib
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ctl_jax import startup, streams

if __name__ == "__main__":
    # Before the imports below, which look at the environment.
    startup.prepare("ctl_jax.report.nevis_events", with_jax=False)

import numpy as np
import safetensors.numpy
import tensorboardX
from tensorboardX.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2

from ctl_jax import files, records
from ctl_jax.compute import Budget
from ctl_jax.errors import UserError
from ctl_jax.records import PredictRecord, RunTask
from ctl_jax.report._loading import read_lines
from ctl_jax.report._table import read
from ctl_jax.report.stream import Passed, along

_COMMAND = "ctl_jax.report.nevis_events"
_KINDS = {"multi_label": "MULTI_LABEL_CLASSIFICATION", "single_label": "CLASSIFICATION"}
# What TensorBoardWriter takes out of an event: what its tags begin with, and its step.
_PREFIX, _SPLIT, _STEP = "benchmark_metrics", "data_split", "index_of_most_recent_train_event"


def write(
    workdir: str, out: str, *, method: str = "", budget: str = "", seed: int | None = None
) -> list[files.Path]:
    """Writes the prediction events of one learner of a run.

    Args:
      workdir: of the run.
      out: folder of the files.
      method: the learner's name, budget and seed; each may be left out where the run has one.
      budget: see `method`.
      seed: see `method`.

    Returns:
      The paths of the files.

    Raises:
      UserError: the run kept no predictions, or several learners'.
    """
    lines = read_lines(workdir)
    table, found = read(lines), list(_predictions(lines))
    if not found:
        raise UserError(
            f"run {workdir}: it kept no predictions; expected one with "
            f"--config.keep_predictions=true"
        )
    budget = str(Budget.parse(budget)) if budget else ""
    chosen = {
        "method": _only("--method", method, [each.method for each in found]),
        "budget": _only("--budget", budget, [each.budget for each in found]),
        "seed": _only("--seed", seed, [each.seed for each in found]),
    }
    place, folder = files.path(out), files.path(workdir)
    mine = {
        each.task: each
        for each in found
        if all(getattr(each, name) == value for name, value in chosen.items())
    }
    passed = [
        each
        for each in along(table)
        if all(getattr(each, name) == value for name, value in chosen.items())
    ]
    tasks = {task.name: task for task in table.tasks}
    contents: dict[str, bytes] = {}
    events = []
    for event in _events(passed, mine, tasks, place):
        path = f"predictions/event_{event['stream_index']}/raw_predictions.npz"
        contents[path] = _raw(folder, mine[event["task_name"]])
        events.append(event)
    contents[f"{_PREFIX}/events.out.tfevents.0.ctl_jax"] = tensorboard(events)
    contents["events.jsonl"] = "".join(f"{json.dumps(event)}\n" for event in events).encode()
    for name, content in contents.items():
        files.write_bytes(place / name, content)
    return [place / name for name in contents]


def _predictions(lines: Iterable[Mapping[str, Any]]) -> Iterator[PredictRecord]:
    for number, line in enumerate(lines, start=1):
        if line.get("type") == PredictRecord.type:
            record = records.from_json(line, number)
            assert isinstance(record, PredictRecord)
            yield record


def _only(flag: str, given: Any, there: Sequence[Any]) -> Any:
    """The value that is given, or the only one that there is.

    Raises:
      UserError: it is not there, or there are several.
    """
    known = list(dict.fromkeys(there))
    if given in (None, "") and len(known) == 1:
        return known[0]
    if given not in known:
        shown = "" if given in (None, "") else repr(given)
        listed = ", ".join(map(str, known))
        raise UserError(f"{flag}={shown}: expected one of those that the run has: {listed}")
    return given


def _events(
    passed: Sequence[Passed],
    predictions: Mapping[str, PredictRecord],
    tasks: Mapping[str, RunTask],
    out: files.Path,
) -> Iterator[dict[str, Any]]:
    """The prediction events along the stream, as dm_nevis's `aggregate_predict_event` has them."""
    largest = 0
    for each in passed:
        # Where every trial of a task diverged there is no network, and no event.
        if (record := predictions.get(each.task)) is None:
            continue
        task, largest = tasks[each.task], max(largest, record.params)
        index = 2 * each.number - 1
        path = out / "predictions" / f"event_{index}" / "raw_predictions.npz"
        yield {
            "raw_predictions_and_targets_path": str(path),
            "stream_index": index,
            _STEP: each.number - 1,
            "task_name": each.task,
            "task_kind": f"TaskKind.{_KINDS[task.kind or 'single_label']}",
            "dataset_key": f"{task.dataset}_{record.split}",
            _SPLIT: record.split,
            "cumulative_train_flops_used": each.total_flops,
            "peak_parameter_count": largest,
            "peak_parameter_size_bytes": record.params_bytes // record.params * largest,
            "num_examples": record.examples,
            **_metrics(record),
        }


def _metrics(record: PredictRecord) -> dict[str, Any]:
    if record.mean_average_precision is not None:
        return {"mean_average_precision": record.mean_average_precision}
    assert record.top1 is not None
    # Of fewer than five classes every one is among the first five, there.
    top5 = 1.0 if record.top5 is None else record.top5
    return {
        "cross_entropy": record.cross_entropy,
        "top_one_accuracy": record.top1,
        "top_five_accuracy": top5,
        "top_one_correct": round(record.top1 * record.examples),
        "top_five_correct": round(top5 * record.examples),
    }


def _raw(workdir: files.Path, record: PredictRecord) -> bytes:
    """The content of an event's file of raw predictions.

    Raises:
      UserError: what the run kept is not there.
    """
    path = workdir / "arrays" / f"{record.id}.safetensors"
    try:
        arrays = safetensors.numpy.load(files.read_bytes(path))
    except (FileNotFoundError, safetensors.SafetensorError):
        raise UserError(
            f"run {workdir}: arrays/{record.id}.safetensors is not there or damaged; the run's "
            f"command makes it again"
        ) from None
    content = io.BytesIO()
    np.savez(content, targets=arrays["targets"], outputs=arrays["outputs"])
    return content.getvalue()


def tensorboard(events: Iterable[Mapping[str, Any]]) -> bytes:
    """The content of a file of TensorBoard events, as dm_nevis's `TensorBoardWriter` logs them.

    First the version of the file, then a summary an event: numbers as simple values, texts as
    tensors for the text plugin.

    Args:
      events: numbers and texts by name, with the step and the split.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "events")
        writer = tensorboardX.RecordWriter(str(path))
        # The clock is left out: the same run gives the same bytes.
        writer.write(event_pb2.Event(file_version="brain.Event:2").SerializeToString())
        for event in events:
            values = [
                _value(f"{_PREFIX}/{event[_SPLIT]}/{name}", value)
                for name, value in event.items()
                if name not in (_STEP, _SPLIT)
            ]
            step, summary = event[_STEP], summary_pb2.Summary(value=values)
            made = event_pb2.Event(wall_time=step, step=step, summary=summary)
            writer.write(made.SerializeToString())
        writer.close()
        return path.read_bytes()


def _value(tag: str, value: float | str) -> Any:
    """A `Summary.Value`."""
    if not isinstance(value, str):
        return summary_pb2.Summary.Value(tag=tag, simple_value=value)
    plugin = summary_pb2.SummaryMetadata.PluginData(plugin_name="text")
    return summary_pb2.Summary.Value(
        tag=tag,
        metadata=summary_pb2.SummaryMetadata(plugin_data=plugin),
        tensor=tensor_pb2.TensorProto(
            dtype="DT_STRING",
            tensor_shape=tensor_shape_pb2.TensorShapeProto(),
            string_val=[value.encode()],
        ),
    )


def main(argv: Sequence[str]) -> int:
    """Writes what the command line says.

    Returns:
      The exit status: 0; 2 where the input is wrong, which is said in one line.
    """
    return startup.guarded(_COMMAND, lambda: _run(argv))


def _run(argv: Sequence[str]) -> int:
    given = _parser().parse_args(argv)
    if given.seed is not None and not re.fullmatch(r"[0-9]+", given.seed):
        raise UserError(f"--seed={given.seed}: expected a whole number")
    seed = None if given.seed is None else int(given.seed)
    paths = write(given.run, given.out, method=given.method, budget=given.budget, seed=seed)
    for path in paths:
        print(f"wrote {path}")
    return 0


def _parser() -> startup.Parser:
    parser = startup.Parser(
        prog=f"python -m {_COMMAND}",
        description="Writes what a run predicted as dm_nevis writes it.",
        allow_abbrev=False,
    )
    parser.add_argument("run", metavar="RUN", help="the --workdir of a run that kept predictions")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where the files go")
    parser.add_argument("--method", default="", help="of a run with several methods: which")
    parser.add_argument("--budget", default="", help="of a run with several budgets: which")
    parser.add_argument("--seed", help="of a run with several seeds: which")
    return parser


if __name__ == "__main__":
    sys.exit(streams.settle(main(sys.argv[1:]), printing=True))
