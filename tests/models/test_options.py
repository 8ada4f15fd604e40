"""What a user may set: every option is a field, and every value of our own is a valid one."""

import pytest

from ctl_jax.models import (
    densenet,
    efficientnet,
    mobilenet_v1,
    mobilenet_v2,
    mobilenet_v3,
    options,
    resnet,
    shufflenet_v1,
    shufflenet_v2,
    squeezenet,
    unet,
    vgg,
)

FAMILIES = [
    (resnet, resnet.ResNet),
    (densenet, densenet.DenseNet),
    (mobilenet_v1, mobilenet_v1.MobileNetV1),
    (mobilenet_v2, mobilenet_v2.MobileNetV2),
    (mobilenet_v3, mobilenet_v3.MobileNetV3),
    (efficientnet, efficientnet.EfficientNet),
    (shufflenet_v1, shufflenet_v1.ShuffleNetV1),
    (shufflenet_v2, shufflenet_v2.ShuffleNetV2),
    (squeezenet, squeezenet.SqueezeNet),
    (vgg, vgg.VGG),
    (unet, unet.UNet),
]


@pytest.mark.parametrize(("family", "module"), FAMILIES)
def test_presets_and_defaults_are_valid(family, module):
    for preset in family.PRESETS.values():
        built = module(3, **preset)
        for name, (is_valid, expected) in family.OPTIONS.items():
            assert is_valid(getattr(built, name)), (name, expected)


@pytest.mark.parametrize(("family", "module"), FAMILIES)
def test_every_option_refuses_something(family, module):
    for name, (is_valid, expected) in family.OPTIONS.items():
        assert not any(map(is_valid, (None, -1, [], [0], "other", float("nan")))), name
        assert expected


@pytest.mark.parametrize(
    ("option", "good", "bad"),
    [
        (options.COUNT, [1, 7], [0, -1, True, 2.0, None, "3"]),
        (options.STAGES, [(1,), [3, 4]], [(), 3, (1, 0), (True,), "12"]),
        (options.stages_up_to(2), [(1,), [3, 4]], [(), (1, 1, 1), (0, 1)]),
        (options.POSITIVE, [1e-5, 2.0], [0.0, -1.0, 1, float("nan"), float("inf"), None]),
        (options.BOOL, [True, False], [0, 1, None]),
    ],
)
def test_kinds(option, good, bad):
    is_valid, _ = option
    assert all(map(is_valid, good))
    assert not any(map(is_valid, bad))
