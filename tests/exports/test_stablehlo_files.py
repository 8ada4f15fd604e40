"""StableHLO files give the same logits, for any number of images."""

import jax.export
import pytest

from ctl_jax.exports import stablehlo_files


@pytest.mark.parametrize(
    "family",
    ["resnet", *(pytest.param(name, marks=pytest.mark.slow) for name in ("vit_scan", "unet"))],
)
def test_same_logits(family, small, images, check):
    model = small(family, True)
    (content,) = stablehlo_files.files(model).values()
    exported = jax.export.deserialize(bytearray(content))
    assert exported.platforms == stablehlo_files.PLATFORMS
    for count in (1, 3):
        pixels = images(model, count)
        check(model, pixels, exported.call(pixels))
