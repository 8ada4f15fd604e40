"""Weights from scratch: a network trained on any task, for other runs to begin with.

  python -m ctl_jax.main --config=configs/pretrain.py --workdir=runs/source \\
    --config.images=/data/source --config.model.name=resnet18 --config.budget=30epochs
  python -m ctl_jax.main --config=configs/my_task.py --workdir=runs/flowers \\
    --config.images=/data/flowers --config.weights=runs/source --config.data.image_size=64

Pretraining is a training like any other, from random weights: the method `scratch`. So it goes on
where it was stopped, bit for bit; every FLOP is in the ledger; and the report has the curve of its
loss, and what it scores on test. runs/source as `weights` is its best model.

ImageNet, prepared by TFDS, at 224 pixels on accelerators (at 64: without the last line):

  python -m ctl_jax.main --config=configs/pretrain.py --workdir=runs/imagenet \\
    --config.images=imagenet2012 --config.data.dirs=tfds:DIR --config.model.name=resnet50 \\
    --config.budget=90epochs --config.finetune.batch_size=1024 \\
    --config.finetune.learning_rates=0.4 --config.finetune.ema=0.9999 \\
    --config.finetune.evaluate_every=5000 --config.finetune.log_every=100 \\
    --config.data.image_size=224
"""

from ctl_jax import experiment

# --config.images stands for --config.stream.variant, and so on.
SHORT = {"images": "stream.variant", "budget": "budgets.amounts"}


def get_config():
    config = experiment.default_config()

    # 20,000 synthetic images of 55 classes; or your own, as in configs/my_task.py.
    config.stream.variant = "synthetic_source"
    config.data.image_size = experiment.following(
        config, "stream.variant", lambda images: 32 if images == "synthetic_source" else 64
    )
    config.model.name = "resnet18"

    config.methods = ("scratch",)
    # An epoch is one pass over the training images.
    config.budgets.amounts = ("10epochs",)
    config.finetune.batch_size = 128
    config.finetune.learning_rates = (0.1,)
    config.finetune.warmup_fraction = 0.05
    config.finetune.weight_decay = 5e-5
    config.finetune.label_smoothing = 0.1
    # The average of the weights is what is evaluated and kept.
    config.finetune.ema = 0.999
    config.finetune.crop_area = (0.25, 1.0)
    config.finetune.evaluate_every = 200
    config.finetune.log_every = 20
    config.keep_models = "best"
    return config
