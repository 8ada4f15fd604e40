"""ConvNeXts in other libraries' files."""

import functools
import re

import chex
import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from ctl_jax import models
from ctl_jax.models import names

WIDTH, CLASSES = 4, 5


def shapes_of_timm(stages=(1, 2), scales=True, last_norm=True):
    """Names and shapes as timm's `state_dict()` has them; as networks of (2, ...) blocks do."""
    found = {"stem.0.weight": (WIDTH, 3, 4, 4), "stem.0.bias": (WIDTH,)}
    found |= {f"stem.1.{array}": (WIDTH,) for array in ("weight", "bias")}
    conv = (1, 1) if stages[0] == 2 else ()
    for i, blocks in enumerate(stages):
        width = WIDTH * 2**i
        if i:
            name = f"stages.{i}.downsample"
            found |= {f"{name}.0.{array}": (width // 2,) for array in ("weight", "bias")}
            found |= {f"{name}.1.weight": (width, width // 2, 2, 2), f"{name}.1.bias": (width,)}
        for j in range(blocks):
            name = f"stages.{i}.blocks.{j}"
            found |= {
                f"{name}.conv_dw.weight": (width, 1, 7, 7),
                f"{name}.conv_dw.bias": (width,),
                f"{name}.norm.weight": (width,),
                f"{name}.norm.bias": (width,),
                f"{name}.mlp.fc1.weight": (4 * width, width, *conv),
                f"{name}.mlp.fc1.bias": (4 * width,),
                f"{name}.mlp.fc2.weight": (width, 4 * width, *conv),
                f"{name}.mlp.fc2.bias": (width,),
            }
            if scales:
                found[f"{name}.gamma"] = (width,)
    if last_norm:
        found |= {f"head.norm.{array}": (width,) for array in ("weight", "bias")}
    return found | {"head.fc.weight": (CLASSES, width), "head.fc.bias": (CLASSES,)}


def random_arrays(**variant):
    rng = np.random.default_rng(0)

    def draw(name, shape):
        if re.search(r"(norm|stem\.1|downsample\.0)\.weight|gamma", name):
            return rng.uniform(0.5, 1.5, shape)
        fan_in = np.prod(shape[1:]) if name.endswith("weight") else 1
        return rng.normal(0, 1 / np.sqrt(fan_in), shape)

    return {k: draw(k, s).astype(np.float32) for k, s in shapes_of_timm(**variant).items()}


def torchvision(match):
    """Stages and what halves before them are counted alike."""
    stage, rest = int(match[1]), match[2]
    if rest.startswith("downsample."):
        return f"features.{2 * stage}.{rest.removeprefix('downsample.')}"
    _, block, part = rest.split(".", 2)
    for ours, theirs in (
        ("conv_dw", "block.0"),
        ("norm", "block.2"),
        ("mlp.fc1", "block.3"),
        ("mlp.fc2", "block.5"),
        ("gamma", "layer_scale"),
    ):
        part = re.sub(f"^{re.escape(ours)}", theirs, part)
    return f"features.{2 * stage + 1}.{block}.{part}"


# Patterns of timm's names, and theirs.
RULES = {
    "torchvision": (
        (r"stem\.", "features.0."),
        (r"stages\.(\d)\.(.*)", torchvision),
        (r"head\.norm", "classifier.0"),
        (r"head\.fc", "classifier.2"),
    ),
    "facebook": (
        (r"stem\.", "downsample_layers.0."),
        (r"stages\.(\d)\.downsample", r"downsample_layers.\1"),
        (r"blocks\.", ""),
        ("conv_dw", "dwconv"),
        (r"mlp\.fc", "pwconv"),
        (r"head\.norm", "norm"),
        (r"head\.fc", "head"),
    ),
    "huggingface": (
        (r"stem\.0", "convnext.embeddings.patch_embeddings"),
        (r"stem\.1", "convnext.embeddings.layernorm"),
        (r"^stages\.(\d)\.downsample", r"convnext.encoder.stages.\1.downsampling_layer"),
        (r"^stages\.(\d)\.blocks", r"convnext.encoder.stages.\1.layers"),
        ("conv_dw", "dwconv"),
        (r"(layers\.\d)\.norm", r"\1.layernorm"),
        (r"mlp\.fc", "pwconv"),
        ("gamma", "layer_scale_parameter"),
        (r"head\.norm", "convnext.layernorm"),
        (r"head\.fc", "classifier"),
    ),
}


def renamed(arrays, library):
    found = {}
    for name, array in arrays.items():
        for pattern, replacement in RULES[library]:
            name = re.sub(pattern, replacement, name)
        found[name] = array.reshape(-1, 1, 1) if name.endswith("layer_scale") else array
    return found


def load(arrays, folder, file="weights"):
    np.savez(folder / f"{file}.npz", **arrays)
    return models.load_pretrained(folder / f"{file}.npz")


def written(model, library):
    (naming,) = names.of_module(model.module, library)
    return names.write(naming, flatten_dict(model.variables, sep="/"))


# Dense layers are convolutions in timm's networks of two blocks in the first stage.
VARIANTS = {
    "plain": {},
    "convolutions": {"stages": (2, 1)},
    "without layer scale": {"scales": False},
    "truncated": {"last_norm": False},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_timm(variant, tmp_path):
    arrays = random_arrays(**VARIANTS[variant])
    model = load(arrays, tmp_path)
    module = model.module
    assert (module.stages, module.width) == (VARIANTS[variant].get("stages", (1, 2)), WIDTH)
    assert module.layer_scale == VARIANTS[variant].get("scales", True)
    assert module.last_norm == VARIANTS[variant].get("last_norm", True)
    assert (str(model.preprocess), model.image_size) == ("imagenet_bicubic", 224)
    chex.assert_trees_all_equal(written(model, "timm"), arrays)


@pytest.mark.parametrize("library", RULES)
@pytest.mark.parametrize("scales", [True, False])
def test_other_libraries(library, scales, tmp_path):
    arrays = random_arrays(scales=scales)
    model = load(renamed(arrays, library), tmp_path)
    assert model.notes["library"] == library
    chex.assert_trees_all_equal(model.variables, load(arrays, tmp_path, "other").variables)
    chex.assert_trees_all_equal(written(model, library), renamed(arrays, library))


def test_hugging_faces_without_a_classifier(tmp_path):
    arrays = random_arrays()
    theirs = {
        name.removeprefix("convnext."): array
        for name, array in renamed(arrays, "huggingface").items()
        if not name.startswith("classifier")
    }
    model = load(theirs, tmp_path)
    assert model.num_classes == 1
    got, expected = (m.variables["params"] for m in (model, load(arrays, tmp_path, "other")))
    chex.assert_trees_all_equal(got, expected | {"head": got["head"]})


@pytest.mark.parametrize(
    ("name", "stages", "width"),
    [("convnext_atto", (2, 2, 6, 2), 40), ("convnext_base", (3, 3, 27, 3), 128)],
)
def test_presets_are_recognised(name, stages, width):
    (naming,) = names.of_module(models.create(name, 1), "timm")
    shapes = {"stem.0.weight": (width, 3, 4, 4), "head.norm.weight": (8 * width,)}
    for i, blocks in enumerate(stages):
        shapes |= {
            f"stages.{i}.blocks.{j}.{array}": shape
            for j in range(blocks)
            for array, shape in {"conv_dw.weight": (width * 2**i, 1, 7, 7), "gamma": (1,)}.items()
        }
    assert naming.recognise(shapes, "")[:2] == (name, {})


def torch_form(torch, arrays):
    """A function of images [B, 3, H, W] to logits: timm's ConvNeXt, in functional torch."""
    functional = torch.nn.functional
    state = {name: torch.from_numpy(array) for name, array in arrays.items()}

    def conv(x, name, **options):
        return functional.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **options)

    def norm(x, name):
        """Over the channels of a map."""
        scale, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return functional.layer_norm(x.movedim(1, -1), scale.shape, scale, bias, 1e-6).movedim(
            -1, 1
        )

    def dense(x, name):
        weight = state[f"{name}.weight"]
        return functional.conv2d(x, weight.reshape(*weight.shape[:2], 1, 1), state[f"{name}.bias"])

    def forward(x):
        x = norm(conv(x, "stem.0", stride=4), "stem.1")
        for i in (0, 1):
            if i:
                x = conv(norm(x, f"stages.{i}.downsample.0"), f"stages.{i}.downsample.1", stride=2)
            for j in (0, 1):
                name = f"stages.{i}.blocks.{j}"
                if f"{name}.norm.bias" in state:
                    y = norm(
                        conv(x, f"{name}.conv_dw", padding=3, groups=x.shape[1]), f"{name}.norm"
                    )
                    y = dense(functional.gelu(dense(y, f"{name}.mlp.fc1")), f"{name}.mlp.fc2")
                    scale = state.get(f"{name}.gamma", torch.ones(1))
                    x = x + scale.reshape(-1, 1, 1) * y
        x = x.mean((2, 3))
        if "head.norm.weight" in state:
            x = norm(x, "head.norm")
        return functional.linear(x, state["head.fc.weight"], state["head.fc.bias"])

    return forward


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_equal_torchs(variant, tmp_path):
    torch = pytest.importorskip("torch")
    arrays = random_arrays(**VARIANTS[variant])
    model = load(arrays, tmp_path)
    images = np.random.default_rng(1).normal(size=(2, 25, 18, 3)).astype(np.float32)
    expected = torch_form(torch, arrays)(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    got = jax.jit(functools.partial(models.apply, model.module))(model.variables, images)
    chex.assert_trees_all_close(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
