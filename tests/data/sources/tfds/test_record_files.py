"""Several record files as one sequence."""

import pathlib
import pickle
import threading
from collections.abc import Callable
from concurrent import futures

import hypothesis
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from hypothesis import strategies as st

from ctl_jax.data.sources.tfds import record_files
from ctl_jax.data.sources.tfds.record_files import RecordFiles
from ctl_jax.errors import UserError

LENGTHS = (3, 1, 5, 2)


def record(position: int) -> bytes:
    return b"record %d" % position


@pytest.fixture(params=record_files.FORMATS)
def paths(
    request: pytest.FixtureRequest, frame: Callable[[bytes], bytes], tmp_path: pathlib.Path
) -> list[str]:
    """Files with records that are numbered from the first to the last."""
    result, start = [], 0
    for number, length in enumerate(LENGTHS):
        path = tmp_path / f"{number}.{request.param}"
        records = [record(position) for position in range(start, start + length)]
        if request.param == "tfrecord":
            path.write_bytes(b"".join(map(frame, records)))
        else:
            writer = ArrayRecordWriter(str(path), "group_size:1")
            for one in records:
                writer.write(one)
            writer.close()
        result.append(str(path))
        start += length
    return result


def whole(paths: list[str]) -> RecordFiles:
    return RecordFiles(paths, LENGTHS, paths[0].rpartition(".")[2])


@hypothesis.given(st.lists(st.integers(0, sum(LENGTHS) - 1), max_size=15))
@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
def test_any_records_in_any_order(paths: list[str], positions: list[int]) -> None:
    files = whole(paths)
    assert len(files) == sum(LENGTHS)
    assert files.read(positions) == [record(position) for position in positions]


def test_file_and_position(paths: list[str]) -> None:
    files = whole(paths)
    assert [files.where(position) for position in (0, 2, 3, 4, 10)] == [
        f"{paths[0]!r}, record 0",
        f"{paths[0]!r}, record 2",
        f"{paths[1]!r}, record 0",
        f"{paths[2]!r}, record 0",
        f"{paths[3]!r}, record 1",
    ]


def test_no_files() -> None:
    assert len(RecordFiles([], [], "tfrecord")) == 0
    assert RecordFiles([], [], "tfrecord").read([]) == []


def test_threads_and_few_open_files(paths: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_files, "_IDLE", 2)
    files = pickle.loads(pickle.dumps(whole(paths)))
    everything = [record(position) for position in range(sum(LENGTHS))]
    start = threading.Barrier(8)

    def read(thread: int) -> None:
        start.wait()
        for turn in range(20):
            first = (thread + turn) % len(everything)
            assert files.read(range(first, len(everything))) == everything[first:]

    with futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(read, range(8)))
    assert len(files._idle) <= 2
    assert all(reader.is_open() for _, reader in files._idle)


def test_readers_are_used_again(paths: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    files = whole(paths)
    files.read(range(len(files)))

    def fail(path: str) -> None:
        raise AssertionError(f"{path} is opened or indexed again")

    monkeypatch.setattr(record_files, "_open_array_record", fail)
    monkeypatch.setattr("ctl_jax.data._tfrecord.index", fail)
    assert files.read([10, 0]) == [record(10), record(0)]


def test_files_that_are_gone_or_have_other_records(paths: list[str]) -> None:
    pathlib.Path(paths[1]).unlink()
    pathlib.Path(paths[2]).write_bytes(pathlib.Path(paths[0]).read_bytes())
    files = whole(paths)
    assert files.read([0, 10]) == [record(0), record(10)]
    with pytest.raises(UserError, match=r"1\.\w+' .*No such file"):
        files.read([3])
    with pytest.raises(UserError, match=r"2\.\w+' has 3 records; expected 5"):
        files.read([4])
