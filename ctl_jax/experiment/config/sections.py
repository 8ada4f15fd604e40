"""The config's sections: every key with its default, what it is and what makes sense.

A section is a frozen dataclass, its fields are the keys. From here come `default_config`,
`validate`, the help of the command line and docs/config.md.
"""

import dataclasses
from typing import Any

from ctl_jax.experiment.config import rules
from ctl_jax.experiment.config.keys import key, keys_of


@dataclasses.dataclass(frozen=True)
class Stream:
    """Which tasks, and in which order."""

    variant: str = key(
        "synthetic",
        "A variant of Nevis'22 (FULL, SHORT, TINY, ...), synthetic, or tasks joined by +, each a "
        "data set by name or the path of images: a folder, an archive or a table.",
    )
    stop_year: int = key(
        2020,
        "Tasks of this year and later are left out: Nevis'22 holds 2020 and 2021 back.",
    )
    ablation: str = key(
        "",
        "Which tasks of a variant are left out; random keeps num_tasks of them. Held-out tasks "
        "stay, unless stop_year leaves them out.",
        rules.ABLATION,
    )
    num_tasks: int = key(0, "How many tasks ablation=random keeps.", rules.TASKS)
    shuffle: str = key(
        "", "Shuffles the tasks of each year among themselves, or all of them.", rules.SHUFFLE
    )
    seed: int = key(0, "Seed of the random tasks and of the shuffle.", rules.SEED)
    final: bool = key(
        False,
        "Whether the best network of each search is trained again on train and dev, with the "
        "settings that won, and evaluated on test: once, at the very end.",
    )
    missing: str = key(
        "error",
        "What happens where a task's data is missing: error stops the run before any work, skip "
        "goes on without the task, and the report says so.",
        rules.one_of(("error", "skip")),
    )


@dataclasses.dataclass(frozen=True)
class Data:
    """Where data sets are looked for, and what is read of them."""

    dirs: tuple[str, ...] = key(
        (),
        "Folders of data sets as KIND:PATH, searched in this order: imported:DIR (besides the one "
        "in the user's data folder), tfds:DIR (TFDS prepared it), hf:DIR (Hugging Face's datasets "
        "saved NAME), nevis:DIR (dm_nevis wrote it; $NEVIS_DATA_DIR is searched as well), "
        "table:DIR (holds NAME.csv, .tsv, .jsonl or .parquet), folder:DIR (holds "
        "NAME/SPLIT/CLASS/ or NAME.zip).",
        rules.DIRS,
    )
    max_corrupt: int = key(
        0,
        "Examples of a split that may be left out because they cannot be read.",
        rules.EXAMPLES,
    )
    image_size: int = key(32, "Side of the square images, in pixels.", rules.PIXELS)
    max_eval_examples: int = key(
        0, "At most so many examples of dev and of dev_test are evaluated.", rules.EXAMPLES_OR_ALL
    )


@dataclasses.dataclass(frozen=True)
class Model:
    """The network. Options that it does not have stay unset: '', 0, () or False."""

    name: str = key(
        "",
        "The architecture, or PACKAGE.MODULE:CLASS of a Linen module of one's own; '': what "
        "config.weights are of, and without weights resnet50.",
        rules.CLASSIFIER,
    )
    stages: tuple[int, ...] = key(
        (), "Blocks in each stage; () is the standard of the architecture.", rules.BLOCKS
    )
    version: str = key(
        "",
        "Of a ResNet: v1 strides on a bottleneck's first 1x1 (Keras), v1.5 on its 3x3 (torch).",
        rules.one_of(("", "v1", "v1.5")),
    )
    stem: str = key(
        "",
        "Of a ResNet: imagenet is a 7x7 of stride 2 and max-pooling, cifar a 3x3.",
        rules.one_of(("", "imagenet", "cifar")),
    )
    width: int = key(0, "Channels of the stem, which the others are multiples of.", rules.WIDTH)
    conv_bias: bool = key(False, "Whether convolutions have biases, as Keras' ResNets have.")
    epsilon: float = key(0.0, "Epsilon of BatchNorm.", rules.EPSILON)
    options: tuple[str, ...] = key(
        (), "Further options of the network, each as NAME=VALUE: heads=6.", rules.OPTIONS
    )
    preprocess: str = key(
        "",
        "What the weights expect of an image, see models.PREPROCESS; '': what they say, and where "
        "they do not, nevis.",
        rules.PREPROCESS,
    )


@dataclasses.dataclass(frozen=True)
class Pretrain:
    """How the run pretrains a network itself, where no weights are given."""

    task: str = key(
        "",
        "The source task: synthetic_source, or one as stream.variant has them; '' where "
        "config.weights are given.",
    )
    steps: int = key(1000, "Training steps.", rules.STEPS)
    batch_size: int = key(64, "Images per batch.", rules.BATCH)
    learning_rate: float = key(0.1, "Peak of the schedule.", rules.POSITIVE)
    warmup_fraction: float = key(
        0.1, "Fraction of the steps in which the learning rate rises to its peak.", rules.FRACTION
    )
    weight_decay: float = key(1e-4, "L2 coefficient, on kernels only.", rules.NOT_NEGATIVE)
    crop_area: tuple[float, float] = key(
        (0.25, 1.0), "Least and most area of a random crop, as a fraction of the image.", rules.AREA
    )
    flip: bool = key(True, "Whether images are flipped at random.")
    seed: int = key(0, "Seed of the initial weights, the order, crops and flips.", rules.SEED)


@dataclasses.dataclass(frozen=True)
class Pruning:
    """How methods that prune choose the channels that stay."""

    criterion: str = key("l2", "How the importance of a channel is scored.", rules.CRITERION)
    round_to: int = key(
        0, "Kept widths are rounded to multiples of it; 0: of 8, on TPU of 16.", rules.MULTIPLE
    )


@dataclasses.dataclass(frozen=True)
class Learner:
    """What methods with a learner in front (previous:filters@0.5) carry on to the next task."""

    cut: str = key(
        "once",
        "When they cut: once, before the first task that a network is trained on, or before every "
        "task.",
        rules.one_of(("once", "every")),
    )
    restore: bool = key(
        False,
        "Whether channels that were cut come back from the pretrained network before the next cut, "
        "where they cut before every task; otherwise each task cuts from what is left.",
    )


@dataclasses.dataclass(frozen=True)
class Budgets:
    """Training compute of a trial: a range of FLOPs, or a list of amounts."""

    min_flops: float = key(1e10, "The least budget, in FLOPs.", rules.FLOPS)
    max_flops: float = key(1e11, "The largest budget, in FLOPs.", rules.FLOPS)
    num: int = key(3, "Number of budgets, log-spaced from the least to the most.", rules.BUDGETS)
    amounts: tuple[str, ...] = key(
        (),
        "Budgets in place of the range, each an amount and a unit: 2e12 (flops), 0.5epochs, "
        "30seconds.",
        rules.AMOUNTS,
        canonical=rules.canonical_budgets,
    )


@dataclasses.dataclass(frozen=True)
class Finetune:
    """How a network is finetuned."""

    batch_size: int = key(
        32,
        "Images per batch; 0: by Nevis'22's rule, the power of two below 0.0025 x the task's "
        "training images, 16 to 512.",
        rules.BATCH_OR_RULE,
    )
    learning_rates: tuple[float, ...] = key(
        (0.01, 0.03, 0.1),
        "Peaks of the schedule. Each is tried; the one that is best on dev is reported.",
        rules.RATES,
    )
    batch_sizes: tuple[int, ...] = key(
        (),
        "Images per batch that are tried beside the learning rates; () is batch_size alone.",
        rules.BATCHES,
    )
    label_smoothings: tuple[float, ...] = key(
        (),
        "Label smoothings that are tried beside the learning rates; () is label_smoothing alone.",
        rules.SMOOTHINGS,
    )
    search: str = key(
        "grid",
        "What is tried: grid is each learning rate with each batch size and label smoothing; "
        "random is as many trials as trials says, drawn from Nevis'22's space by task and seed "
        "(learning rates log-uniform in 1e-4 to 1e-1, label smoothing uniform in 0 to 0.3); rule "
        "is one trial, with what of BiT-HyperRule (Kolesnikov et al. 2020) applies where budgets "
        "say how long a training is: a learning rate of 0.003 at a batch of 512, in proportion at "
        "others, and mixup 0.1 from 20,000 training images on.",
        rules.one_of(("grid", "random", "rule")),
    )
    trials: int = key(
        16,
        "How many trials search=random draws; the first of many are those of few.",
        rules.TRIALS,
    )
    momentum: float = key(0.9, "Nesterov momentum of SGD.", rules.MOMENTUM)
    weight_decay: float = key(1e-4, "L2 coefficient, on kernels only.", rules.NOT_NEGATIVE)
    warmup_fraction: float = key(
        0.1, "Fraction of the steps in which the learning rate rises to its peak.", rules.FRACTION
    )
    warmup_epochs: float = key(
        0.0,
        "Epochs in which the learning rate rises to its peak, or all steps but the last where "
        "there are fewer; 0: warmup_fraction says it.",
        rules.NOT_NEGATIVE,
    )
    label_smoothing: float = key(
        0.0, "Share of each label that goes to all classes alike.", rules.FRACTION
    )
    mixup: float = key(
        0.0,
        "How strongly pairs of images are mixed, and their labels with them: both parameters of "
        "the Beta distribution of an image's share (Zhang et al. 2018); 0: not at all.",
        rules.NOT_NEGATIVE,
    )
    ema: float = key(
        0.0,
        "Decay of the moving average of weights that is evaluated and kept, such as 0.9999; 0: the "
        "weights themselves.",
        rules.FRACTION,
    )
    crop_area: tuple[float, float] = key(
        (0.08, 1.0), "Least and most area of a random crop, as a fraction of the image.", rules.AREA
    )
    crop_aspect: tuple[float, float] = key(
        (3 / 4, 4 / 3), "Least and most ratio of a random crop's width to its height.", rules.ASPECT
    )
    flip: bool = key(True, "Whether images are flipped at random.")
    log_every: int = key(10, "Steps between two training records.", rules.STEPS)
    evaluate_every: int = key(
        0,
        "Steps between two evaluations on dev while it trains, a multiple of log_every; 0: only "
        "at the end.",
        rules.STEPS_OR_ZERO,
    )
    report: str = key(
        "last",
        "The weights that a trial reports: its last, or those that were best on dev.",
        rules.one_of(("last", "best")),
    )
    compute_dtype: str = key(
        "",
        "Data type of convolutions, products and activations, here and in pretraining; '': "
        "bfloat16 on GPU and TPU, else float32. Weights, statistics and the loss are float32.",
        rules.one_of(("", "float32", "bfloat16")),
    )


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """How a trial is saved while it trains."""

    every_s: float = key(
        60.0,
        "Seconds between two checkpoints of a trial; 0: only when the run is told to stop.",
        rules.SECONDS,
    )


@dataclasses.dataclass(frozen=True)
class Config:
    """What a run is made of."""

    stream: Stream = Stream()
    data: Data = Data()
    model: Model = Model()
    weights: str = key(
        "",
        "Pretrained weights: a file or folder, or a run's folder, for its best model; '' where "
        "config.pretrain.task makes them.",
    )
    pretrain: Pretrain = Pretrain()
    methods: tuple[str, ...] = key(
        ("dense", "filters@0.5"),
        "How each task is learnt: dense, scratch, filters@RATIO, channels@RATIO or all@RATIO, "
        "perhaps of its first stages alone, at a size of images, as in dense@2stages@48px, and "
        "+TUNING; or a tuning alone, such as probe; or auto, which finds what is best for the "
        "budget, within the budget. With a learner in front, as in previous:filters@0.5, tasks "
        "start from what was learnt on those before them.",
        rules.METHODS,
        canonical=rules.canonical_methods,
    )
    pruning: Pruning = Pruning()
    learner: Learner = Learner()
    budgets: Budgets = Budgets()
    finetune: Finetune = Finetune()
    checkpoint: Checkpoint = Checkpoint()
    seeds: tuple[int, ...] = key(
        (0,),
        "Seeds of the head, order, crops and flips; every trial is run with each.",
        rules.SEEDS,
    )
    strategy: str = key(
        "grid",
        "How trials are chosen: grid runs all settings of the search; halving trains all of them a "
        "little and goes on with the better half, again and again.",
        rules.STRATEGY,
    )
    keep_predictions: bool = key(
        False,
        "Whether the outputs of the best network of each search on dev_test stay in the run's "
        "folder, beside the labels; of the best of each task in predictions/TASK.npz.",
    )
    keep_models: str = key(
        "none",
        "Trained models that stay in the run's folder: none, the best of each task (which is "
        "evaluated on its test split, too), or all.",
        rules.one_of(("none", "best", "all")),
    )
    watch: tuple[str, ...] = key(
        (),
        "What follows the run while it goes on: tensorboard, which writes WORKDIR/tensorboard, or "
        "PACKAGE.MODULE:FUNCTION of one's own. It changes no number.",
        canonical=rules.known_watchers,
    )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, a dict a section."""
        return dataclasses.asdict(self)


KEYS = keys_of(Config)
