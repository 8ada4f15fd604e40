"""Pretrained weights: every array in its place, and every error by name."""

import os
import re
import zipfile

import chex
import jax
import numpy as np
import pytest

from ctl_jax import models
from ctl_jax.errors import UserError


def to_keras(variables):
    """Our variables under Keras' names: the loader's inverse, spelled out by hand."""
    arrays = {}
    params, stats = variables["params"], variables["batch_stats"]

    def put(name, conv, bn, params, stats):
        arrays[f"{name}_conv.weight"] = np.transpose(params[conv]["kernel"], (3, 2, 0, 1))
        arrays[f"{name}_conv.bias"] = np.asarray(params[conv]["bias"])
        arrays[f"{name}_bn.gamma"] = np.asarray(params[bn]["scale"])
        arrays[f"{name}_bn.beta"] = np.asarray(params[bn]["bias"])
        arrays[f"{name}_bn.mean"] = np.asarray(stats[bn]["mean"])
        arrays[f"{name}_bn.var"] = np.asarray(stats[bn]["var"])

    put("conv1", "stem_conv", "stem_bn", params, stats)
    for ours, theirs in [
        ("stage1_block1", "conv2_block1"),
        ("stage2_block1", "conv3_block1"),
        ("stage2_block2", "conv3_block2"),
    ]:
        for i in (1, 2, 3):
            put(f"{theirs}_{i}", f"conv{i}", f"bn{i}", params[ours], stats[ours])
        if theirs != "conv3_block2":
            put(f"{theirs}_0", "shortcut_conv", "shortcut_bn", params[ours], stats[ours])
    return arrays


@pytest.fixture
def file(small, tmp_path):
    """Writes a file of the right arrays but for some changes; returns its path."""

    def write(**changes):
        arrays = to_keras(small[1]) | changes
        path = tmp_path / "weights.npz"
        np.savez(path, **{key: array for key, array in arrays.items() if array is not None})
        return path

    return write


def load(small, path):
    module, variables = small
    return models.load_weights(path, module, variables)


def test_every_array_in_its_place(small, file):
    module, variables = small
    loaded = load(small, file())
    expected = models.with_head(variables, 5)
    chex.assert_trees_all_equal(loaded, expected)
    template = jax.eval_shape(lambda key: models.init(module, key, 24), jax.random.key(0))
    chex.assert_trees_all_equal(models.load_weights(str(file()), module, template), expected)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ">f4"])
def test_arrays_of_another_precision_are_converted(small, file, dtype):
    _, variables = small
    mean = np.asarray(variables["batch_stats"]["stem_bn"]["mean"]).astype(dtype)
    loaded = load(small, file(**{"conv1_bn.mean": mean}))
    chex.assert_trees_all_equal_shapes_and_dtypes(loaded, variables)
    chex.assert_trees_all_equal(loaded["batch_stats"]["stem_bn"]["mean"], mean.astype(np.float32))


def hwio(arrays):
    """As Keras itself has kernels."""
    return {k: v.transpose(2, 3, 1, 0) if v.ndim == 4 else v for k, v in arrays.items()}


def test_kernels_in_keras_own_layout(small, file):
    path = file(**hwio(to_keras(small[1])))
    chex.assert_trees_all_equal(load(small, path), models.with_head(small[1], 5))


@pytest.mark.parametrize(
    ("shape", "expected"), [((8, 8, 3, 3), (3, 3, 8, 8)), ((3, 3, 5, 8), (3, 3, 8, 8))]
)
def test_a_wrong_kernel_among_those_in_keras_layout(small, file, shape, expected):
    arrays = hwio(to_keras(small[1]))
    key = "conv3_block2_2_conv.weight"
    assert arrays[key].shape == expected
    arrays[key] = np.ones(shape, np.float32)
    message = f"{key} has shape {shape}; expected {expected}"
    with pytest.raises(UserError, match=re.escape(message)):
        load(small, file(**arrays))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "torchvision's names: 72 missing: bn1.bias, bn1.running_mean, "),
        (["stem.weight"], "1 of nothing in the network: stem.weight"),
        (["conv1_conv/kernel:0", "a"], "keras's names: 71 missing: conv1_bn/beta, "),
    ],
)
def test_files_of_other_names(small, tmp_path, names, message):
    path = tmp_path / "weights.npz"
    np.savez(path, **dict.fromkeys(names, np.ones(3, np.float32)))
    with pytest.raises(UserError, match=re.escape(message)):
        load(small, path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conv3_block2_3_bn.var": None}, "1 missing: conv3_block2_3_bn/moving_variance"),
        ({"conv2_block1_0_conv.bias": None}, "1 missing: conv2_block1_0_conv/bias"),
        ({"conv5_block1_1_conv.bias": np.ones(3)}, "1 of nothing .*: conv5_block1_1_conv.bias"),
        (
            {"conv1_bn.gamma": np.ones(3, np.float32)},
            r"conv1_bn.gamma has shape \(3,\); expected \(4,\)",
        ),
        (
            {"conv1_conv.weight": np.ones((7, 7, 3, 4), np.float32)},
            r"conv1_conv.weight has shape \(3, 4, 7, 7\); expected \(7, 7, 3, 4\)",
        ),
        ({"conv1_bn.mean": np.full(4, np.nan, np.float32)}, "conv1_bn.mean holds NaN or infinity"),
        ({"conv1_bn.beta": np.full(4, np.inf, np.float32)}, "conv1_bn.beta holds NaN or infinity"),
        (
            {"conv1_bn.mean": np.ones(4, np.int32)},
            "conv1_bn.mean has dtype int32",
        ),
        ({"conv1_bn.mean": np.array([None] * 4)}, "no readable .npz file"),
        (
            {"conv2_block1_3_conv.weight": np.ones((4, 16, 1, 1), np.float32)},
            r"conv2_block1_3_conv.weight has shape \(1, 1, 16, 4\); expected \(1, 1, 4, 16\)",
        ),
        (
            {"conv1_conv.weight": np.ones((4, 3 * 7 * 7), np.float32)},
            r"conv1_conv.weight has shape \(4, 147\); expected \(7, 7, 3, 4\)",
        ),
        ({"conv1_bn.gamma": np.ones((4, 1), np.float32)}, r"has shape \(4, 1\); expected \(4,\)$"),
        ({"conv1_bn.mean": np.full(4, 1e300)}, "conv1_bn.mean holds NaN or infinity as float32"),
        ({"conv1_bn.mean": np.ones(4, np.complex64)}, "conv1_bn.mean has dtype complex64"),
        ({"conv1_bn.mean": np.ones(4, bool)}, "conv1_bn.mean has dtype bool; expected a float"),
        ({"conv1_bn.mean": np.full(4, "1.0")}, "conv1_bn.mean has dtype <U3; expected a float"),
        (
            {"conv1_bn.var": np.array([1, 1, -0.5, 1], np.float32)},
            "conv1_bn.var holds -0.5; expected variances of at least 0",
        ),
    ],
)
def test_wrong_arrays(small, file, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        load(small, file(**changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.99])
def test_truncated(small, file, part):
    path = file()
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(UserError, match=r"weights .*/weights.npz: no readable .npz file"):
        load(small, path)


def test_damaged_inside(small, file):
    path = file()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"no readable \.npz file"):
        load(small, path)


@pytest.mark.parametrize("content", [b"no zip file at all", b"\x80\x04K\x01."])
def test_other_content(small, tmp_path, content):
    path = tmp_path / "weights.npz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"no readable \.npz file"):
        load(small, path)


def test_single_array_in_place_of_a_file_of_arrays(small, tmp_path):
    path = tmp_path / "weights.npz"
    with open(path, "wb") as out:
        np.save(out, np.ones(3))
    with pytest.raises(UserError, match=r"no readable \.npz file"):
        load(small, path)


def test_a_zip_of_something_else(small, tmp_path):
    path = tmp_path / "weights.npz"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("readme.txt", "hello")
    with pytest.raises(UserError, match=r"weights.npz: no readable .npz file"):
        load(small, path)


def test_missing_and_unknown_files(small, tmp_path):
    with pytest.raises(UserError, match=r"weights .*/none.npz: no such file or directory"):
        load(small, tmp_path / "none.npz")
    (tmp_path / "weights.pkl").write_bytes(b"x")
    with pytest.raises(UserError, match=r"weights .*/weights.pkl: unknown type; expected one of"):
        load(small, tmp_path / "weights.pkl")


def test_an_upper_case_suffix(small, file):
    path = file()
    upper = path.rename(path.with_name("WEIGHTS.NPZ"))
    chex.assert_trees_all_equal(load(small, upper), models.with_head(small[1], 5))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("{folder}/weights.npz/x", "no such file or directory"),
        ("{folder}/" + "x" * 300 + ".npz", "that long|too long|longest|at most"),
        ("{folder}/a\0b.npz", "cannot be read .embedded null byte"),
        ("", "no such file or directory"),
        ("{folder}", "a folder of 2 files .other.npz, weights.npz.; expected one"),
        ("{folder}/empty", "no weights in this folder; expected a file such as"),
    ],
)
def test_paths_of_no_weights(small, file, path, message):
    folder = file().parent
    (folder / "empty").mkdir()
    (folder / "other.npz").write_bytes(b"")
    with pytest.raises(UserError, match=message) as caught:
        load(small, path.format(folder=folder))
    assert len(str(caught.value).splitlines()) == 1


def test_a_pipe_is_not_waited_for(small, tmp_path):
    os.mkfifo(tmp_path / "weights.npz")
    with pytest.raises(UserError, match="neither a file nor a directory"):
        load(small, tmp_path / "weights.npz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.astype(np.int32), "params/stem_bn/scale has dtype int32; expected a float"),
        (lambda x: np.full_like(x, np.nan), "params/stem_bn/scale holds NaN or infinity"),
        (
            lambda x: x[None],
            r".*1 mis-shaped: params.* \(1, 4\); expected \(4,\)",
        ),
    ],
)
def test_checkpoints_of_no_weights(small, tmp_path, change, message):
    variables = jax.tree.map(np.asarray, small[1])
    scale = variables["params"]["stem_bn"]["scale"]
    variables["params"]["stem_bn"]["scale"] = change(scale)
    models.save_checkpoint(tmp_path / "c", variables)
    with pytest.raises(UserError, match=rf"^weights .*/c: {message}"):
        load(small, tmp_path / "c")


def test_checkpoint_in_half_precision(small, tmp_path):
    variables = jax.tree.map(lambda leaf: leaf.astype("bfloat16"), small[1])
    models.save_checkpoint(tmp_path / "c", variables)
    expected = jax.tree.map(lambda leaf: leaf.astype("float32"), variables)
    chex.assert_trees_all_equal(load(small, tmp_path / "c"), models.with_head(expected, 5))


def test_checkpoint_in_a_bucket(small, bucket):
    models.save_checkpoint(f"{bucket}/c", small[1])
    chex.assert_trees_all_equal(load(small, f"{bucket}/c"), models.with_head(small[1], 5))
    with pytest.raises(UserError, match="no SHA256SUMS"):
        load(small, f"{bucket}/none")


def test_keras_weights_need_version_v1(small, file):
    module = models.create("resnet50", 5, stages=(1, 2), width=4, conv_bias=True)
    with pytest.raises(
        UserError,
        match=r"keras's, whose .* version 'v1'; the model's version is 'v1.5'",
    ):
        models.load_weights(file(), module, small[1])


def test_checkpoint(small, tmp_path):
    """A checkpoint's backbone comes with it, its head does not."""
    module, variables = small
    models.save_checkpoint(tmp_path / "c", models.with_head(variables, 9))
    loaded = models.load_weights(tmp_path / "c", module, variables)
    chex.assert_trees_all_equal(loaded, models.with_head(variables, 5))


def test_pruned_checkpoint(small, tmp_path, random_variables):
    module, variables = small
    narrow = models.create("resnet50", 5, stages=(1, 2), width=3, version="v1", conv_bias=True)
    pruned = random_variables(narrow)
    models.save_checkpoint(tmp_path / "c", pruned)
    loaded = models.load_weights(tmp_path / "c", module, variables)
    assert loaded["params"]["head"]["kernel"].shape == (24, 5)
    logits = jax.jit(models.apply, static_argnums=0)(module, loaded, np.ones((2, 24, 24, 3)))
    assert logits.shape == (2, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": (1, 1)}, "18 missing: .*/stage2_block2/"),
        ({"stages": (1, 2, 1)}, "24 of nothing in the network: .*/stage3_block1/"),
        ({"conv_bias": False}, "12 missing: .*/conv1/bias"),
        ({"stem": "cifar"}, r"stem_conv/kernel has shape \(3, 3, 3, 4\); expected \(7, 7, 3, 4\)"),
    ],
)
def test_checkpoint_of_another_network(small, tmp_path, options, message, random_variables):
    other = {"stages": (1, 2), "width": 4, "version": "v1", "conv_bias": True} | options
    other = models.create("resnet50", 5, **other)
    models.save_checkpoint(tmp_path / "c", random_variables(other))
    with pytest.raises(UserError, match=message):
        load(small, tmp_path / "c")


def test_real_file(keras_file, keras_module):
    template = jax.eval_shape(lambda key: models.init(keras_module, key, 64), jax.random.key(0))
    loaded = models.load_weights(keras_file, keras_module, template)
    chex.assert_trees_all_equal_shapes_and_dtypes(loaded, template)
    with np.load(keras_file, allow_pickle=False) as file:
        total = sum(file[key].size for key in file.files)
        chex.assert_trees_all_equal(
            loaded["params"]["stage3_block6"]["conv3"]["bias"], file["conv4_block6_3_conv.bias"]
        )
    head = 1024 * 7 + 7
    assert sum(leaf.size for leaf in jax.tree.leaves(loaded)) == total + head
    whole = models.create("resnet50", 7, version="v1", conv_bias=True)
    template = jax.eval_shape(lambda key: models.init(whole, key, 64), jax.random.key(0))
    with pytest.raises(UserError, match=r"60 missing: conv5_block1_0_bn/beta"):
        models.load_weights(keras_file, whole, template)
