"""Model cards: what a trained model is, in the form that the Hugging Face Hub reads.

A YAML header for machines and Markdown for people: https://huggingface.co/docs/hub/model-cards
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import yaml  # type: ignore[import-untyped]

from ctl_jax import formatting

_METRICS = {"accuracy": "Accuracy", "mAP": "Mean average precision"}
# More names of classes than these are in model.json alone.
_SHOWN_CLASSES = 20


class Score(NamedTuple):
    """How good the model is on a split.

    Attributes:
      split: "dev", "dev_test" or "test".
      metric: "accuracy" or "mAP".
      value: in 0 .. 1.
      examples: how many there were.
      low: the lower end of the 95% interval, where there is one.
      high: its upper end.
    """

    split: str
    metric: str
    value: float
    examples: int
    low: float | None = None
    high: float | None = None


class Cost(NamedTuple):
    """What a prediction costs, beside the same of the network that was not pruned.

    Attributes:
      name: such as "FLOPs an image".
      unit: "FLOP", "s" or "".
      value: of the model.
      whole: of the whole network, where it is known.
    """

    name: str
    unit: str
    value: float
    whole: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What a card says of a model; what is empty is left out.

    Attributes:
      task: the task's name for people.
      dataset: name of the data set, or the path of the user's own.
      multi_label: whether an image may have several classes.
      classes: their names, in the order of the outputs.
      examples: how many there were of each split.
      data_notes: what was put right in the data, a sentence each.
      architecture: the network's name.
      options: those that it was created with.
      image_size: side of the images, in pixels.
      preprocess: as `str(Preprocess)`.
      method: its name, such as "filters@0.5".
      cut: what pruning left, a sentence; empty for a whole network.
      budget: what training might spend, for people, such as "2 TFLOP".
      learning_rate: the one that won.
      seed: of training.
      scores: on the splits.
      costs: of a prediction.
      spent: FLOPs by purpose, as in the ledger: "train", "search", "evaluate", ...
      weights: where the pretrained weights come from.
      license: of those weights, as the Hub names it, such as "apache-2.0"; empty where it is not
        known, None where the weights were made in the run.
      device: what it was trained on.
      versions: package to version.
    """

    task: str
    dataset: str = ""
    multi_label: bool = False
    classes: Sequence[str] = ()
    examples: Mapping[str, int] = dataclasses.field(default_factory=dict)
    data_notes: Sequence[str] = ()
    architecture: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    image_size: int
    preprocess: str
    method: str
    cut: str = ""
    budget: str = ""
    learning_rate: float | None = None
    seed: int | None = None
    scores: Sequence[Score] = ()
    costs: Sequence[Cost] = ()
    spent: Mapping[str, int] = dataclasses.field(default_factory=dict)
    weights: str = ""
    license: str | None = ""
    device: str = ""
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)


def render(facts: Facts) -> str:
    """The text of `card.md`.

    Args:
      facts: of one model.

    Returns:
      Markdown below a YAML header; the same facts give the same text.
    """
    header = yaml.safe_dump(_header(facts), sort_keys=False, allow_unicode=True, width=100)
    body = [f"# {_line(facts.task)}: {facts.architecture}, {facts.method}", *_sections(facts)]
    return f"---\n{header}---\n\n" + "\n\n".join(body) + "\n"


def _header(facts: Facts) -> dict[str, Any]:
    header: dict[str, Any] = {
        "license": facts.license or "unknown",
        "library_name": "ctl-jax",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "jax", "flax", facts.architecture],
    }
    metrics = [
        {
            "type": "accuracy" if score.metric == "accuracy" else "mean_average_precision",
            "value": round(float(score.value), 6),
            "name": f"{_METRICS[score.metric]} on {score.split}",
        }
        for score in facts.scores
    ]
    if metrics:
        result = {
            "task": {"type": "image-classification"},
            "dataset": {"name": facts.task, "type": facts.dataset or facts.task},
            "metrics": metrics,
        }
        header["metrics"] = sorted({metric["type"] for metric in metrics})
        header["model-index"] = [{"name": f"{facts.task} {facts.method}", "results": [result]}]
    return header


def _sections(facts: Facts) -> Iterator[str]:
    """The card's sections, those with something to say."""
    outputs = "several labels an image" if facts.multi_label else "one label an image"
    yield (
        f"An image classifier ({outputs}) for {facts.image_size} x {facts.image_size} pixels: "
        f"{facts.architecture}, made by `{facts.method}`."
    )
    yield _use(facts)
    if facts.scores:
        rows = [[s.split, _METRICS[s.metric], _value(s), f"{s.examples:,}"] for s in facts.scores]
        table = _table(["split", "metric", "value (95% interval)", "images"], rows)
        yield f"## Scores\n\n{table}"
    if facts.costs:
        rows = [[c.name, _amount(c, c.value), _amount(c, c.whole), _share(c)] for c in facts.costs]
        table = _table(["", "this model", "the whole network", "share"], rows)
        yield f"## Cost of a prediction\n\n{table}"
    yield _section("Data", _data(facts))
    yield _section("Training", _training(facts))


def _use(facts: Facts) -> str:
    read = "jax.nn.sigmoid(logits)" if facts.multi_label else "logits.argmax(-1)"
    return (
        "## Use\n\n"
        "```\npython -m ctl_jax.predict FOLDER_OF_THIS_FILE photo.jpg\n"
        "python -m ctl_jax.export FOLDER_OF_THIS_FILE --to=safetensors,onnx,stablehlo --out=DIR\n"
        "```\n\n"
        "```python\nfrom ctl_jax import models\n\n"
        'model = models.load("FOLDER_OF_THIS_FILE")\n'
        f"logits = model(images)  # a list of uint8 [H, W, 3], RGB, of any size\n{read}\n```"
    )


def _data(facts: Facts) -> Iterator[str]:
    yield f"Task: {_line(facts.task)}"
    if facts.dataset:
        yield f"Data set: `{_line(facts.dataset)}`"
    if facts.examples:
        counts = ", ".join(f"{split} {count:,}" for split, count in facts.examples.items())
        yield f"Images by split: {counts}"
    if facts.classes:
        shown = ", ".join(map(_line, facts.classes[:_SHOWN_CLASSES]))
        more = ", ... (see model.json)" if len(facts.classes) > _SHOWN_CLASSES else ""
        yield f"Classes ({len(facts.classes)}): {shown}{more}"
    yield from map(_line, facts.data_notes)


def _training(facts: Facts) -> Iterator[str]:
    options = ", ".join(f"{key}={value!r}" for key, value in facts.options.items())
    yield f"Network: {facts.architecture}" + (f" ({options})" if options else "")
    if facts.weights:
        license = facts.license or "not known: ask where they come from"
        told = "" if facts.license is None else f" (licence: {license})"
        yield f"Pretrained weights: {_line(facts.weights)}{told}"
    yield f"Preprocessing: {facts.preprocess}"
    yield f"Method: `{facts.method}`"
    if facts.cut:
        yield f"Pruning: {facts.cut}"
    settings = {
        "budget": facts.budget,
        "learning rate": "" if facts.learning_rate is None else f"{facts.learning_rate:g}",
        "seed": "" if facts.seed is None else str(facts.seed),
    }
    if chosen := ", ".join(f"{name} {value}" for name, value in settings.items() if value):
        yield chosen[0].upper() + chosen[1:]
    if facts.spent:
        parts = ", ".join(f"{what} {formatting.flops(n)}" for what, n in facts.spent.items() if n)
        yield f"Compute: {formatting.flops(sum(facts.spent.values()))} in all ({parts})"
    if facts.device:
        yield f"Device: {facts.device}"
    if facts.versions:
        versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
        yield f"Versions: {versions}"


def _section(title: str, lines: Iterator[str]) -> str:
    return f"## {title}\n\n" + "\n".join(f"- {line}" for line in lines)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _value(score: Score) -> str:
    if score.low is None or score.high is None:
        return formatting.metric(score.value)
    ends = f"{formatting.metric(score.low)} {formatting.DASH} {formatting.metric(score.high)}"
    return f"{formatting.metric(score.value)} ({ends})"


def _amount(cost: Cost, value: float | None) -> str:
    if value is None:
        return formatting.DASH
    if cost.unit == "s":
        return f"{1000 * value:.3g} ms"
    return formatting.flops(value) if cost.unit == "FLOP" else formatting.si(value)


def _share(cost: Cost) -> str:
    return f"{cost.value / cost.whole:.2f}" if cost.whole else formatting.DASH


def _line(words: str) -> str:
    """Text that a file's name or a class may be, on one line."""
    return " ".join(words.split()).replace("|", "\\|")
