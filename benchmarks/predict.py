"""How fast images are predicted, against PyTorch with a DataLoader of two workers.

  python benchmarks/predict.py [--model=resnet50] [--image_size=224] [--images=1000]

Both read the same JPEG files of 256 to 500 px, resize their short side, crop, and run the same
network with the same weights, dense and with half of its filters cut; 32 images at a time, PyTorch
in `channels_last` and `inference_mode`. They take turns in one process; what either does once,
starting workers and compiling, is not measured. `--pictures` is a folder of real photos to make the
files of.
"""

import argparse
import functools
import os
import pathlib
import tempfile
from typing import Any

import jax
import numpy as np
import torch
import transfer
import turns
from PIL import Image

from ctl_jax import models, predict, pruning

WORKERS, BATCH = 2, predict.BATCH
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
METHODS = {"dense": 0.0, "filters@0.5": 0.5}


def write_pictures(folder: pathlib.Path, count: int, source: pathlib.Path | None) -> None:
    """JPEGs of 256 to 500 px: resized photos, or large shapes with a little noise."""
    rng = np.random.default_rng(0)
    found = [] if source is None else sorted(p for p in source.rglob("*") if p.is_file())
    for number in range(count):
        height, width = (int(side) for side in rng.integers(256, 501, 2))
        if found:
            image = Image.open(found[number % len(found)]).convert("RGB")
        else:
            image = Image.fromarray(rng.integers(0, 256, (12, 12, 3)).astype(np.uint8))
        pixels = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC), np.float32)
        pixels += rng.normal(0, 4, pixels.shape)
        picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        picture.save(folder / f"{number:05}.jpg", quality=90)


class Pictures(torch.utils.data.Dataset[torch.Tensor]):
    """Files as a user of PyTorch reads them: Pillow, resized, cropped, normalised."""

    def __init__(self, files: list[str], size: int) -> None:
        self._files, self._size = files, size

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> torch.Tensor:
        image = Image.open(self._files[index]).convert("RGB")
        factor = self._size / min(image.size)
        width, height = (round(side * factor) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = (width - self._size) // 2, (height - self._size) // 2
        image = image.crop((left, top, left + self._size, top + self._size))
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div_(255)
        return pixels.sub_(torch.tensor(MEAN)[:, None, None]).div_(torch.tensor(STD)[:, None, None])


Loader = torch.utils.data.DataLoader[torch.Tensor]


def make_loader(files: list[str], size: int) -> Loader:
    """With workers that stay."""
    return torch.utils.data.DataLoader(
        Pictures(files, size), batch_size=BATCH, num_workers=WORKERS, persistent_workers=True
    )


def run_torch(net: torch.nn.Module, loader: Loader, steps: int = 1) -> list[int]:
    """The likeliest class of each file."""
    found: list[int] = []
    with torch.inference_mode():
        for batch in loader:
            logits = net(batch.contiguous(memory_format=torch.channels_last))
            found += logits.softmax(-1).argmax(-1).tolist()
    return found


def run_ours(model: models.Model, files: list[str], steps: int = 1) -> list[int]:
    """The likeliest class of each file."""
    found = predict.predict(model, predict.find(files))
    return [int(classes[0][0]) for _, classes, _ in found]


def make_model(name: str, size: int, ratio: float) -> models.Model:
    """A network with random weights and 1,000 outputs, as torchvision's, perhaps pruned."""
    module = models.create(name, 1000)
    variables: Any = models.init(module, jax.random.key(0), size)
    head = variables["params"]["head"]
    head["kernel"] = jax.random.normal(jax.random.key(1), head["kernel"].shape)
    if ratio:
        image = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
        groups = pruning.trace(functools.partial(models.apply, module), variables, image)
        scores = pruning.score(groups, variables, criterion="l2")
        keep = pruning.select(groups, scores, ratio=ratio, scope="filters", round_to=8)
        variables = pruning.prune(variables, groups, keep)
    return models.Model(name, {}, variables, models.PREPROCESS["imagenet"], size)


def main() -> None:
    """Prints images a second of both, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pictures", type=pathlib.Path)
    args = parser.parse_args()
    torch.set_num_threads(turns.threads())
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(pathlib.Path(folder), args.images, args.pictures)
        files = sorted(os.path.join(folder, name) for name in os.listdir(folder))
        loader = make_loader(files, args.image_size)
        for method, ratio in METHODS.items():
            model = make_model(args.model, args.image_size, ratio)
            net = transfer.to_torch(args.model, model.variables).eval()
            net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            ours = functools.partial(run_ours, model, files)
            theirs = functools.partial(run_torch, net, loader)
            # Compiles, starts workers. They decode and resize a little differently.
            pair = run_ours(model, files), run_torch(net, loader)
            agreed = np.mean([a == b for a, b in zip(*pair, strict=True)])
            taken = turns.take_turns({"ours": ours, "torch": theirs}, rounds=args.rounds, steps=1)
            rates = {key: args.images / turns.seconds(one).median for key, one in taken.items()}
            print(
                f"{args.model} {method}, {args.image_size} px, {args.images} JPEGs: ctl_jax "
                f"{rates['ours']:.0f}, torch {rates['torch']:.0f} images a second; times faster "
                f"{turns.ratio(taken['torch'], taken['ours'])}; same class {agreed:.2f} "
                f"({len(set(pair[0]))} classes)",
                flush=True,
            )


if __name__ == "__main__":
    main()
