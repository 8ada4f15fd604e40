"""What holds of every family's names in every library: recognised, and the same bytes again."""

import functools
import zlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from ctl_jax import models, pruning
from ctl_jax.models import matching, names

# Each family small, with what is particular to it: name, options, image size.
SMALL = {
    "resnet18": ("resnet18", {"stages": (1, 2), "width": 4, "stem": "cifar"}, 32),
    "resnet50": ("resnet50", {"stages": (2, 1), "width": 4, "conv_bias": True}, 32),
    "resnext": ("resnext50_32x4d", {"stages": (1, 1), "groups": 4, "width_per_group": 16}, 32),
    "resnet20": ("resnet20", {"stages": (1, 1), "width": 4}, 32),
    "vgg": ("vgg11_bn", {"stages": (1, 2), "width": 4, "hidden": 6, "pool": 2}, 32),
    "densenet": ("densenet121", {"stages": (2, 1), "growth": 4, "width": 6}, 32),
    "mobilenet_v1": ("mobilenet_v1", {"stages": (1, 1), "width_multiplier": 0.25}, 32),
    "mobilenet_v2": ("mobilenet_v2", {"stages": (1, 2), "width_multiplier": 0.25}, 32),
    "mobilenet_v3": ("mobilenet_v3_small", {"stages": (1, 2)}, 32),
    "efficientnet": ("efficientnet_b0", {"stages": (1, 2), "width_multiplier": 0.25}, 32),
    "efficientnet_lite": ("efficientnet_lite0", {"stages": (1, 1, 1)}, 32),
    "squeezenet": ("squeezenet1_1", {}, 32),
    "convnext": ("convnext_tiny", {"stages": (1, 1), "width": 8}, 32),
    "vit": ("vit_s16", {"heads": 2, "depth": 2, "head_width": 64, "patch": 8}, 16),
    "vit_scan": (
        "vit_s16", {"heads": 1, "depth": 2, "head_width": 64, "patch": 8, "scan": True}, 16,
    ),
    "deit": ("deit_s16_distilled", {"heads": 1, "depth": 1, "head_width": 64, "patch": 8}, 16),
    "dinov2": ("vit_s14_reg4_dinov2", {"heads": 1, "depth": 1, "head_width": 64}, 28),
}  # fmt: skip

# Fields that no shape tells: a library's own values.
INVISIBLE = {
    "epsilon", "padding", "version", "relu_head", "scan", "remat", "num_outputs",
}  # fmt: skip

NAMED = [n for n in models.NAMES if names.of_module(models.create(n, 1))]
# One preset a family is enough but where somebody waits for it.
QUICK = {type(models.create(name, 1)): name for name in reversed(NAMED)}.values()


@functools.cache
def build(case):
    name, options, size = SMALL[case]
    module = models.create(name, 3, **options)
    return module, matching.shapes_of(module, size)


def usable(module):
    """The namings that can name a module's arrays."""
    for naming in names.of_module(module):
        if all(getattr(module, field) == value for field, value in naming.requires.items()):
            yield naming


def draw(shapes):
    """Arrays of numbers that are all different, statistics positive."""
    rng = np.random.default_rng(zlib.crc32(repr(sorted(shapes)).encode()))
    return {path: rng.uniform(0.5, 1.5, shape).astype("f4") for path, shape in shapes.items()}


def check_recognised(naming, module, theirs):
    network = naming.recognise(theirs, "")
    assert network is not None, (naming.library, sorted(theirs)[:5])
    found = models.create(network.name, 3, **network.options)
    for field in type(module).__dataclass_fields__.keys() - {"parent", "name"} - INVISIBLE:
        own = getattr(module, field), getattr(found, field)
        assert own[0] == own[1], (naming.library, network, field)
    assert isinstance(network.preprocess, models.Preprocess)
    assert network.image_size >= 8


def read(naming, module, shapes, theirs):
    found = matching.match(naming, module, shapes, naming.arrays(theirs))
    assert not found.problems, (naming.library, found.describe())
    return flatten_dict(matching.variables_of(found), sep="/")


@pytest.mark.parametrize("case", SMALL)
def test_same_bytes_again(case):
    module, shapes = build(case)
    ours = draw(shapes)
    for naming in usable(module):
        theirs = names.write(naming, ours)
        assert sum(array.size for array in theirs.values()) == sum(a.size for a in ours.values())
        check_recognised(naming, module, {n: array.shape for n, array in theirs.items()})
        again = read(naming, module, shapes, theirs)
        chex.assert_trees_all_equal(again, ours)
        chex.assert_trees_all_equal(names.write(naming, again), theirs)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in QUICK)) for n in NAMED]
)
def test_whole_networks_are_recognised(name):
    module = models.create(name, 3)
    shapes = matching.shapes_of(module, 224)
    for naming in usable(module):
        theirs = {}
        for entry in naming.entries(shapes):
            zeros = matching.zeros([shapes[path] for path in entry.ours])
            theirs |= zip(entry.theirs, (a.shape for a in entry.write(zeros)), strict=True)
        check_recognised(naming, module, theirs)


@pytest.mark.parametrize("case", SMALL)
def test_pruned_widths(case):
    """Of what is written of a pruned network the same network is read."""
    name, _, size = SMALL[case]
    module, shapes = build(case)
    variables = matching.unflatten(draw(shapes))
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    groups = pruning.trace(functools.partial(models.apply, module), variables, image)
    scores = pruning.score(groups, variables, criterion="l2")
    keep = pruning.select(groups, scores, ratio=0.5, scope="channels")
    small = flatten_dict(pruning.prune(variables, groups, keep), sep="/")
    assert {path: a.shape for path, a in small.items()} != shapes, name
    for naming in usable(module):
        theirs = names.write(naming, small)
        again = read(naming, module, {path: a.shape for path, a in small.items()}, theirs)
        chex.assert_trees_all_equal(again, small)
