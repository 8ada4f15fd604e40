"""What several tests of this room share: data that is made once, specs, pictures, and files."""

import base64
import io
import os
import pathlib
import pickle
import struct
import sys
import types
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ctl_jax.data.task import TaskSpec

SPLITS = ("train", "dev", "dev-test", "test")


@pytest.fixture(scope="session")
def make_spec() -> Callable[..., TaskSpec]:
    def make(dataset: str, kind: str = "single_label", source: str = "nevis") -> TaskSpec:
        name = dataset.replace("/", "_")
        return TaskSpec(name, dataset.title(), dataset, source, "object", kind, 2004)

    return make


@pytest.fixture(scope="session")
def picture() -> Callable[..., bytes]:
    """An encoded image that tells which number it is of."""

    def encode(number: int, file_format: str = "PNG", mode: str = "RGB") -> bytes:
        pixels = np.full((6, 5, 3), number % 256, np.uint8)
        pixels[0, 0] = number // 256
        buffer = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(buffer, file_format)
        return buffer.getvalue()

    return encode


@pytest.fixture
def pickled(monkeypatch: pytest.MonkeyPatch) -> Callable[..., bytes]:
    """A DatasetMetaData as dm_nevis pickles it."""
    name = "dm_nevis.datasets_storage.handlers.types"
    module = types.ModuleType(name)

    class DatasetMetaData:
        def __init__(self, **state: Any) -> None:
            self.__dict__.update(state)

    DatasetMetaData.__module__ = name
    DatasetMetaData.__qualname__ = "DatasetMetaData"
    module.DatasetMetaData = DatasetMetaData  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dm_nevis", types.ModuleType("dm_nevis"))
    monkeypatch.setitem(sys.modules, name, module)

    def dump(protocol: int = 5, **state: Any) -> bytes:
        return pickle.dumps(DatasetMetaData(**state), protocol)

    return dump


@pytest.fixture(scope="session")
def example() -> Callable[..., bytes]:
    """A serialised tf.train.Example with features of bytes or integers."""
    from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

    def serialise(**features: bytes | Sequence[int]) -> bytes:
        found = {}
        for name, value in features.items():
            if isinstance(value, bytes):
                feature = {"bytes_list": tf_feature_pb2.BytesList(value=[value])}
            else:
                feature = {"int64_list": tf_feature_pb2.Int64List(value=value)}
            found[name] = tf_feature_pb2.Feature(**feature)
        message = tf_example_pb2.Example(features=tf_feature_pb2.Features(feature=found))
        return bytes(message.SerializeToString())

    return serialise


@pytest.fixture
def write_nevis(
    tmp_path: pathlib.Path,
    frame: Callable[[bytes], bytes],
    pickled: Callable[..., bytes],
) -> Callable[..., pathlib.Path]:
    """Writes a set as dm_nevis does, into tmp_path/nevis/NAME."""

    def write(
        name: str,
        records: Mapping[str, Sequence[bytes]],
        shards: int = 2,
        about: Mapping[str, Any] | None = None,
        **state: Any,
    ) -> pathlib.Path:
        folder = tmp_path / "nevis" / name
        for split, found in records.items():
            (folder / split).mkdir(parents=True)
            for shard in range(shards):
                path = folder / split / f"data-{shard:05d}-of-{shards:05d}"
                # Round robin, as dm_nevis does.
                path.write_bytes(b"".join(map(frame, found[shard::shards])))
        counts = {split: len(found) for split, found in records.items()}
        more = {"num_data_points_per_split": counts, **(about or {})}
        content = pickled(additional_metadata=more, **state)
        (folder / "metadata").write_bytes(base64.encodebytes(content))
        (folder / "status").write_text("ready")
        return folder

    return write


class _RawInfo(zipfile.ZipInfo):
    def __init__(self, raw: bytes, flag: int) -> None:
        super().__init__(raw.hex())
        self._raw, self._flag = raw, flag

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:
        return self._raw, self.flag_bits | self._flag


@pytest.fixture(scope="session")
def raw_info() -> Callable[[bytes, bool], zipfile.ZipInfo]:
    """An archive's entry whose name is any bytes, marked as UTF-8 or not."""
    return lambda raw, marked: _RawInfo(raw, 0x800 * marked)


@pytest.fixture(scope="session")
def synthetic_dir() -> pathlib.Path:
    """The test run's folder for synthetic data, filled as tests ask for it."""
    return pathlib.Path(os.environ["CTL_JAX_DATA"])


@pytest.fixture(scope="session")
def reference_crc32c() -> Callable[[bytes], int]:
    """CRC-32C bit by bit, from the polynomial."""

    def crc32c(data: bytes) -> int:
        crc = 0xFFFFFFFF
        for byte in data:
            crc ^= byte
            for _ in range(8):
                crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        return crc ^ 0xFFFFFFFF

    return crc32c


@pytest.fixture(scope="session")
def frame(reference_crc32c: Callable[[bytes], int]) -> Callable[[bytes], bytes]:
    """A record as TensorFlow writes it."""

    def masked(part: bytes) -> bytes:
        crc = reference_crc32c(part)
        return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)

    def framed(data: bytes) -> bytes:
        length = struct.pack("<Q", len(data))
        return length + masked(length) + data + masked(data)

    return framed
