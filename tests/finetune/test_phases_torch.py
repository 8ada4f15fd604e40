"""A phase's FLOPs are what torch counts where the other parameters have `requires_grad=False`."""

import fnmatch
import functools

import jax
import jax.numpy as jnp
import pytest

from ctl_jax import compute, finetune, models
from ctl_jax.finetune import Augmentation, Hyper, Phase, Recipe
from ctl_jax.trees import leaf_paths

torch = pytest.importorskip("torch")
flop_counter = pytest.importorskip("torch.utils.flop_counter")
F = torch.nn.functional

BATCH, SIZE, CLASSES = 4, 8, 3
MODULE = models.create("resnet18", 1, stages=(1, 1), width=8, stem="cifar")
VARIABLES = jax.eval_shape(
    lambda: models.with_head(models.init(MODULE, jax.random.key(0), SIZE), CLASSES)
)
ABOVE = ("stage2*", "head/*")


def logits(weights, x, by_batch):
    """The same network in functional torch, of the parameters by our paths."""

    def conv_bn(x, conv, bn, stride=1):
        kernel, scale = weights[f"{conv}/kernel"], weights[f"{bn}/scale"]
        x = F.conv2d(x, kernel, None, stride, kernel.shape[-1] // 2)
        mean, var = torch.zeros(len(scale)), torch.ones(len(scale))
        return F.batch_norm(x, mean, var, scale, weights[f"{bn}/bias"], training=by_batch)

    def block(x, name, stride):
        y = conv_bn(x, f"{name}/conv1", f"{name}/bn1", stride).relu()
        y = conv_bn(y, f"{name}/conv2", f"{name}/bn2")
        if stride > 1:
            x = conv_bn(x, f"{name}/shortcut_conv", f"{name}/shortcut_bn", stride)
        return (y + x).relu()

    x = conv_bn(x, "stem_conv", "stem_bn").relu()
    x = block(block(x, "stage1_block1", 1), "stage2_block1", 2).mean((2, 3))
    return F.linear(x, weights["head/kernel"], weights["head/bias"])


def torch_flops(phase):
    weights = {}
    for path, leaf in leaf_paths(VARIABLES["params"]):
        shape = {4: lambda s: (s[3], s[2], s[0], s[1]), 2: lambda s: s[::-1]}.get(len(leaf.shape))
        trained = any(fnmatch.fnmatchcase(path, pattern) for pattern in phase.train)
        weight = torch.zeros(shape(leaf.shape) if shape else leaf.shape, requires_grad=trained)
        weights[path] = weight
    counter = flop_counter.FlopCounterMode(display=False)
    with counter:
        x = torch.zeros(BATCH, 3, SIZE, SIZE)
        loss = F.cross_entropy(logits(weights, x, phase.batch_norm == "batch"), torch.arange(4) % 3)
        loss.backward()
    return counter.get_total_flops()


@pytest.mark.parametrize(
    "phase",
    [
        Phase(),
        Phase(batch_norm="frozen"),
        Phase(("head/*",), "frozen"),
        Phase(ABOVE),
        Phase(ABOVE, "frozen"),
        Phase(("head/*", "*bn*/*")),
        Phase(("stage1_block1/conv2/kernel", "head/*"), "frozen"),
        Phase(("stage2_block1/*bn*/bias",)),
    ],
    ids=lambda phase: f"{'+'.join(phase.train)}, {phase.batch_norm}",
)
def test_flops_are_torchs(phase):
    recipe = Recipe("nevis", Augmentation(), phase=phase)
    state = jax.eval_shape(functools.partial(finetune.init_state, recipe, seed=0), VARIABLES)
    found = compute.flops(
        functools.partial(finetune.train_step, MODULE, recipe),
        state,
        jax.ShapeDtypeStruct((BATCH, SIZE, SIZE, 3), jnp.uint8),
        jax.ShapeDtypeStruct((BATCH,), jnp.int32),
        Hyper(0.1, 1, 0, CLASSES),
    )
    assert found == torch_flops(phase)
