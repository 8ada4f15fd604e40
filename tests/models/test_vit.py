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


def macs(heads):
    """Multiply-adds of one image of 224x224 by a network of 12 blocks, 16x16 patches."""
    width, tokens = 64 * heads, 14 * 14 + 1
    dense = 4 * width**2 + 2 * 4 * width**2
    attention = 2 * tokens * width
    return (tokens - 1) * 3 * 16**2 * width + 12 * tokens * (dense + attention) + 1000 * width


# Parameters with 1000 outputs, of timm's models (DeiT's, for those).
PARAMS = {
    "vit_ti16": 5_717_416,
    "vit_s16": 22_050_664,
    "vit_b16": 86_567_656,
    "deit_s16": 22_050_664,
    "deit_s16_distilled": 22_436_432,
}
SMALL = {"heads": 3, "depth": 2, "head_width": 4, "patch": 8}


@pytest.mark.parametrize("name", PARAMS)
def test_size(name, check_size):
    tokens, width = 14 * 14 + 1, 64 * PRESETS[name]["heads"]
    flops = 2 * macs(PRESETS[name]["heads"])
    if name == "deit_s16_distilled":
        # One more token: dense layers, its row and its column of the attention; and a second head.
        dense_and_attention = 12 * width**2 + 2 * (2 * tokens + 1) * width
        flops += 2 * (12 * dense_and_attention + 1000 * width)
    check_size(models.create(name, 1000), PARAMS[name], flops)
    assert PARAMS.keys() == PRESETS.keys()


def test_flops_are_those_of_the_literature():
    # torchvision's vit_b_16: 17.564 billion.
    assert round(macs(12) / 1e9, 3) == 17.564


@pytest.mark.parametrize("options", [{}, {"remat": True}, {"scan": True}])
def test_conventions(options, check_conventions):
    narrow = ViT(5, **{**SMALL, "heads": 2}, **options)
    check_conventions(ViT(5, **SMALL, **options), narrow, (12,), size=(32, 32))


def torch_features(t, x):
    """Features [B, F] by torch's own transformer layers, of torch layers and images."""
    functional = t.torch.nn.functional
    weight, bias = t.arrays("params", "patch_conv", "kernel", "bias")
    x = functional.conv2d(x, weight.permute(3, 2, 0, 1), bias, stride=8)
    x = x.flatten(2).transpose(1, 2)
    tokens, position = (t.tensor(t.variables["params"][key]) for key in ("tokens", "position"))
    x = t.torch.cat([tokens.expand(len(x), -1, -1), x], 1) + position
    for i in (1, 2):
        x = torch_block(t, f"block{i}", x.shape[-1])(x)
    gamma, beta = t.arrays("params", "norm", "scale", "bias")
    x = functional.layer_norm(x[:, : tokens.shape[1]], gamma.shape, gamma, beta, 1e-6)
    return x.flatten(1)


def torch_block(t, name, width):
    layer = t.torch.nn.TransformerEncoderLayer(
        width,
        SMALL["heads"],
        4 * width,
        dropout=0.0,
        activation="gelu",
        layer_norm_eps=1e-6,
        batch_first=True,
        norm_first=True,
    )
    attention = f"{name}/attention"
    qkv = [
        t.arrays("params", f"{attention}/{n}", "kernel", "bias") for n in ("query", "key", "value")
    ]
    out_kernel, out_bias = t.arrays("params", f"{attention}/out", "kernel", "bias")
    state = {
        "self_attn.in_proj_weight": t.torch.cat([k.flatten(1).T for k, _ in qkv]),
        "self_attn.in_proj_bias": t.torch.cat([b.flatten() for _, b in qkv]),
        "self_attn.out_proj.weight": out_kernel.flatten(0, 1).T,
        "self_attn.out_proj.bias": out_bias,
    }
    for theirs, ours in (("linear1", "fc1"), ("linear2", "fc2")):
        kernel, bias = t.arrays("params", f"{name}/mlp/{ours}", "kernel", "bias")
        state |= {f"{theirs}.weight": kernel.T, f"{theirs}.bias": bias}
    for norm in ("norm1", "norm2"):
        gamma, beta = t.arrays("params", f"{name}/{norm}", "scale", "bias")
        state |= {f"{norm}.weight": gamma, f"{norm}.bias": beta}
    layer.load_state_dict(state)
    # torch's fused evaluation gives the same but for its own approximation of GELU.
    return layer.train().requires_grad_(False)


@pytest.mark.parametrize("distilled", [False, True])
def test_equals_torch(distilled, random_variables, torch_layers):
    module = ViT(5, **SMALL, distilled=distilled)
    variables = random_variables(module)
    images = np.random.default_rng(1).normal(size=(3, 32, 32, 3)).astype(np.float32)
    layers = torch_layers(variables)
    expected = torch_features(layers, layers.images(images)).numpy()
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
    value_and_grad = jax.jit(
        jax.value_and_grad(loss, argnums=1),
        static_argnums=0,
        compiler_options={"xla_backend_optimization_level": 0},
    )
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
    ("options", "message"),
    [
        ({"heads": 0}, "option heads of model vit_s16 is 0; expected a positive int"),
        ({"depth": 2.5}, "option depth"),
        ({"scan": 1}, "option scan .* is 1; expected True or False"),
        ({"distilled": True}, "unknown option 'distilled' of model vit_s16; expected one of heads"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(UserError, match=message):
        models.create("vit_s16", 3, **options)
