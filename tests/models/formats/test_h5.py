"""Keras's HDF5 files of the older and the newer versions, and its archives."""

import zipfile

import chex
import numpy as np
import pytest

from ctl_jax.models import formats
from ctl_jax.models.names.keras import canonical

h5py = pytest.importorskip("h5py")

CONV = {"kernel": np.ones((3, 3, 2, 4), "f4"), "bias": np.zeros(4, "f4")}
NORM = {
    name: np.full(4, value, "f4")
    for value, name in enumerate(("gamma", "beta", "moving_mean", "moving_variance"))
}
DEPTHWISE = {"depthwise_kernel": np.full((3, 3, 4, 1), 2, "f4")}
LAYERS = {"conv1_conv": CONV, "conv1_bn": NORM, "block_1_depthwise": DEPTHWISE}
EXPECTED = {f"{layer}/{name}": a for layer, arrays in LAYERS.items() for name, a in arrays.items()}


def old(file, prefix=""):
    for layer, arrays in LAYERS.items():
        for name, array in arrays.items():
            file[f"{prefix}{layer}/{layer}/{name}:0"] = array


def new(file):
    for number, (layer, arrays) in enumerate(LAYERS.items()):
        group = file.create_group(f"layers/layer_{number}/vars")
        group.parent.attrs["name"] = layer
        for index, array in enumerate(arrays.values()):
            group[str(index)] = array
    file["optimizer/vars/0"] = np.float32(3)


def whole(file):
    old(file, "model_weights/")
    file["optimizer_weights/SGD/iteration:0"] = np.int64(3)


@pytest.mark.parametrize(
    ("write", "suffix"), [(old, ".h5"), (whole, ".hdf5"), (new, ".weights.h5"), (new, ".keras")]
)
def test_layers_by_name(tmp_path, write, suffix):
    path = tmp_path / "model.weights.h5"
    with h5py.File(path, "w") as file:
        write(file)
    if suffix == ".keras":
        with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
            archive.write(path, "model.weights.h5")
            archive.writestr("config.json", "{}")
        path = tmp_path / "model.keras"
    else:
        path = path.rename(tmp_path / f"other{suffix}")
    found = canonical(formats.read(path).arrays)
    chex.assert_trees_all_equal({name: named.array for name, named in found.items()}, EXPECTED)
