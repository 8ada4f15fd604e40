"""Vision transformers: sizes of the literature, equality with torch, tokens, loops."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctl_jax import models
from ctl_jax.errors import UserError
from ctl_jax.models.vit import PRESETS, ViT


def macs(heads, depth=12, patch=16, others=1):
    """Multiply-adds of one image of 224x224, with `others` tokens beside those of the patches."""
    width, patches = 64 * heads, (224 // patch) ** 2
    tokens = patches + others
    dense = 4 * width**2 + 2 * 4 * width**2
    attention = 2 * tokens * width
    return patches * 3 * patch**2 * width + depth * tokens * (dense + attention) + 1000 * width


# Parameters with 1000 outputs, of timm's models (DeiT's, for those).
PARAMS = {
    "vit_ti16": 5_717_416,
    "vit_s16": 22_050_664,
    "vit_s32": 22_878_952,
    "vit_b16": 86_567_656,
    "vit_b32": 88_224_232,
    "vit_l16": 304_326_632,
    "vit_l32": 306_535_400,
    "deit_ti16": 5_717_416,
    "deit_s16": 22_050_664,
    "deit_b16": 86_567_656,
    "deit_ti16_distilled": 5_910_800,
    "deit_s16_distilled": 22_436_432,
    "deit_b16_distilled": 87_338_192,
    "vit_s14_dinov2": 22_013_800,
    # timm's have no position for the class token.
    "vit_s14_reg4_dinov2": 22_014_952 + 384,
    "vit_b14_dinov2": 86_493_928,
    "vit_b14_reg4_dinov2": 86_496_232 + 768,
    "vit_l14_dinov2": 304_252_904,
    "vit_l14_reg4_dinov2": 304_255_976 + 1024,
}
SMALL = {"heads": 3, "depth": 2, "head_width": 4, "patch": 8}


@pytest.mark.parametrize("name", PARAMS)
def test_size(name, check_size):
    module = models.create(name, 1000, scan=True)
    flops = 2 * macs(
        module.heads, module.depth, module.patch, 1 + module.distilled + module.registers
    )
    # A second head.
    flops += 2 * module.distilled * 1000 * 64 * module.heads
    check_size(module, PARAMS[name], flops)
    assert PARAMS.keys() == PRESETS.keys()


def test_flops_are_those_of_the_literature():
    # torchvision's vit_b_16: 17.564 billion.
    assert round(macs(12) / 1e9, 3) == 17.564


# How ViTs differ but for their sizes: DINOv2 with registers, DeiT III, heads on means.
VARIANTS = {
    "vit": {},
    "distilled": {"distilled": True},
    "dinov2": {"layer_scale": True, "registers": 3, "pool": "token+mean"},
    "no position of a token": {"token_position": False, "pool": "mean_norm", "epsilon": 1e-3},
    "no class token": {"class_token": False, "registers": 1, "pool": "mean"},
}


def torch_features(module, t, x):
    """Features [B, F] by torch's own transformer layers, of torch layers and images."""
    functional = t.torch.nn.functional
    weight, bias = t.arrays("params", "patch_conv", "kernel", "bias")
    x = functional.conv2d(x, weight.permute(3, 2, 0, 1), bias, stride=8)
    x = x.flatten(2).transpose(1, 2)
    tokens, registers = (
        t.tensor(t.variables["params"].get(key, np.zeros((1, 0, x.shape[-1])))).expand(
            len(x), -1, -1
        )
        for key in ("tokens", "registers")
    )
    position, first = t.tensor(t.variables["params"]["position"]), tokens.shape[1]
    if module.token_position:
        x = t.torch.cat([tokens, x], 1) + position
    else:
        x = t.torch.cat([tokens, x + position], 1)
    # Where DINOv2 has its registers.
    x = t.torch.cat([x[:, :first], registers, x[:, first:]], 1)
    for i in (1, 2):
        x = torch_block(module, t, f"block{i}", x.shape[-1])(x)

    def norm(x):
        name = "fc_norm" if module.pool == "mean_norm" else "norm"
        gamma, beta = t.arrays("params", name, "scale", "bias")
        return functional.layer_norm(x, gamma.shape, gamma, beta, module.epsilon)

    patches = x[:, first + registers.shape[1] :]
    if module.pool == "mean_norm":
        return norm(patches.mean(1))
    mean = [norm(patches).mean(1)] if "mean" in module.pool else []
    return t.torch.cat(
        [norm(x[:, :first]).flatten(1) if "token" in module.pool else x[:, 0, :0], *mean], 1
    )


def torch_block(module, t, name, width):
    layer = t.torch.nn.TransformerEncoderLayer(
        width,
        SMALL["heads"],
        4 * width,
        dropout=0.0,
        activation="gelu",
        layer_norm_eps=module.epsilon,
        batch_first=True,
        norm_first=True,
    )
    attention = f"{name}/attention"
    qkv = [
        t.arrays("params", f"{attention}/{n}", "kernel", "bias") for n in ("query", "key", "value")
    ]
    out_kernel, out_bias = t.arrays("params", f"{attention}/out", "kernel", "bias")
    # Scaling what a layer adds is scaling the rows of its last kernel.
    scales = t.arrays("params", name, "layer_scale1", "layer_scale2")
    of_attention, of_mlp = (t.torch.ones(width) if s is None else s for s in scales)
    state = {
        "self_attn.in_proj_weight": t.torch.cat([k.flatten(1).T for k, _ in qkv]),
        "self_attn.in_proj_bias": t.torch.cat([b.flatten() for _, b in qkv]),
        "self_attn.out_proj.weight": (out_kernel.flatten(0, 1) * of_attention).T,
        "self_attn.out_proj.bias": out_bias * of_attention,
    }
    for theirs, ours, scale in (("linear1", "fc1", 1), ("linear2", "fc2", of_mlp)):
        kernel, bias = t.arrays("params", f"{name}/mlp/{ours}", "kernel", "bias")
        state |= {f"{theirs}.weight": (kernel * scale).T, f"{theirs}.bias": bias * scale}
    for norm in ("norm1", "norm2"):
        gamma, beta = t.arrays("params", f"{name}/{norm}", "scale", "bias")
        state |= {f"{norm}.weight": gamma, f"{norm}.bias": beta}
    layer.load_state_dict(state)
    # torch's fused evaluation gives the same but for its own approximation of GELU.
    return layer.train().requires_grad_(False)


@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_torch(variant, random_variables, torch_layers):
    module = ViT(5, **SMALL, **VARIANTS[variant])
    variables = random_variables(module)
    images = np.random.default_rng(1).normal(size=(3, 32, 32, 3)).astype(np.float32)
    layers = torch_layers(variables)
    expected = torch_features(module, layers, layers.images(images)).numpy()
    got = jax.jit(functools.partial(models.features, module))(variables, images)
    chex.assert_trees_all_close(got, expected, rtol=1e-4, atol=1e-4)


def test_distilled_logits_are_the_mean_of_both_tokens(random_variables):
    module = ViT(5, **SMALL, distilled=True)
    variables = random_variables(module)
    images = np.random.default_rng(1).normal(size=(3, 32, 32, 3)).astype(np.float32)
    features = models.features(module, variables, images).reshape(3, 2, 12)
    head = variables["params"]["head"]
    assert head["kernel"].shape == (2, 12, 5)
    each = [features[:, i] @ head["kernel"][i] + head["bias"][i][None] for i in (0, 1)]
    logits = models.apply(module, variables, images)
    chex.assert_trees_all_close(logits, (each[0] + each[1]) / 2, rtol=1e-4, atol=1e-5)
    headed = models.with_head(variables, 9)
    chex.assert_trees_all_equal(models.apply(module, headed, images), jnp.zeros((3, 9)))


@pytest.mark.parametrize(
    "options", [{"remat": True}, {"scan": True}, {"scan": True, "remat": True}]
)
def test_the_same_however_the_blocks_are_run(options, random_variables):
    plain, other = ViT(5, **SMALL), ViT(5, **SMALL, **options)
    variables = random_variables(plain)
    params = dict(variables["params"])
    if "scan" in options:
        blocks = [params.pop(f"block{i}") for i in (1, 2)]
        params["blocks"] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks)
    images = np.random.default_rng(1).normal(size=(3, 32, 32, 3)).astype(np.float32)

    def loss(module, params):
        return jnp.sum(jnp.sin(models.apply(module, {"params": params}, images)))

    # Compiling is what this test spends its time on.
    value_and_grad = jax.jit(jax.value_and_grad(loss, argnums=1), static_argnums=0)
    expected, expected_grads = value_and_grad(plain, variables["params"])
    value, grads = value_and_grad(other, params)
    chex.assert_trees_all_close(value, expected, rtol=1e-5)
    if "scan" in options:
        stacked = grads.pop("blocks")
        grads |= {f"block{i + 1}": jax.tree.map(lambda x, i=i: x[i], stacked) for i in (0, 1)}
    chex.assert_trees_all_close(grads, expected_grads, rtol=1e-3, atol=1e-4)


def count(jaxpr, name):
    """Equations of a primitive, inner jaxprs not entered."""
    return sum(eqn.primitive.name == name for eqn in jaxpr.eqns)


@pytest.mark.parametrize(
    ("options", "scans", "remats"),
    [
        ({}, 0, 0),
        ({"scan": True}, 1, 0),
        ({"remat": True}, 0, 2),
        ({"scan": True, "remat": True}, 1, 0),
    ],
)
def test_loops_and_rematerialisation_are_in_the_program(options, scans, remats, random_variables):
    module = ViT(5, **SMALL, **options)
    images = np.zeros((1, 32, 32, 3), np.float32)
    apply = functools.partial(models.apply, module)
    jaxpr = jax.make_jaxpr(apply)(random_variables(module), images)
    assert count(jaxpr, "scan") == scans
    assert count(jaxpr, "remat2") + count(jaxpr, "checkpoint") == remats
    if scans:
        (body,) = (eqn.params["jaxpr"] for eqn in jaxpr.eqns if eqn.primitive.name == "scan")
        inner = count(body.jaxpr, "remat2") + count(body.jaxpr, "checkpoint")
        assert inner == int("remat" in options)


def test_images_of_another_size(random_variables):
    module = ViT(5, **SMALL)
    variables = random_variables(module)
    with pytest.raises(UserError, match=r"images of 40 x 32 px make 21 tokens; .* is for 17"):
        models.apply(module, variables, jnp.zeros((1, 40, 32, 3)))
    with pytest.raises(UserError, match=r"images are 32 x 36 px; expected multiples of .* 8 px"):
        models.apply(module, variables, jnp.zeros((1, 32, 36, 3)))
    with pytest.raises(UserError, match="images are 20 x 20 px"):
        models.init(module, jax.random.key(0), 20)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"class_token": False}, 0),
        ({"class_token": False, "pool": "token+mean"}, 0),
        ({"distilled": True, "pool": "mean"}, 2),
    ],
)
def test_pools_without_their_tokens(options, count):
    with pytest.raises(UserError, match=rf"pool is '.*'; expected one for {count} class tokens"):
        models.init(ViT(5, **SMALL, **options), jax.random.key(0), 32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 0}, "option heads of model vit_s16 is 0; expected a positive int"),
        ({"depth": 2.5}, "option depth"),
        ({"scan": 1}, "option scan .* is 1; expected True or False"),
        ({"registers": -1}, "option registers .* is -1; expected an int of at least 0"),
        ({"pool": "max"}, "option pool .* is 'max'; expected 'token', 'mean', 'mean_norm' or"),
        ({"distilled": True}, "unknown option 'distilled' of model vit_s16; expected one of heads"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(UserError, match=message):
        models.create("vit_s16", 3, **options)
