"""A fair race: probes, partial training, two phases, resolutions and cuts at equal budgets.

  python -m ctl_jax.main --config=configs/race.py:part=middle --workdir=runs/race \\
    --config.images=german_tsr+scenes15+usps --config.data.dirs=tfds:DIR,folder:DIR \\
    --config.weights=resnet50_imagenet_keras_conv1-conv4.npz --config.seeds=0,1,2
  python benchmarks/race.py runs/race --groups near=scenes15 far=german_tsr,usps

The parts small and large have budgets below and above, in folders of their own, which the second
command takes too. Several workers, each the same command with the same --workdir, share a part.
"""

from typing import NamedTuple

from ctl_jax import experiment
from ctl_jax.errors import UserError

# --config.images stands for --config.stream.variant, and so on.
SHORT = {"images": "stream.variant", "budget": "budgets.amounts"}

# Heads on features that are computed once an image. Once a budget pays for all images, a larger one
# gives the same trial, which is not computed again.
FITTED = (
    "probe",
    "probe@last",
    "probe@kernel",
    "probe@logistic",
    "probe@mlp",
    "dense@48px+probe",
    "dense@96px+probe",
    "dense@96px+probe@kernel",
    "dense@128px+probe",
    "filters@0.25:lsq+probe",
    "filters@0.5:lsq+probe",
    # The first of its stages alone, for networks of three or more.
    "dense@1stages@48px+probe",
    "dense@1stages@48px+probe@kernel",
    "dense@2stages+probe",
    "dense@2stages@48px+probe",
    "filters@0.5:lsq@2stages+probe",
    "filters@0.5:lsq@2stages@48px+probe",
)
# The whole network, networks without some of their channels, or parts of it, from a zero head.
TRAINED = (
    "dense",
    "filters@0.5",
    "channels@0.5",
    "filters@0.5:random",
    "dense+head_bn",
    "dense+last@1",
    "linear_probe",
    "scratch",
)
# From a fitted head on.
BOTH = ("dense+lp_ft", "filters@0.5:lsq+lp_ft", "dense+adapt", "dense@96px+adapt")


class Part(NamedTuple):
    """Budgets, in FLOPs, and the methods that run at each of them."""

    budgets: tuple[str, ...]
    methods: tuple[str, ...]


# At 64 pixels and a batch of 32, a step of a whole ResNet-50 up to its third stage costs 0.05
# TFLOP.
PARTS = {
    # Pays for no step behind a fitted head.
    "small": Part(("5e10",), TRAINED + FITTED),
    "middle": Part(("1e11", "2.5e11", "5e11", "1.5e12", "5e12"), TRAINED + FITTED + BOTH),
    # What gains by more steps than that, and the probe that it is compared with.
    "large": Part(
        ("2e13",), ("dense", "filters@0.5", "probe", "dense@96px+probe", "dense@128px+probe", *BOTH)
    ),
}


def get_config(arguments: str = ""):
    args = experiment.config_arguments(arguments, part="middle")
    if args.part not in PARTS:
        raise UserError(f"--config=race.py:part={args.part}: expected one of {', '.join(PARTS)}")
    config = experiment.default_config()

    # Tasks by name or path, joined by "+".
    config.stream.variant = "signs"
    # They say what network they are of.
    config.weights = "resnet50_imagenet_keras_conv1-conv4.npz"
    config.data.image_size = 64
    config.data.max_eval_examples = 500
    config.budgets.amounts, config.methods = PARTS[args.part]

    config.finetune.batch_size = 32
    # Of each method that makes steps; phases behind a fitted head have a share of them.
    config.finetune.learning_rates = (0.003, 0.01, 0.03)
    # Milder than Nevis'22's: short trainings do not get over crops of a twelfth of the image.
    config.finetune.crop_area = (0.5, 1.0)
    return config
