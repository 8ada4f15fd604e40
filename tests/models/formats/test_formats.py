"""Every format: the same arrays, whatever the file is called, and every damage in one line."""

import json
import os
import pathlib
import pickle
import struct

import chex
import flax.serialization
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from ctl_jax.errors import UserError
from ctl_jax.models import formats

ARRAYS = {
    "layer.weight": np.arange(24, dtype="f4").reshape(2, 3, 2, 2),
    "layer.bias": np.float32([1, 2]),
    "half": np.float16([[0.5]]),
    "double": np.float64([0.25]),
}


def write_npz(path, **arrays):
    with open(path, "wb") as file:  # np.savez would change other suffixes.
        np.savez(file, **arrays)


def write_h5(path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name, array in ARRAYS.items():
            file[name] = array


def write_torch(path, legacy=False):
    torch = pytest.importorskip("torch")
    state = {name: torch.from_numpy(array.copy()) for name, array in ARRAYS.items()}
    torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=not legacy)


WRITERS = {
    ".safetensors": lambda path: safetensors.numpy.save_file(ARRAYS, path),
    ".npz": lambda path: write_npz(path, **ARRAYS),
    ".msgpack": lambda path: path.write_bytes(flax.serialization.to_bytes(ARRAYS)),
    ".h5": write_h5,
    ".pth": write_torch,
    ".th": lambda path: write_torch(path, legacy=True),
}


@pytest.fixture(params=WRITERS)
def file(request, tmp_path):
    path = tmp_path / f"weights{request.param}"
    WRITERS[request.param](path)
    return path


def read(path):
    return {name: np.array(array) for name, array in formats.read(path).arrays.items()}


def check_error(path, said):
    with pytest.raises(UserError, match=f"^weights {path}: .*(?:{said})") as caught:
        formats.read(path)
    assert "\n" not in str(caught.value)


def test_same_arrays(file):
    found = read(file)
    chex.assert_trees_all_equal(found, ARRAYS)
    assert {name: a.dtype for name, a in found.items()} == {n: a.dtype for n, a in ARRAYS.items()}


@pytest.mark.parametrize("suffix", [".bin", "", ".npz", ".safetensors"])
def test_content_tells(file, suffix):
    """What it is called does not matter (but for msgpack, whose content says too little)."""
    if file.suffix == ".msgpack":
        pytest.skip("told by its suffix")
    chex.assert_trees_all_equal(read(file.rename(file.with_name(f"other{suffix}"))), ARRAYS)


@pytest.mark.parametrize("part", [0.0, 0.3, 0.7, 0.99])
def test_truncated(file, part):
    content = file.read_bytes()
    file.write_bytes(content[: int(part * len(content))])
    check_error(file, "no readable |needs the package")


@pytest.mark.parametrize("suffix", formats.suffixes())
@pytest.mark.parametrize("content", [b"", b"something else altogether", bytes(range(256))])
def test_other_content(tmp_path, suffix, content):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    check_error(path, "no readable |needs the package")


def test_a_header_that_claims_a_terabyte(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 2**40) + b'{"a":')
    with pytest.raises(UserError, match=r"no readable safetensors file .*[Hh]eader"):
        formats.read(path)
    array = {"dtype": "F32", "shape": [2**38], "data_offsets": [0, 2**40]}
    header = json.dumps({"a": array}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(UserError, match="no readable safetensors file"):
        formats.read(path)


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("boom",)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".th", ".npz", ".npy", ".pkl"])
def test_nothing_is_unpickled(tmp_path, monkeypatch, suffix):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(pickle.dumps({"a": Bomb()}, protocol=2))
    check_error(path, "no readable |needs the package|holds more than arrays|unknown type")
    write_npz(tmp_path / "b.npz", a=np.array([Bomb()]))
    with pytest.raises(UserError, match=r"no readable .npz file .*allow_pickle"):
        formats.read(tmp_path / "b.npz")
    assert not (tmp_path / "boom").exists()


def test_a_bomb_in_a_torch_file(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": {"a": torch.ones(2)}, "b": Bomb()}, path)
    with pytest.raises(UserError, match=r"holds more than arrays, .*mkdir, and is not unpickled"):
        formats.read(path)
    assert not (tmp_path / "boom").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(file):
    file.chmod(0)
    with pytest.raises(UserError, match=r"cannot be read \(Permission denied\)"):
        formats.read(file)


def test_no_permission_said(file, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(UserError, match=r"weights .*: cannot be read \(Permission denied\)"):
        formats.read(file)


def test_unknown(tmp_path):
    path = tmp_path / "weights.doc"
    path.write_bytes(b"word")
    with pytest.raises(UserError, match=r"unknown type; expected one of \.h5, .*, or a folder"):
        formats.read(path)


def test_bfloat16(tmp_path):
    array = np.array([1.5, -2], ml_dtypes.bfloat16)
    safetensors.numpy.save_file({"a": array}, tmp_path / "a.safetensors")
    chex.assert_trees_all_equal(read(tmp_path / "a.safetensors"), {"a": array})


def test_big_endian(tmp_path):
    write_npz(tmp_path / "a.npz", a=np.array([1.5, 2], ">f8"))
    chex.assert_trees_all_equal(read(tmp_path / "a.npz"), {"a": np.float64([1.5, 2])})


def test_a_tree_of_flax(tmp_path):
    tree = {"params": {"head": {"bias": np.float32([1])}}}
    (tmp_path / "a.msgpack").write_bytes(flax.serialization.to_bytes(tree))
    chex.assert_trees_all_equal(read(tmp_path / "a.msgpack"), {"params/head/bias": np.float32([1])})


def test_each_is_found():
    assert len(formats.formats()) == len(list(pathlib.Path(formats.__path__[0]).glob("[a-z]*.py")))
