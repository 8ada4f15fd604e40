"""Nevis'22 as its authors ran it: random search, 50,000 steps a trial, from random weights.

  python -m ctl_jax.main --config=configs/nevis_reference.py:variant=SHORT \\
    --workdir=runs/reference --config.data.dirs=tfds:DIR,folder:DIR

With `setting=cheap` it is their cheaper one. `--config.methods=scratch,scratch:filters@0.5`
compares methods under it, `--config.finetune.trials=64` searches more, and
`--config.strategy=halving` takes for 16 trials the compute of 3. All of the search is charged.

Each value has its source beside it: a file of experiments_jax/ in
github.com/google-deepmind/dm_nevis, read at commit 7dc53a24 (the cheap setting at c42d0578). The
paper is Bornschein et al., Nevis'22, 2022 (arXiv:2211.11747); its text was not at hand, and nothing
here rests on it. What is different here:

- The rate falls to zero, not to 1e-8 (final_learning_rate).
- Weights are looked at after every 1,000th update and the last one; there also after the first.
- A trial is ranked by the score of the weights that it leaves, those that were best on dev. There
  fit_with_early_stopping leaves the best, and ranks by its last ones.
- Crops are cut from images that were brought to 64 pixels before; there from those on disk.
- Evaluations are counted, and FLOPs as everywhere here; there the compiler counts updates alone.

It was planned, and run with a few dozen steps of a small network; with 50,000 it was not: one trial
is 22 PFLOP at a batch of 16, and 0.35 PFLOP in the cheap setting.
"""

from ctl_jax import experiment
from ctl_jax.errors import UserError

SETTINGS = ("full", "cheap")


def get_config(arguments: str = ""):
    args = experiment.config_arguments(arguments, variant="SHORT", setting="full")
    if args.setting not in SETTINGS:
        raise UserError(
            f"--config=nevis_reference.py:setting={args.setting}: expected one of "
            f"{', '.join(SETTINGS)}"
        )
    config = experiment.default_config()

    config.stream.variant = args.variant
    config.stream.missing = "error"
    config.data.dirs = ("tfds:~/tensorflow_datasets",)

    # IMAGE_SIZE of configs/finetuning_dknn.py.
    config.data.image_size = 64
    # To -1..1; grey images get three channels: normalize of training/augmentations.py.
    config.model.preprocess = "nevis"
    # AREA_RANGE and ASPECT_RATIO_RANGE of training/augmentations.py, and random_flip.
    config.finetune.crop_area = (0.08, 1.0)
    config.finetune.crop_aspect = (3 / 4, 4 / 3)
    config.finetune.flip = True

    # FinetuningStrategy.INDEPENDENT of configs/finetuning_dknn.py.
    config.methods = ("scratch",)

    # optimizers.sgdw of configs/finetuning_dknn.py, on kernels only (default_weight_decay_mask).
    config.finetune.momentum = 0.9
    config.finetune.weight_decay = 1e-4
    # warmup_epochs of configs/finetuning_dknn.py; an epoch has examples // batch + 1 updates
    # (_cost_function_builder of learners/finetuning_dknn/finetuning_dknn_learner.py), and there is
    # no more warm-up than all updates but the last (training/learning_rate_schedules.py).
    config.finetune.warmup_epochs = 7.0
    # _adapt_batch_size_to_dataset_size of learners/finetuning_dknn/finetuning_dknn_learner.py, with
    # size_proportion=0.0025 and max_batch_size=512 of configs/finetuning_dknn.py.
    config.finetune.batch_size = 0
    # run_validation_every_n_steps of configs/finetuning_dknn.py; fit_with_early_stopping of
    # learners/finetuning_dknn/finetuning_dknn_learner.py gives the best weights. Its grace of
    # max_steps validations is never used up, so that no training is ended early.
    config.finetune.evaluate_every = 1000
    config.finetune.report = "best"
    config.finetune.log_every = 100

    # prng_seed of configs/finetuning_dknn.py.
    config.seeds = (1,)

    if args.setting == "full":
        # configs/finetuning_dknn.py: CifarResNet34, DEFAULT_MAX_STEPS, search_space_creator and
        # trials_per_task (16; number_of_trials_sweep has 16, 32 and 64).
        config.model.name, config.model.stem = "resnet34", "cifar"
        config.budgets.amounts = ("50000steps",)
        config.finetune.search = "random"
        config.finetune.trials = 16
    else:
        # configs/cheap_finetuning_dknn.py: ResNet18 with ImageNet's stem, DEFAULT_MAX_STEPS, and
        # four learning rates at one label smoothing.
        config.model.name, config.model.stem = "resnet18", "imagenet"
        config.budgets.amounts = ("25000steps",)
        config.finetune.learning_rates = (1e-4, 1e-3, 1e-2, 1e-1)
        config.finetune.label_smoothing = 0.15
    return config
