"""From a user's own module and variables to a model."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn

from ctl_jax.models import own
from ctl_jax.models.model import Model
from ctl_jax.models.preprocess import Preprocess


def from_module(
    module: nn.Module,
    variables: Mapping[str, Any],
    *,
    preprocess: str | Preprocess = "nevis",
    image_size: int = 64,
    classes: Sequence[str] = (),
) -> Model:
    """A user's own module and variables as a model: to save, prune, finetune and export.

    Saved with `models.save`, its folder is what `config.weights` may name.

    Args:
      module: a Linen module, images [B, H, W, 3] to logits [B, outputs], of a class that can be
        imported by its name, and whose fields are plain values.
      variables: its own, with {"params": ...}, and "batch_stats" where it has BatchNorm.
      preprocess: what it expects of an image, see `models.Preprocess`.
      image_size: side of the images that it is for, in pixels.
      classes: names of its outputs, where they are known.

    Raises:
      UserError: it cannot be named or described like that, or does not end in a dense layer.

    Example:
      >>> model = from_module(Net(num_classes=10), variables, preprocess="imagenet")
      >>> models.save("net", model)
    """
    name, options, moved = own.describe(module, variables, image_size)
    return Model(name, options, moved, Preprocess.parse(preprocess), image_size, tuple(classes))
