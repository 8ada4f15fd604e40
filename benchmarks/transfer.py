"""A PyTorch network with the weights of one of ctl_jax's, at the widths that they have."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
import torch_models
import torch_vit
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


class _Names(NamedTuple):
    """Names of layers in torchvision, and in ctl_jax.

    Attributes:
      block: pattern of a block's name in torchvision; blocks are in one order in both.
      inside: layers in a block.
      outside: full names of other layers.
    """

    block: str
    inside: Mapping[str, str]
    outside: Mapping[str, str]


_NAMES = {
    "resnet": _Names(
        r"layer\d\.\d+",
        {
            **{f"{layer}{i}": f"{layer}{i}" for layer in ("conv", "bn") for i in (1, 2, 3)},
            "downsample.0": "shortcut_conv",
            "downsample.1": "shortcut_bn",
        },
        {"conv1": "stem_conv", "bn1": "stem_bn", "fc": "head"},
    ),
    "densenet": _Names(
        r"features\.denseblock\d\.denselayer\d+",
        {"norm1": "bn1", "conv1": "conv1", "norm2": "bn2", "conv2": "conv2"},
        {
            "features.conv0": "stem_conv",
            "features.norm0": "stem_bn",
            **{f"features.transition{i}.norm": f"transition{i}/bn" for i in (1, 2, 3)},
            **{f"features.transition{i}.conv": f"transition{i}/conv" for i in (1, 2, 3)},
            "features.norm5": "final_bn",
            "classifier": "head",
        },
    ),
    "mobilenet": _Names(
        r"features\.\d+(?=\.conv)",
        {
            "conv.0.0": "expand_conv",
            "conv.0.1": "expand_bn",
            "conv.1.0": "depthwise_conv",
            "conv.1.1": "depthwise_bn",
            "conv.2": "project_conv",
            "conv.3": "project_bn",
        },
        {
            "features.0.0": "stem_conv",
            "features.0.1": "stem_bn",
            # The first block does not expand.
            "features.1.conv.0.0": "stage1_block1/depthwise_conv",
            "features.1.conv.0.1": "stage1_block1/depthwise_bn",
            "features.1.conv.1": "stage1_block1/project_conv",
            "features.1.conv.2": "stage1_block1/project_bn",
            "features.18.0": "last_conv",
            "features.18.1": "last_bn",
            "classifier.1": "head",
        },
    ),
    "vit": _Names(
        r"encoder\.layers\.encoder_layer_\d+",
        {
            "ln_1": "norm1",
            **{f"self_attention.{name}": f"attention/{name}" for name in ("query", "key", "value")},
            "self_attention.out_proj": "attention/out",
            "ln_2": "norm2",
            "mlp.0": "mlp/fc1",
            "mlp.3": "mlp/fc2",
        },
        {"conv_proj": "patch_conv", "encoder.ln": "norm", "heads.head": "head"},
    ),
}


def to_torch(name: str, variables: Mapping[str, Any]) -> nn.Module:
    """The network of `torch_models` with these weights, in evaluation mode.

    Args:
      name: of a network in both libraries.
      variables: of ctl_jax's, perhaps pruned.
    """
    names = next(found for family, found in _NAMES.items() if name.startswith(family))
    with torch.device("meta"):
        model = torch_models.create("vit_b16_split" if name == "vit_b16" else name)
    blocks = list(dict.fromkeys(re.findall(names.block, "\n".join(dict(model.named_modules())))))
    ours = sorted(
        (key for key in variables["params"] if re.fullmatch(r"(stage\d_)?(block|layer)\d+", key)),
        key=lambda key: [int(number) for number in re.findall(r"\d+", key)],
    )
    block_names = dict(zip(blocks, ours, strict=True))
    for path, layer in model.named_modules():
        if not any(True for _ in layer.parameters(recurse=False)):
            continue
        if isinstance(layer, torch_vit.VisionTransformer):
            layer.class_token = _parameter(variables["params"]["tokens"])
        elif isinstance(layer, torch_vit.Encoder):
            layer.pos_embedding = _parameter(variables["params"]["position"])
        else:
            _fill(layer, _leaves(variables, _our_name(path, names, block_names)))
        if path.endswith("self_attention.query"):
            attention = model.get_submodule(path.rpartition(".")[0])
            found = _leaves(variables, _our_name(path, names, block_names))
            attention.heads = found["kernel"].shape[1]
    left = [key for key, value in model.state_dict().items() if value.is_meta]
    assert not left, left
    return model


def to_torch_resnet50(variables: Mapping[str, Any], options: Mapping[str, Any]) -> nn.Module:
    """A ResNet-50, whole or up to conv4, of torchvision's or of Keras's kind (strides, biases).

    Args:
      variables: of ctl_jax's.
      options: of its module, see `models.create`.
    """
    variables = {kind: _copied(tree) for kind, tree in variables.items()}
    for block, inside in [("", variables["params"]), *variables["params"].items()]:
        statistics = variables["batch_stats"].get(block, {}) if block else variables["batch_stats"]
        for name, layer in inside.items():
            if "conv" in name and "bias" in layer:
                # BatchNorm takes a convolution's bias away again.
                norm = statistics[name.replace("conv", "bn")]
                norm["mean"] = norm["mean"] - layer.pop("bias")
    stages = {name[:6] for name in variables["params"] if name.startswith("stage")}
    model = to_torch("resnet50" if len(stages) == 4 else "resnet50_conv4", variables)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = options.get("epsilon", module.eps)
        if isinstance(module, torch_models.Block) and options.get("version") == "v1":
            module.conv1.stride, module.conv2.stride = module.conv2.stride, module.conv1.stride
    return model


def _copied(tree: Any) -> Any:
    """Nested dicts of their own."""
    return {k: _copied(v) for k, v in tree.items()} if isinstance(tree, Mapping) else tree


def count_and_run(model: nn.Module, images: np.ndarray) -> tuple[int, np.ndarray]:
    """FLOPs by PyTorch's counter, and the logits, of images [B, H, W, 3]."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        logits = model(torch.from_numpy(images).permute(0, 3, 1, 2))
    return counter.get_total_flops(), logits.numpy()


def _our_name(path: str, names: _Names, blocks: Mapping[str, str]) -> str:
    if path in names.outside:
        return names.outside[path]
    block = re.match(names.block, path)
    assert block is not None, f"no name for {path}"
    return f"{blocks[block[0]]}/{names.inside[path[block.end() + 1 :]]}"


def _leaves(variables: Mapping[str, Any], name: str) -> dict[str, np.ndarray]:
    """The parameters and statistics of a layer."""
    found: dict[str, np.ndarray] = {}
    for tree in variables.values():
        for key in name.split("/"):
            tree = tree.get(key, {})
        found.update({key: np.asarray(leaf) for key, leaf in tree.items()})
    return found


def _fill(layer: nn.Module, leaves: Mapping[str, np.ndarray]) -> None:
    if isinstance(layer, nn.Conv2d):
        kernel = leaves["kernel"].transpose(3, 2, 0, 1)
        if layer.groups > 1:  # depthwise
            layer.groups = kernel.shape[0]
        layer.weight = _parameter(kernel)
    elif isinstance(layer, nn.Linear):
        kernel = leaves["kernel"]
        # Those of attention are [inputs, heads, d] and [heads, d, outputs].
        outputs = kernel.shape[-1] if leaves["bias"].ndim == 1 else leaves["bias"].size
        layer.weight = _parameter(kernel.reshape(-1, outputs).T)
    else:
        layer.weight = _parameter(leaves["scale"])
    if isinstance(layer, nn.LayerNorm):
        layer.normalized_shape = leaves["scale"].shape
    if isinstance(layer, nn.BatchNorm2d):
        layer.running_mean = torch.tensor(leaves["mean"])
        layer.running_var = torch.tensor(leaves["var"])
        layer.num_batches_tracked = torch.tensor(0)
    if layer.bias is not None:
        layer.bias = _parameter(leaves["bias"].reshape(-1))


def _parameter(values: Any) -> nn.Parameter:
    return nn.Parameter(torch.tensor(np.ascontiguousarray(values)))
