"""A card says what is known of a model, in the Hub's form."""

import dataclasses

import yaml

from ctl_jax.formatting import DASH
from ctl_jax.models import card

FACTS = card.Facts(
    task="Flowers: of | my\ngarden",
    dataset="/data/flowers",
    classes=tuple(f"flower {i}" for i in range(30)),
    examples={"train": 1200, "dev": 150, "test": 300},
    data_notes=("2 images of train are in test, too: left out of train",),
    architecture="resnet50",
    options={"stages": [3, 4, 6]},
    image_size=64,
    preprocess="imagenet",
    method="filters@0.5",
    cut="half of the filters of every block",
    budget="2 TFLOP",
    learning_rate=0.01,
    seed=0,
    scores=(
        card.Score("dev", "accuracy", 0.91, 150),
        card.Score("test", "accuracy", 0.9, 300, 0.861, 0.929),
    ),
    costs=(
        card.Cost("FLOPs an image", "FLOP", 2.3e8, 5.1e8),
        card.Cost("latency of one image", "s", 0.0041, 0.0067),
        card.Cost("parameters", "", 5e6),
    ),
    spent={"train": 2 * 10**12, "search": 10**12, "prune": 0},
    weights="resnet50.a1_in1k.safetensors",
    license="apache-2.0",
    versions={"jax": "0.10.2"},
)


def test_header():
    start, header, body = card.render(FACTS).split("---\n", 2)
    assert (start, body[:3]) == ("", "\n# ")
    header = yaml.safe_load(header)
    assert header["license"] == "apache-2.0"
    assert header["pipeline_tag"] == "image-classification"
    (entry,) = header["model-index"]
    (result,) = entry["results"]
    assert result["dataset"] == {"name": FACTS.task, "type": "/data/flowers"}
    assert [metric["value"] for metric in result["metrics"]] == [0.91, 0.9]


def test_body():
    body = card.render(FACTS).split("---\n", 2)[2]
    for said in [
        "# Flowers: of \\| my garden: resnet50, filters@0.5",
        f"| test | Accuracy | 0.900 (0.861 {DASH} 0.929) | 300 |",
        "| FLOPs an image | 230 MFLOP | 510 MFLOP | 0.45 |",
        "| latency of one image | 4.1 ms | 6.7 ms | 0.61 |",
        f"| parameters | 5 M | {DASH} | {DASH} |",
        "- Images by split: train 1,200, dev 150, test 300",
        "- Classes (30): flower 0, flower 1,",
        "- Compute: 3 TFLOP in all (train 2 TFLOP, search 1 TFLOP)",
        "resnet50.a1_in1k.safetensors (licence: apache-2.0)",
        "- Budget 2 TFLOP, learning rate 0.01, seed 0",
    ]:
        assert said in body
    assert body == card.render(FACTS).split("---\n", 2)[2]


def test_little_is_known():
    least = card.Facts(
        task="mnist", architecture="vit_s16", image_size=32, preprocess="nevis", method="dense"
    )
    rendered = card.render(least)
    assert yaml.safe_load(rendered.split("---\n", 2)[1])["license"] == "unknown"
    assert "## Scores" not in rendered
    # Weights that the run itself has made have no licence to ask for.
    own = dataclasses.replace(FACTS, weights="trained in this run on digits", license=None)
    assert "trained in this run on digits\n" in card.render(own)
    assert "None" not in rendered
