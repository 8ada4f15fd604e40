"""Image files to arrays of one size."""

import io

import numpy as np
import pytest
from PIL import Image

from ctl_jax.data import images


def encode(array: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind)
    return file.getvalue()


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 20, 3)).astype(np.uint8)


def test_same_size_is_unchanged(picture: np.ndarray) -> None:
    np.testing.assert_array_equal(images.decode(encode(picture), 20), picture)


def test_grey_becomes_three_equal_channels(picture: np.ndarray) -> None:
    grey = images.decode(encode(picture[..., 0]), 20)
    np.testing.assert_array_equal(grey, np.repeat(picture[..., :1], 3, -1))


@pytest.mark.parametrize(("height", "width"), [(20, 40), (40, 20), (20, 21), (21, 20)])
def test_the_middle_is_cut_out(picture: np.ndarray, height: int, width: int) -> None:
    wide = np.zeros((height, width, 3), np.uint8)
    top, left = (height - 20) // 2, (width - 20) // 2
    wide[top : top + 20, left : left + 20] = picture
    result = images.decode(encode(wide), 20)
    if (height - width) % 2 == 0:
        np.testing.assert_array_equal(result, picture)
    assert result.shape == (20, 20, 3)


def test_short_side_is_resized_before_the_crop() -> None:
    # Left half black, right half white, twice as wide as high: the middle holds the border.
    wide = np.zeros((40, 80, 3), np.uint8)
    wide[:, 40:] = 255
    result = images.decode(encode(wide), 10)
    assert result[:, :4].max() == 0
    assert result[:, 6:].min() == 255


def test_reducing_is_antialiased() -> None:
    checks = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    result = images.decode(encode(checks), 16).astype(int)
    assert abs(result[2:-2, 2:-2] - 127).max() <= 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP"])
def test_many_at_once_keep_their_order(kind: str) -> None:
    contents = [encode(np.full((8, 8, 3), k, np.uint8), kind) for k in range(200)]
    out = np.empty((200, 8, 8, 3), np.uint8)
    images.decode_into(out, contents)
    assert abs(out.reshape(200, -1).astype(int) - np.arange(200)[:, None]).max() <= 1


@pytest.mark.parametrize("damage", ["cut", "noise", "empty"])
def test_a_damaged_image_is_named(picture: np.ndarray, damage: str) -> None:
    whole = encode(picture)
    bad = {"cut": whole[: len(whole) // 2], "noise": b"no image", "empty": b""}[damage]
    with pytest.raises(OSError, match=r"^image 3: "):
        images.decode_into(np.empty((5, 8, 8, 3), np.uint8), [whole, whole, whole, bad, whole])
