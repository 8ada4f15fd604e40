"""Predictions: the model's own, in every form, of images wherever they are."""

import csv
import dataclasses
import io
import json

import jax
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from ctl_jax import models, predict
from ctl_jax.data.images import decode
from ctl_jax.errors import UserError


@pytest.fixture
def model(tiny_model):
    return tiny_model


@pytest.fixture
def photos(tmp_path):
    """A folder of five images, one broken file and some that are none."""
    folder = tmp_path / "photos"
    rng = np.random.default_rng(0)
    names = ["a.jpg", "b c.png", "sub/c.jpeg", "sub/d.webp", "sub/sub/é.bmp"]
    (folder / "sub" / "sub").mkdir(parents=True)
    for name in names:
        pixels = rng.integers(0, 256, (2, 3, 3)).astype(np.uint8)
        Image.fromarray(pixels).resize((40, 30)).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    (folder / "notes.txt").write_text("none")
    (folder / ".hidden").mkdir()
    for hidden in (".hidden/x.jpg", "._a.jpg"):
        (folder / hidden).write_bytes(b"")
    return folder


def expected(model, path):
    """Class and probability of each output, the likeliest first."""
    logits = model.logits(decode(path.read_bytes(), model.image_size)[None])[0]
    values = np.asarray(jax.nn.softmax(logits))
    return sorted(zip(model.classes, values, strict=True), key=lambda pair: -pair[1])


def test_every_image_of_a_folder(model, photos):
    pictures = predict.find([str(photos)])
    assert [each.name.removeprefix(f"{photos}/") for each in pictures] == [
        "a.jpg", "b c.png", "broken.jpg", "sub/c.jpeg", "sub/d.webp", "sub/sub/é.bmp",
    ]  # fmt: skip
    # A batch of one, of some, and of more than there are.
    for batch_size in (1, 4, 64):
        found = list(predict.predict(model, pictures, top=2, batch_size=batch_size))
        assert [each.name for each in found] == [each.name for each in pictures]
        for picture, prediction in zip(pictures, found, strict=True):
            assert bool(prediction.error) == ("broken" in picture.name)
            if not prediction.error:
                wanted = expected(model, photos / picture.name)[:2]
                assert [label for label, _ in prediction.classes] == [label for label, _ in wanted]
                np.testing.assert_allclose(
                    [p for _, p in prediction.classes], [p for _, p in wanted], rtol=1e-4
                )


def test_tables(model, photos):
    rows = [("a.jpg", "x"), ("sub/c.jpeg", "y"), ("gone.jpg", "x")]
    (photos / "t.csv").write_text("path,label\n" + "".join(f"{a},{b}\n" for a, b in rows))
    (photos / "t.tsv").write_text("label\tfile\n" + "".join(f"{b}\t{a}\n" for a, b in rows))
    lines = (json.dumps({"image": a, "label": b}) + "\n" for a, b in rows)
    (photos / "t.jsonl").write_text("".join(lines))
    contents = [(photos / name).read_bytes() for name, _ in rows[:2]]
    pyarrow.parquet.write_table(pyarrow.table({"image": contents}), photos / "t.parquet")
    for name in ("t.csv", "t.tsv", "t.jsonl", "t.parquet"):
        found = list(predict.predict(model, predict.find([str(photos / name)])))
        labels = [each.classes[0][0] for each in found[:2]]
        assert labels == [expected(model, photos / row[0])[0][0] for row in rows[:2]]
        assert [bool(each.error) for each in found[2:]] == [True] * (len(found) - 2)


def test_several_labels_have_probabilities_of_their_own(model, photos):
    several = dataclasses.replace(model, multi_label=True)
    (found,) = predict.predict(several, predict.find([str(photos / "a.jpg")]), top=9)
    logits = several.logits(decode((photos / "a.jpg").read_bytes(), model.image_size)[None])[0]
    values = sorted(np.asarray(jax.nn.sigmoid(logits)), reverse=True)
    np.testing.assert_allclose([value for _, value in found.classes], values, rtol=1e-5)


@pytest.fixture
def command(model, tmp_path, capsys):
    """Words of the command line -> exit status, lines of output, complaints."""
    models.save(tmp_path / "model", model)

    def run(*words):
        status = predict.main([str(tmp_path / "model"), *map(str, words)])
        said = capsys.readouterr()
        return status, said.out.splitlines(), said.err

    return run


def test_forms(command, model, photos):
    status, lines, complaints = command(photos, "--top=2")
    assert status == 0
    assert len(lines) == 5
    label, value = expected(model, photos / "a.jpg")[0]
    assert lines[0].startswith(f"{photos}/a.jpg ")
    assert f"  {label} {value:.3f}  " in lines[0]
    assert complaints.count("\n") == 1
    assert complaints.startswith(f"ctl_jax.predict: {photos}/broken.jpg: ")

    _, lines, _ = command(photos, "--top=2", "--json")
    content = json.loads("\n".join(lines))
    assert content[0]["path"] == f"{photos}/a.jpg"
    assert content[0]["predictions"][0] == {"label": label, "probability": pytest.approx(value)}
    assert [len(each["predictions"]) for each in content] == [2] * 5

    _, lines, _ = command(photos, "--csv")
    rows = list(csv.DictReader(io.StringIO("\n".join(lines))))
    assert (rows[0]["path"], rows[0]["label"]) == (f"{photos}/a.jpg", label)
    assert float(rows[0]["probability"]) == pytest.approx(value)
    assert len(rows) == 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["broken.jpg"], "none of 1 images can be read"),
        (["gone.jpg"], "none of 1 images can be read"),
        (["sub/empty"], "no image in this folder"),
        (["a.jpg", "--top=0"], "top is 0; expected at least 1"),
        (["a.jpg", "--top=x"], "--top: invalid int value"),
        (["a.jpg", "--task=cars"], "its task is 'pets'; expected 'cars'"),
        ([], "the following arguments are required: IMAGES"),
        (["a.jpg", "--json", "--csv"], "not allowed with argument"),
    ],
)
def test_bad_input_is_one_line(command, photos, monkeypatch, words, said):
    monkeypatch.chdir(photos)
    (photos / "sub" / "empty").mkdir()
    status, _, complaints = command(*words)
    assert status == 2
    assert said in complaints.splitlines()[-1]
    assert command("--json", "broken.jpg")[1] == ["[]"]


def test_pixels_are_not_classified(photos, random_model):
    segmenting = random_model("unet", {"depth": 1, "width": 4}, 16)
    with pytest.raises(UserError, match="unet says something of each pixel"):
        list(predict.predict(segmenting, predict.find([str(photos / "a.jpg")])))
