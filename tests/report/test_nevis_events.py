"""dm_nevis's form of a run's predictions, read by other means than those that wrote it."""

import json

import numpy as np
import pytest
import safetensors.numpy

from ctl_jax import records
from ctl_jax.errors import UserError
from ctl_jax.report import nevis_events, stream
from ctl_jax.report._table import read

from .. import event_files


@pytest.fixture
def run(make_records, tmp_path):
    """A run's folder with predictions of two methods, and the lines of its records."""
    lines = make_records(seeds=(0,), budgets=(10**11,))
    (tmp_path / "arrays").mkdir()
    rng = np.random.default_rng(0)
    for number, trial in enumerate(t for t in lines if t["type"] == "trial"):
        if trial["learning_rate"] != 0.1 or trial["method"] not in ("dense", "scratch"):
            continue
        outputs = rng.standard_normal((20, 10)).astype(np.float32)
        targets = rng.integers(0, 10, 20).astype(np.int32)
        record = records.PredictRecord(
            id=f"{number:016x}",
            trial=trial["id"],
            **{name: trial[name] for name in ("task", "method", "budget", "seed")},
            split="dev_test",
            examples=20,
            classes=10,
            cross_entropy=2.5,
            top1=0.25,
            top5=0.75,
            mean_average_precision=None,
            params=1000 - number,
            params_bytes=4 * (1000 - number),
            flops=1,
            wall_s=0.0,
        )
        lines.append(records.to_json(record))
        arrays = {"outputs": outputs, "targets": targets}
        safetensors.numpy.save_file(arrays, tmp_path / "arrays" / f"{record.id}.safetensors")
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (tmp_path / "records.jsonl").write_text(text)
    return tmp_path, lines


def test_events_of_a_learner_along_the_stream(run, tmp_path):
    workdir, lines = run
    paths = nevis_events.write(str(workdir), str(tmp_path / "out"), method="scratch")
    passed = [each for each in stream.along(read(lines)) if each.method == "scratch"]
    events = [json.loads(line) for line in (tmp_path / "out/events.jsonl").read_text().splitlines()]
    assert [event["task_name"] for event in events] == ["digits", "glyphs", "textures"]
    assert [event["stream_index"] for event in events] == [1, 3, 5]
    assert [event["index_of_most_recent_train_event"] for event in events] == [0, 1, 2]
    used = [event["cumulative_train_flops_used"] for event in events]
    assert used == [each.total_flops for each in passed]
    mine = [x for x in lines if x["type"] == "predict" and x["method"] == "scratch"]
    # The largest network so far: the first one.
    assert {event["peak_parameter_count"] for event in events} == {mine[0]["params"]}
    assert {event["peak_parameter_size_bytes"] for event in events} == {4 * mine[0]["params"]}
    for event, record in zip(events, mine, strict=True):
        assert event["dataset_key"] == f"ctl_{record['task']}_dev_test"
        assert (event["top_one_correct"], event["top_five_correct"]) == (5, 15)
        arrays = safetensors.numpy.load_file(workdir / "arrays" / f"{record['id']}.safetensors")
        with np.load(event["raw_predictions_and_targets_path"]) as saved:
            np.testing.assert_array_equal(saved["targets"], arrays["targets"])
            np.testing.assert_array_equal(saved["outputs"], arrays["outputs"])
    (board,) = [path for path in paths if ".tfevents." in path.name]
    first, *found = event_files.read(board)
    assert first.file_version == "brain.Event:2"
    for event, logged in zip(events, found, strict=True):
        assert logged.step == event["index_of_most_recent_train_event"]
        values = {value.tag: value for value in logged.summary.value}
        prefix = "benchmark_metrics/dev_test"
        assert values[f"{prefix}/top_one_accuracy"].simple_value == 0.25
        flops = values[f"{prefix}/cumulative_train_flops_used"].simple_value
        assert flops == pytest.approx(event["cumulative_train_flops_used"], rel=1e-6)
        name = values[f"{prefix}/task_name"]
        assert list(name.tensor.string_val) == [event["task_name"].encode()]
        assert (name.tensor.dtype, name.metadata.plugin_data.plugin_name) == (7, "text")
        assert not {f"{prefix}/data_split", f"{prefix}/index_of_most_recent_train_event"} & set(
            values
        )


def test_several_labels_have_a_mean_average_precision():
    values = dict.fromkeys(("id", "trial", "task", "method", "budget"), "") | {"seed": 0}
    record = records.PredictRecord(
        **values,
        split="dev_test",
        examples=4,
        classes=3,
        cross_entropy=None,
        top1=None,
        top5=None,
        mean_average_precision=0.5,
        params=1,
        params_bytes=4,
        flops=1,
        wall_s=0.0,
    )
    assert nevis_events._metrics(record) == {"mean_average_precision": 0.5}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"--method=: expected one of those that the run has: dense, scratch"),
        ({"method": "none"}, r"--method='none': expected one of those that the run has: dense"),
        ({"method": "dense", "seed": 7}, r"--seed=7: expected one of those that the run has: 0"),
    ],
)
def test_which_learner_has_to_be_said(run, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        nevis_events.write(str(run[0]), str(tmp_path / "out"), **options)


def test_what_is_not_there_is_one_line(run, make_records, tmp_path, capfd):
    workdir, lines = run
    for path in (workdir / "arrays").iterdir():
        path.write_bytes(b"")
    assert nevis_events.main([str(workdir), "--out", str(tmp_path / "o"), "--method=dense"]) == 2
    assert "is not there or damaged; the run's command makes it again" in capfd.readouterr().err
    plain = [line for line in lines if line["type"] != "predict"]
    (workdir / "records.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in plain))
    assert nevis_events.main([str(workdir), "--out", str(tmp_path / "o")]) == 2
    assert "it kept no predictions; expected one with" in capfd.readouterr().err
    assert nevis_events.main([str(workdir), "--out=o", "--seed=x"]) == 2
    assert "--seed=x: expected a whole number" in capfd.readouterr().err
