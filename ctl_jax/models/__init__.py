"""Flax networks; weights in and out.

`apply_pruned` runs any Linen module, one of these or not, with pruned parameters.

Example:
  >>> pretrained = load_pretrained("resnet50.a1_in1k.safetensors")
  >>> logits = pretrained(images)
  >>> module = create("resnet50", num_outputs=16, stages=(3, 4, 6))
  >>> variables = init(module, jax.random.key(0), image_size=64)
  >>> logits = apply(module, variables, PREPROCESS["imagenet"](images))
"""

from ctl_jax.models._checkpoint import content_hash, load_checkpoint, save_checkpoint
from ctl_jax.models._custom import from_module, is_own
from ctl_jax.models._elastic import apply as apply_pruned
from ctl_jax.models._partial import apply_from, entering, entrance
from ctl_jax.models._pretrained import load_pretrained
from ctl_jax.models._weights import load_weights
from ctl_jax.models.cpu import compiler_options, tuned
from ctl_jax.models.depth import shorten
from ctl_jax.models.functional import (
    HeadInput,
    apply,
    count_params,
    features,
    init,
    new_head,
    reads_last,
    reduction,
    representation,
)
from ctl_jax.models.heads import apply_head, resize_head, set_head, with_head
from ctl_jax.models.model import Model, load, save
from ctl_jax.models.preprocess import PREPROCESS, Preprocess
from ctl_jax.models.registry import CLASSIFIERS, NAMES, create, options_of, without_classifier
from ctl_jax.models.resnet import ResNet
from ctl_jax.models.stages import stages

__all__ = [
    "CLASSIFIERS",
    "NAMES",
    "PREPROCESS",
    "HeadInput",
    "Model",
    "Preprocess",
    "ResNet",
    "apply",
    "apply_from",
    "apply_head",
    "apply_pruned",
    "compiler_options",
    "content_hash",
    "count_params",
    "create",
    "entering",
    "entrance",
    "features",
    "from_module",
    "init",
    "is_own",
    "load",
    "load_checkpoint",
    "load_pretrained",
    "load_weights",
    "new_head",
    "options_of",
    "reads_last",
    "reduction",
    "representation",
    "resize_head",
    "save",
    "save_checkpoint",
    "set_head",
    "shorten",
    "stages",
    "tuned",
    "with_head",
    "without_classifier",
]
