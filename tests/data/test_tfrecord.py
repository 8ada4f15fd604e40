"""TFRecord files: reading at any place, damage found and named."""

import pathlib
from collections.abc import Callable

import hypothesis
import pytest
from hypothesis import strategies as st

from ctl_jax.data import _tfrecord
from ctl_jax.errors import UserError


def test_reads_what_was_written(frame: Callable[[bytes], bytes], tmp_path: pathlib.Path) -> None:
    records = [b"", b"a", b"bcd" * 100, bytes(1000)]
    path = tmp_path / "x.tfrecord"
    path.write_bytes(b"".join(map(frame, records)))
    assert _read(path) == records
    path.write_bytes(b"")
    assert _read(path) == []


def test_damage_is_named(frame: Callable[[bytes], bytes], tmp_path: pathlib.Path) -> None:
    path = tmp_path / "x.tfrecord"
    first, second = frame(b"first record"), frame(b"second record")
    whole = first + second
    path.write_bytes(whole)
    assert len(_read(path)) == 2
    place = len(first)
    damages = [
        (whole[:-1], 1, place, "ends within the record"),
        (whole[: place + 12], 1, place, "ends within the record"),
        (whole[: place + 3], 1, place, "ends within a record's length"),
        (whole + b"\0", 2, len(whole), "ends within a record's length"),
        (_flip(whole, place + 2), 1, place, "checksum of the length"),
        (_flip(whole, place + 9), 1, place, "checksum of the length"),
        (_flip(whole, place + 15), 1, place, "checksum of the data"),
        (_flip(whole, len(whole) - 1), 1, place, "checksum of the data"),
        (_flip(whole, 13), 0, 0, "checksum of the data"),
    ]
    for content, record, byte, what in damages:
        path.write_bytes(content)
        with pytest.raises(UserError) as error:
            _read(path)
        message = str(error.value)
        assert "\n" not in message
        assert str(path) in message
        assert f"record {record} at byte {byte}" in message
        assert what in message


@hypothesis.given(
    st.lists(st.binary(max_size=40), min_size=1, max_size=12), st.data(), st.integers(20, 200)
)
@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
def test_records_at_any_places(
    frame: Callable[[bytes], bytes],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    records: list[bytes],
    chosen: st.DataObject,
    at_once: int,
) -> None:
    path = tmp_path / "x.tfrecord"
    path.write_bytes(b"".join(map(frame, records)))
    places = _tfrecord.index(path)
    assert len(places) == len(records)
    assert places.lengths.tolist() == [len(record) for record in records]
    assert [frame(record)[-4:] for record in records] == [
        checksum.tobytes() for checksum in places.checksums.astype("<u4")
    ]
    # So that a run of neighbours is read in pieces.
    monkeypatch.setattr(_tfrecord, "_READ", at_once)
    positions = chosen.draw(st.lists(st.integers(0, len(records) - 1), max_size=20))
    assert _tfrecord.read_at(places, positions) == [records[place] for place in positions]
    assert _tfrecord.read_at(places, range(len(records))) == records


def test_only_what_is_read_is_checked(
    frame: Callable[[bytes], bytes], tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "x.tfrecord"
    parts = [frame(bytes([k]) * 50) for k in range(4)]
    whole = b"".join(parts)
    path.write_bytes(_flip(whole, 2 * len(parts[0]) + 20))
    places = _tfrecord.index(path)
    assert _tfrecord.read_at(places, [3, 1]) == [b"\3" * 50, b"\1" * 50]
    with pytest.raises(UserError, match=f"record 2 at byte {2 * len(parts[0])}: the checksum"):
        _tfrecord.read_at(places, [3, 2, 1])


def test_files_that_change_after_they_were_indexed(
    frame: Callable[[bytes], bytes], tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "x.tfrecord"
    path.write_bytes(frame(b"first record") + frame(b"second record"))
    places = _tfrecord.index(path)
    path.write_bytes(frame(b"first record"))
    assert _tfrecord.read_at(places, [0]) == [b"first record"]
    with pytest.raises(UserError, match="record 1 at byte 28: the file ends within the record"):
        _tfrecord.read_at(places, [0, 1])
    path.unlink()
    for read in (lambda: _tfrecord.read_at(places, [0]), lambda: _tfrecord.index(path)):
        with pytest.raises(UserError, match=r"x\.tfrecord' cannot be read: No such file"):
            read()


def test_lengths_that_point_anywhere(
    frame: Callable[[bytes], bytes], tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "x.tfrecord"
    first = frame(b"first record")
    # As long as a length can be, and one that leads into the middle of the next record.
    for length in (b"\xff" * 8, b"\x07" + b"\0" * 7):
        second = frame(b"second record")
        path.write_bytes(first + length + second[8:] + first * 3)
        with pytest.raises(UserError, match=f"record 1 at byte {len(first)}: the checksum of the"):
            _tfrecord.index(path)


def _read(path: pathlib.Path) -> list[bytes]:
    places = _tfrecord.index(path)
    return _tfrecord.read_at(places, range(len(places)))


def _flip(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :]


INTEGERS = st.lists(st.integers(-(1 << 63), (1 << 63) - 1), max_size=4)


@hypothesis.given(features=st.dictionaries(st.text(max_size=5), st.binary() | INTEGERS, max_size=4))
def test_values(example: Callable[..., bytes], features: dict[str, bytes | list[int]]) -> None:
    found = _tfrecord.parse(example(**features))
    for name, value in features.items():
        if isinstance(value, bytes):
            assert list(_tfrecord.values(found, name, "bytes_list")) == [value]
        else:
            assert list(_tfrecord.values(found, name, "int64_list")) == value
    assert list(_tfrecord.values(found, "another", "int64_list")) == []


def test_another_kind_is_an_error(example: Callable[..., bytes]) -> None:
    found = _tfrecord.parse(example(label=b"cat"))
    with pytest.raises(ValueError, match="has label as a bytes_list; expected a int64_list"):
        _tfrecord.values(found, "label", "int64_list")


@hypothesis.given(data=st.data())
def test_hostile_bytes(example: Callable[..., bytes], data: st.DataObject) -> None:
    content = bytearray(example(image=b"pixels" * 5, label=[3, -1]))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=3)):
        content[place] = data.draw(st.integers(0, 255))
    cut = bytes(content[: data.draw(st.integers(0, len(content)))])
    for hostile in (cut, data.draw(st.binary(max_size=64))):
        try:
            found = _tfrecord.parse(hostile)
            for name, kind in (("image", "bytes_list"), ("label", "int64_list")):
                list(_tfrecord.values(found, name, kind))
        except ValueError:
            pass
