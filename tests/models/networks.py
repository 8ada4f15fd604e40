"""Every network by name, small enough for tests that look at all of them."""

import functools

import jax

from ctl_jax import models

SIZE = 32
# Small options of each family, by how its names begin.
TOKENS = {"heads": 2, "depth": 2, "head_width": 4, "patch": 16}
OPTIONS = {
    "resnet": {"stages": (1, 2), "width": 4},
    "resnext": {"stages": (1, 2), "width": 16, "groups": 2},
    "wide_resnet": {"stages": (1, 2), "width": 4},
    "vgg": {"stages": (1, 2), "width": 4, "hidden": 8, "pool": 2},
    "densenet": {"stages": (1, 2), "width": 4, "growth": 4},
    "mobilenet": {"stages": (1, 2), "width_multiplier": 0.25},
    "efficientnet": {"stages": (1, 2), "width_multiplier": 0.25},
    "shufflenet_v1": {"stages": (1, 2), "width": 96, "stem_width": 24},
    "shufflenet_v2": {"stages": (1, 2), "width": 8, "stem_width": 4, "last_width": 8},
    "squeezenet": {"stages": (1, 2), "width": 2, "stem_width": 4},
    "unet": {"depth": 2, "width": 4},
    "convnext": {"stages": (1, 2), "width": 4},
    "vit": TOKENS,
    "deit": TOKENS,
    "mixer": {"width": 8, "depth": 2, "token_hidden": 4, "patch": 16},
}


def build(name, **more):
    """A network of three outputs, and its variables in the abstract."""
    options = next(OPTIONS[start] for start in OPTIONS if name.startswith(start))
    module = models.create(name, 3, **options, **more)
    return module, abstract(module)


# Many names are of one network at these options.
@functools.cache
def abstract(module):
    """Shapes of its variables, for images of `SIZE`."""
    init = functools.partial(models.init, module, image_size=SIZE)
    return jax.eval_shape(init, jax.random.key(0))
