"""ViTs, DeiTs and DINOv2 in other libraries' files: names, values, heads, position embeddings."""

import functools
import re

import chex
import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from ctl_jax import models, pruning
from ctl_jax.errors import UserError
from ctl_jax.models import matching, names
from ctl_jax.models.vit import resized_position

HEADS, WIDTH, PATCH, DEPTH, SIZE, CLASSES = 3, 192, 8, 2, 24, 5
PATCHES = (SIZE // PATCH) ** 2


def shapes_of_timm(tokens=1, registers=0, scales=False, token_position=True, norm="norm"):
    """Names and shapes as timm's `state_dict()` has them."""
    found = {
        "pos_embed": (1, PATCHES + (tokens if token_position else 0), WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, PATCH, PATCH),
        "patch_embed.proj.bias": (WIDTH,),
    }
    for name, at_least in (("cls_token", 1), ("dist_token", 2)):
        if tokens >= at_least:
            found[name] = (1, 1, WIDTH)
    if registers:
        found["reg_token"] = (1, registers, WIDTH)
    for i in range(DEPTH):
        layers = {
            "norm1": (WIDTH,),
            "attn.qkv": (3 * WIDTH, WIDTH),
            "attn.proj": (WIDTH, WIDTH),
            "norm2": (WIDTH,),
            "mlp.fc1": (4 * WIDTH, WIDTH),
            "mlp.fc2": (WIDTH, 4 * WIDTH),
        }
        for layer, shape in layers.items():
            found |= {f"blocks.{i}.{layer}.weight": shape, f"blocks.{i}.{layer}.bias": shape[:1]}
        if scales:
            found |= {f"blocks.{i}.ls{j}.gamma": (WIDTH,) for j in (1, 2)}
    found |= {f"{norm}.weight": (WIDTH,), f"{norm}.bias": (WIDTH,)}
    for head in ("head", "head_dist")[: max(tokens, 1)]:
        found |= {f"{head}.weight": (CLASSES, WIDTH), f"{head}.bias": (CLASSES,)}
    return found


# What timm's networks may have -> the network that they are.
VARIANTS = {
    "vit": ({}, {}),
    "deit_distilled": ({"tokens": 2}, {}),
    "dinov2": ({"scales": True}, {"layer_scale": True}),
    "dinov2_reg4": (
        {"scales": True, "registers": 4, "token_position": False},
        {"layer_scale": True, "registers": 4, "token_position": False},
    ),
    "fc_norm": ({"norm": "fc_norm"}, {"pool": "mean_norm"}),
    "gap": ({"tokens": 0, "registers": 2}, {"class_token": False, "pool": "mean", "registers": 2}),
}


def of_torchvision(arrays):
    """The same arrays by torchvision's names."""
    block = "encoder.layers.encoder_layer_"
    rules = (
        (r"cls_token", "class_token"),
        (r"pos_embed", "encoder.pos_embedding"),
        (r"patch_embed\.proj", "conv_proj"),
        (r"blocks\.(\d+)\.norm", block + r"\1.ln_"),
        (r"blocks\.(\d+)\.attn\.qkv\.", block + r"\1.self_attention.in_proj_"),
        (r"blocks\.(\d+)\.attn\.proj", block + r"\1.self_attention.out_proj"),
        (r"blocks\.(\d+)\.mlp\.fc1", block + r"\1.mlp.0"),
        (r"blocks\.(\d+)\.mlp\.fc2", block + r"\1.mlp.3"),
        (r"norm\.", "encoder.ln."),
        (r"head", "heads.head"),
    )
    return {substituted(rules, name): array for name, array in arrays.items()}


def of_huggingface(arrays, since_5=False, prefix=True):
    """The same arrays by Hugging Face's names, before or since version 5 of Transformers."""
    dinov2 = any(".ls1." in name for name in arrays)
    old_mlp = not (since_5 or dinov2)
    block = "layers." if since_5 and not dinov2 else "encoder.layer."
    rules = (
        (r"cls_token", "embeddings.cls_token"),
        (r"dist_token", "embeddings.distillation_token"),
        (r"reg_token", "embeddings.register_tokens"),
        (r"pos_embed", "embeddings.position_embeddings"),
        (r"patch_embed\.proj", "embeddings.patch_embeddings.projection"),
        (r"blocks\.(\d+)\.norm1", block + (r"\1.norm1" if dinov2 else r"\1.layernorm_before")),
        (r"blocks\.(\d+)\.norm2", block + (r"\1.norm2" if dinov2 else r"\1.layernorm_after")),
        (
            r"blocks\.(\d+)\.attn\.proj",
            block + (r"\1.attention.o_proj" if since_5 else r"\1.attention.output.dense"),
        ),
        (
            r"blocks\.(\d+)\.mlp\.fc1",
            block + (r"\1.intermediate.dense" if old_mlp else r"\1.mlp.fc1"),
        ),
        (r"blocks\.(\d+)\.mlp\.fc2", block + (r"\1.output.dense" if old_mlp else r"\1.mlp.fc2")),
        (r"blocks\.(\d+)\.ls(\d)\.gamma", block + r"\1.layer_scale\2.lambda1"),
        (r"norm\.", "layernorm."),
    )
    distilled = "dist_token" in arrays
    kind = ("dinov2_with_registers" if "reg_token" in arrays else "dinov2") if dinov2 else "vit"
    before = ("deit" if distilled else kind) + "." if prefix else ""
    found = {}
    for name, array in arrays.items():
        if match := re.fullmatch(r"blocks\.(\d+)\.attn\.qkv\.(\w+)", name):
            parts = ("query", "key", "value")
            form = "attention.{0[0]}_proj" if since_5 else "attention.attention.{0}"
            for part, third in zip(parts, np.split(array, 3), strict=True):
                key = f"{before}{block}{match[1]}.{form.format(part)}.{match[2]}"
                found[key] = third
        elif name.startswith("head"):
            head = "distillation_classifier" if "dist" in name else "cls_classifier"
            found[f"{head if distilled else 'classifier'}.{name.partition('.')[2]}"] = array
        else:
            found[before + substituted(rules, name)] = array
    return found


def substituted(rules, name):
    for pattern, template in rules:
        if match := re.match(pattern, name):
            return match.expand(template) + name[match.end() :]
    return name


def random_arrays(**variant):
    rng = np.random.default_rng(0)

    def draw(name, shape):
        if re.search(r"norm\d?\.weight|gamma", name):
            return rng.uniform(0.5, 1.5, shape)
        fan_in = np.prod(shape[1:]) if name.endswith("weight") else 1
        return rng.normal(0, 1 / np.sqrt(fan_in), shape)

    return {k: draw(k, s).astype(np.float32) for k, s in shapes_of_timm(**variant).items()}


def load(arrays, folder, file="vit", **options):
    np.savez(folder / f"{file}.npz", **arrays)
    return models.load_pretrained(folder / f"{file}.npz", **options)


def written(model, library):
    """A model's arrays by a library's names."""
    (naming,) = names.of_module(model.module, library)
    return names.write(naming, flatten_dict(model.variables, sep="/"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_timm(variant, tmp_path):
    shapes, options = VARIANTS[variant]
    arrays = random_arrays(**shapes)
    model = load(arrays, tmp_path)
    expected = {"heads": HEADS, "depth": DEPTH, "patch": PATCH} | options
    assert {key: getattr(model.module, key) for key in expected} == expected
    assert (model.module.distilled, model.image_size) == (variant == "deit_distilled", SIZE)
    assert model.num_classes == CLASSES
    assert "remarks" not in model.notes
    chex.assert_trees_all_equal(written(model, "timm"), arrays)


@pytest.mark.parametrize("variant", ["vit", "deit_distilled", "dinov2", "dinov2_reg4"])
@pytest.mark.parametrize(("since_5", "prefix"), [(False, True), (True, True), (False, False)])
def test_huggingface(variant, since_5, prefix, tmp_path):
    """Whichever of their forms they have, they are the same, and written in the first."""
    shapes, _ = VARIANTS[variant]
    arrays = random_arrays(**shapes)
    model = load(of_huggingface(arrays, since_5, prefix), tmp_path)
    assert model.module.epsilon == (1e-6 if variant.startswith("dinov2") else 1e-12)
    chex.assert_trees_all_equal(model.variables, load(arrays, tmp_path, "vit_again").variables)
    chex.assert_trees_all_equal(written(model, "huggingface"), of_huggingface(arrays))


def test_torchvision(tmp_path):
    arrays = random_arrays()
    model = load(of_torchvision(arrays), tmp_path)
    assert str(model.preprocess) == "imagenet"
    chex.assert_trees_all_equal(model.variables, load(arrays, tmp_path, "vit_again").variables)
    chex.assert_trees_all_equal(written(model, "torchvision"), of_torchvision(arrays))


def test_dinov2s_own_names(tmp_path):
    """Registers have another name than timm's, and the class token has a position."""
    arrays = random_arrays(scales=True, registers=4)
    arrays["register_tokens"] = arrays.pop("reg_token")
    model = load(arrays | {"mask_token": np.zeros((1, WIDTH), np.float32)}, tmp_path)
    assert (model.architecture, model.module.token_position) == ("vit_s14_reg4_dinov2", True)
    chex.assert_trees_all_equal(written(model, "dinov2"), arrays)


def test_a_classifier_of_the_class_token_and_the_mean(tmp_path):
    arrays = random_arrays(scales=True)
    arrays["head.weight"] = np.ones((CLASSES, 2 * WIDTH), np.float32)
    assert load(of_huggingface(arrays), tmp_path).module.pool == "token+mean"


@pytest.mark.parametrize(
    ("file", "options", "expected"),
    [
        ("vit_small_patch16_224.augreg_in21k", {}, "inception"),
        ("deit_small_patch16_224-cd65a155", {}, "imagenet"),
        ("dino_deitsmall16_pretrain", {}, "imagenet"),
        ("model", {"tokens": 2}, "imagenet"),
        ("model", {"scales": True}, "imagenet"),
    ],
)
def test_preprocessing_by_what_the_file_is_called(file, options, expected, tmp_path):
    model = load(random_arrays(**options), tmp_path, file)
    known = models.PREPROCESS[expected]
    assert (model.preprocess.mean, model.preprocess.std) == (known.mean, known.std)
    assert model.preprocess.interpolation == "bicubic"
    assert model.architecture.startswith("deit") == ("deit" in file or "tokens" in options)


@pytest.mark.parametrize(
    ("file", "width", "expected"),
    [
        ("vit", 192, None),
        ("model", 192, "mean and std 0.5"),
        ("vit", 128, "2 heads for 128 channels"),
        ("model", 128, "mean and std 0.5, 2 heads for 128 channels"),
    ],
)
def test_what_is_a_guess_is_said(file, width, expected):
    naming, *_ = names.of_module(models.create("vit_s16", 1), "timm")
    shapes = {
        name: tuple(width if n == WIDTH else n for n in shape)
        for name, shape in shapes_of_timm().items()
    }
    remarks = naming.recognise(shapes, file).remarks
    guess = f"taken for granted, as nothing says it: {expected}"
    assert remarks == ((guess,) if expected else ())


def test_a_mean_after_the_norm_by_timms_config(tmp_path):
    (tmp_path / "config.json").write_text('{"architecture": "vit_x", "global_pool": "avg"}')
    model = load(random_arrays(), tmp_path, "model")
    assert model.module.pool == "mean"
    assert "remarks" not in model.notes


def test_heads_and_epsilon_by_hugging_faces_config(tmp_path):
    arrays = of_huggingface(random_arrays())
    (tmp_path / "config.json").write_text(
        '{"model_type": "vit", "num_attention_heads": 8, "layer_norm_eps": 1e-5}'
    )
    module = load(arrays, tmp_path).module
    assert (module.heads, module.head_width, module.epsilon) == (8, 24, 1e-5)


def test_position_embeddings_are_resized(tmp_path):
    arrays = random_arrays(tokens=2)
    model = load(arrays, tmp_path, image_size=40)
    assert model.image_size == 40
    assert model.notes["remarks"] == [
        "pos_embed has shape (1, 11, 192); it was resized to (1, 27, 192)"
    ]
    position = model.variables["params"]["position"]
    chex.assert_trees_all_equal(position[:, :2], arrays["pos_embed"][:, :2])
    images = jax.ShapeDtypeStruct((1, 40, 40, 3), np.float32)
    apply = functools.partial(models.apply, model.module)
    assert jax.eval_shape(apply, model.variables, images).shape == (1, CLASSES)


@pytest.mark.parametrize(("before", "after", "tokens"), [(5, 9, 1), (9, 4, 0), (4, 7, 2)])
def test_resizing_equals_torchs(before, after, tokens):
    torch = pytest.importorskip("torch")
    position = np.random.default_rng(0).normal(size=(1, tokens + before**2, 6)).astype(np.float32)
    grid = torch.from_numpy(position[:, tokens:]).reshape(1, before, before, 6).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(grid, (after, after), mode="bicubic", antialias=True)
    got = resized_position(position, tokens + after**2, tokens)
    expected = grid.permute(0, 2, 3, 1).reshape(1, after**2, 6).numpy()
    chex.assert_trees_all_close(got[:, tokens:], expected, atol=1e-5)
    chex.assert_trees_all_equal(got[:, :tokens], position[:, :tokens])


@pytest.mark.parametrize(("positions", "count"), [(13, 17), (16, 17), (17, 13)])
def test_positions_that_are_no_square(positions, count):
    with pytest.raises(UserError, match=f"is for {positions} tokens; expected {count}, or those"):
        resized_position(np.zeros((1, positions, 4)), count, 1)


def test_blocks_as_a_loop(tmp_path):
    """Of per-block names, and to them again."""
    arrays = random_arrays(scales=True)
    looped = load(arrays, tmp_path, options={"scan": True})
    plain = load(arrays, tmp_path).variables["params"]
    stacked = jax.tree.map(lambda *x: np.stack(x), *(plain.pop(f"block{i}") for i in (1, 2)))
    chex.assert_trees_all_equal(looped.variables["params"], plain | {"blocks": stacked})
    chex.assert_trees_all_equal(written(looped, "timm"), arrays)


@pytest.mark.parametrize("library", ["timm", "huggingface"])
def test_cut_heads(library, tmp_path):
    """Queries, keys and values of fewer heads are read as they were written."""
    model = load(random_arrays(), tmp_path)
    flat = flatten_dict(model.variables, sep="/")
    for path, array in flat.items():
        if "/attention/out/kernel" in path:
            flat[path] = array[:1]
        elif re.search("/attention/(query|key|value)/", path):
            flat[path] = array[..., :1, :]
    (naming,) = names.of_module(model.module, library)
    theirs = names.write(naming, flat)
    for of_whom in (flatten_dict(model.variables, sep="/"), flat):
        shapes = {path: array.shape for path, array in of_whom.items()}
        for entry in naming.entries(shapes):
            arrays = [theirs[name] for name in entry.theirs]
            ours = entry.read(arrays, [shapes[path] for path in entry.ours])
            chex.assert_trees_all_equal(list(ours), [flat[path] for path in entry.ours])


@pytest.mark.parametrize("scan", [False, True])
def test_pruned_is_read_with_the_whole_networks_shapes(scan):
    """Tokens, heads and hidden units cut; position embeddings are not taken for another size."""
    options = {"heads": 4, "head_width": 8, "depth": 2, "patch": 8, "scan": scan}
    module = models.create("vit_s16", 3, **options)
    shapes = matching.shapes_of(module, 16)
    rng = np.random.default_rng(0)
    variables = matching.unflatten(
        {path: rng.normal(size=shape).astype(np.float32) for path, shape in shapes.items()}
    )
    image = jax.ShapeDtypeStruct((1, 16, 16, 3), np.float32)
    groups = pruning.trace(functools.partial(models.apply, module), variables, image)
    scores = pruning.score(groups, variables, "l2")
    keep = pruning.select(groups, scores, ratio=0.5, scope="all")
    small = flatten_dict(pruning.prune(variables, groups, keep), sep="/")
    naming, *_ = names.of_module(module)
    named = naming.canonical(names.write(naming, small))
    found = matching.match(naming, module, shapes, named, any_widths=True)
    assert found.describe() == ""
    assert found.remarks == []
    chex.assert_trees_all_equal(flatten_dict(matching.variables_of(found), sep="/"), small)


def torch_form(torch, arrays, heads=HEADS, epsilon=1e-6):
    """A function of images [B, 3, H, W] to logits: timm's ViT, in functional torch."""
    functional = torch.nn.functional
    state = {name: torch.from_numpy(array) for name, array in arrays.items()}

    def layer(x, name):
        return functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(x, name):
        scale, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return functional.layer_norm(x, scale.shape, scale, bias, epsilon)

    def attention(x, name):
        batch, count, width = x.shape
        qkv = layer(x, f"{name}.qkv").reshape(batch, count, 3, heads, width // heads)
        x = functional.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4))
        return layer(x.transpose(1, 2).reshape(batch, count, width), f"{name}.proj")

    def forward(x):
        x = functional.conv2d(
            x, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=PATCH
        )
        x = x.flatten(2).transpose(1, 2)
        tokens = [
            state[n].expand(len(x), -1, -1) for n in ("cls_token", "dist_token") if n in state
        ]
        registers = [state["reg_token"].expand(len(x), -1, -1)] if "reg_token" in state else []
        if state["pos_embed"].shape[1] == x.shape[1]:
            x = torch.cat([*tokens, *registers, x + state["pos_embed"]], 1)
        else:
            x = torch.cat([*tokens, x], 1) + state["pos_embed"]
            x = torch.cat([x[:, : len(tokens)], *registers, x[:, len(tokens) :]], 1)
        for i in range(DEPTH):
            for part, number in ((attention, 1), (mlp, 2)):
                y = norm(x, f"blocks.{i}.norm{number}")
                y = part(y, f"blocks.{i}." + ("attn" if number == 1 else "mlp"))
                x = x + state.get(f"blocks.{i}.ls{number}.gamma", 1) * y
        others = len(tokens) + sum(each.shape[1] for each in registers)
        if "fc_norm.weight" in state:
            return layer(norm(x[:, others:].mean(1), "fc_norm"), "head")
        x = norm(x, "norm")
        if len(tokens) == 2:
            return (layer(x[:, 0], "head") + layer(x[:, 1], "head_dist")) / 2
        return layer(x[:, 0] if tokens else x[:, others:].mean(1), "head")

    def mlp(x, name):
        return layer(functional.gelu(layer(x, f"{name}.fc1")), f"{name}.fc2")

    return forward


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_equal_torchs(variant, tmp_path):
    torch = pytest.importorskip("torch")
    arrays = random_arrays(**VARIANTS[variant][0])
    model = load(arrays, tmp_path)
    images = np.random.default_rng(1).normal(size=(2, SIZE, SIZE, 3)).astype(np.float32)
    expected = torch_form(torch, arrays)(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    got = jax.jit(functools.partial(models.apply, model.module))(model.variables, images)
    chex.assert_trees_all_close(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
