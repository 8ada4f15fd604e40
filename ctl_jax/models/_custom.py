"""A user's own Linen module as a network like any other: its last layer becomes `params/head`."""

import dataclasses
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ctl_jax import values
from ctl_jax.errors import UserError, naming
from ctl_jax.models import _elastic, layers
from ctl_jax.models.model import Model
from ctl_jax.models.preprocess import Preprocess
from ctl_jax.trees import Variables

_Path = tuple[str, ...]

HEAD = "head"
# Fields of a module that say how many outputs it has, the likeliest first.
_OUTPUT_FIELDS = ("num_outputs", "num_classes", "num_labels", "classes")
# Arguments of `__call__` that tell a module not to train: BatchNorm is told by the phase.
_TRAIN_ARGUMENTS = {
    "train": False,
    "training": False,
    "is_training": False,
    "deterministic": True,
    "use_running_average": True,
}
# Images that a module is tried on, in pixels, where nobody says what they are.
_SIZES = (64, 224, 32, 28)
_FORM = "PACKAGE.MODULE:CLASS"


class Own(nn.Module):
    """A module whose last dense layer is `params/head` in its variables, whatever its own name.

    Attributes:
      net: the module: float32 images [B, H, W, 3] to logits [B, outputs].
      inner_head: path of that layer in the module, such as "Dense_0" or "classifier/fc".
    """

    net: nn.Module
    inner_head: str

    @nn.nowrap
    def apply(self, variables: Variables, *args: Any, **kwargs: Any) -> Any:
        """As `net.apply`, without dropout.

        `return_features=True` gives what the head reads instead.
        """
        features = kwargs.pop("return_features", False)
        kwargs |= told(self.net)
        inner = {**variables, "params": _moved(variables["params"], (HEAD,), self._path)}
        if not features:
            return self.net.apply(inner, *args, **kwargs)
        seen: list[jax.Array] = []

        def see(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
            if context.module.path == self._path and context.method_name == "__call__":
                seen.append(args[0])
                # The head may be one that this layer cannot compute.
                return np.zeros((*args[0].shape[:-1], 1), args[0].dtype)
            return next_fun(*args, **kwargs)

        with nn.intercept_methods(see):
            self.net.apply(inner, *args, **kwargs)
        return seen[0]

    @nn.nowrap
    def init(self, *args: Any, **kwargs: Any) -> Any:
        """As `net.init`; the head starts at zero, as that of any network here."""
        return self._outwards(self.net.init(*args, **(kwargs | told(self.net))))

    @nn.nowrap
    def lazy_init(self, *args: Any, **kwargs: Any) -> Any:
        """As `net.lazy_init`; the head starts at zero, as that of any network here."""
        return self._outwards(self.net.lazy_init(*args, **(kwargs | told(self.net))))

    @property
    def _path(self) -> _Path:
        return tuple(self.inner_head.split("/"))

    @nn.nowrap
    def _outwards(self, variables: Variables) -> dict[str, Any]:
        params = _moved(variables["params"], self._path, (HEAD,))
        params[HEAD] = jax.tree.map(jnp.zeros_like, params[HEAD])
        return {**variables, "params": params}


def told(net: nn.Module) -> dict[str, Any]:
    """The arguments of a module's call that say that it does not train."""
    known = inspect.signature(type(net).__call__).parameters
    return {name: value for name, value in _TRAIN_ARGUMENTS.items() if name in known}


def _moved(params: Variables, source: _Path, target: _Path) -> dict[str, Any]:
    """The parameters with one layer at another path."""
    flat = flatten_dict(params)
    found = {
        (*target, *path[len(source) :]) if path[: len(source)] == source else path: leaf
        for path, leaf in flat.items()
    }
    return unflatten_dict(found)


def is_own(name: str) -> bool:
    """Whether an architecture's name is that of a user's module: "my_package.nets:Net"."""
    return ":" in name


def create(name: str, num_outputs: int, **options: Any) -> Own:
    """A user's own network by name.

    Args:
      name: PACKAGE.MODULE:CLASS of a `flax.linen.Module`, which is imported.
      num_outputs: outputs of the head, for the field that says so, where the class has one.
      **options: other fields of the class; and `head`, the path of its last dense layer, which is
        looked for where it is not given.

    Raises:
      UserError: there is no such class, it is no Linen module, has no such field, or no head.
    """
    options = dict(options)
    head = options.pop(HEAD, "")
    kind = _imported(name)
    known = options_of(name)
    for key in options:
        if key not in known:
            expected = ", ".join(known)
            raise UserError(f"unknown option {key!r} of model {name}; expected one of {expected}")
    outputs = next((field for field in _OUTPUT_FIELDS if field in known), None)
    if outputs and outputs not in options:
        options[outputs] = num_outputs
    # A config's lists, as a module's hash can not hold them.
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    try:
        net = kind(**options)
    except TypeError as error:
        raise UserError(f"model {name}: {error}") from None
    with naming(f"model {name}"):
        return Own(net, head or _find_head(net))


def options_of(name: str) -> tuple[str, ...]:
    """The options that `create` takes for a class.

    Raises:
      UserError: as `create`, of the name.
    """
    return (*_own_fields(_imported(name)), HEAD)


def describe(
    module: nn.Module, variables: Variables, image_size: int
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The name and the options by which `create` makes a module, and its variables for that.

    Args:
      module: a user's own, of a class that can be imported, whose fields are plain values.
      variables: its own; those that come back have its last dense layer as `params/head`.
      image_size: side of images that it runs on, in pixels.

    Raises:
      UserError: it cannot be named or described like that, or does not end in a dense layer.
    """
    kind = type(module)
    name = f"{kind.__module__}:{kind.__qualname__}"
    options = {field: getattr(module, field) for field in _own_fields(kind)}
    for field, value in options.items():
        if not _is_plain(value):
            raise UserError(
                f"field {field} of {name} is {value!r}; expected a number, a text, True, False, "
                "None or a tuple of those"
            )
    with naming(f"module {name}"):
        _imported(name)
        head = _find_head(module, variables, (image_size,))
    options = {key: value for key, value in options.items() if key not in _OUTPUT_FIELDS}
    moved = _moved(variables["params"], tuple(head.split("/")), (HEAD,))
    return name, {**options, HEAD: head}, {"batch_stats": {}, **variables, "params": moved}


def _own_fields(kind: type) -> list[str]:
    return [f.name for f in dataclasses.fields(kind) if f.init and f.name not in ("parent", "name")]


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _imported(name: str) -> type[nn.Module]:
    try:
        found = values.imported(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"unknown model {name!r}: {error}; expected {_FORM}") from None
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise UserError(f"model {name!r} is {found!r}; expected {_FORM} of a flax.linen.Module")
    return found


def _find_head(
    net: nn.Module, variables: Variables | None = None, sizes: Sequence[int] = _SIZES
) -> str:
    """Path of the dense layer whose outputs are the module's: the one that widens with it.

    Raises:
      UserError: the module does not run on such images, or has no such layer.
    """
    problem: Exception | None = None
    for size in sizes:
        images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
        try:
            shapes = _shapes(net, images) if variables is None else variables
            outputs = _outputs(net, shapes, images)
        # Whatever a user's code raises at images that are not for it.
        except Exception as error:
            problem = problem or error
            continue
        for path in _dense_layers(shapes["params"], outputs):
            wider = {**shapes, "params": _widened(shapes["params"], path, outputs + 1)}
            try:
                found = _outputs(net, wider, images)
            except Exception:  # A layer before the last that is as wide as it.
                continue
            if found == outputs + 1:
                return "/".join(path)
        raise UserError(
            f"no dense layer gives its {outputs} outputs; expected one at its end, or its path as "
            f"option {HEAD!r}"
        )
    reason = str(problem).strip().splitlines()[0] if str(problem).strip() else repr(problem)
    tried = ", ".join(map(str, sizes))
    raise UserError(f"it does not run on images of {tried} px ({reason})")


def _shapes(net: nn.Module, images: Any) -> Variables:
    def init(x: jax.Array) -> Any:
        return net.init(jax.random.key(0), x, **told(net))

    found: Variables = jax.eval_shape(init, images)
    return found


def _outputs(net: nn.Module, variables: Variables, images: Any) -> int:
    def call(variables: Variables, x: jax.Array) -> jax.Array:
        with layers.normalising(lambda path: False):
            logits: jax.Array = _elastic.apply(net, variables, x, **told(net))
        return logits

    return int(jax.eval_shape(call, variables, images).shape[-1])


def _dense_layers(params: Variables, outputs: int) -> Iterator[_Path]:
    """Paths of the dense layers of so many outputs, the last ones first."""
    for path, leaf in reversed(flatten_dict(params).items()):
        if path[-1] == "kernel" and len(leaf.shape) == 2 and leaf.shape[-1] == outputs:
            yield path[:-1]


def _widened(params: Variables, layer: _Path, outputs: int) -> dict[str, Any]:
    """The shapes of the parameters, with another number of outputs of one layer."""
    return unflatten_dict(
        {
            path: jax.ShapeDtypeStruct(
                (*leaf.shape[:-1], outputs) if path[:-1] == layer else leaf.shape, leaf.dtype
            )
            for path, leaf in flatten_dict(params).items()
        }
    )


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
    name, options, moved = describe(module, variables, image_size)
    return Model(name, options, moved, Preprocess.parse(preprocess), image_size, tuple(classes))
