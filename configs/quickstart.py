"""Everything in a few minutes, offline: pretrain a small ResNet, prune it, finetune on ten tasks.

python -m ctl_jax.main --config=configs/quickstart.py --workdir=runs/quickstart
"""

from ctl_jax import experiment


def get_config():
    config = experiment.default_config()

    # Eleven small tasks from ten domains, made on first use.
    config.stream.variant = "embedded"
    config.data.image_size = 32
    config.data.max_eval_examples = 256

    # One bottleneck block a stage: small enough for two CPU cores.
    config.model.name = "resnet50"
    config.model.stages = (1, 1)
    config.model.width = 32

    # 20,000 images of 55 other classes.
    config.pretrain.task = "embedded_source"
    config.pretrain.steps = 1000
    config.pretrain.batch_size = 64

    config.methods = ("dense", "filters@0.25", "filters@0.5", "filters@0.75", "scratch")
    # A dense step costs 0.37 GFLOP: from 5 of them to 43.
    config.budgets.min_flops = 2e9
    config.budgets.max_flops = 16e9
    config.budgets.num = 3

    config.finetune.batch_size = 16
    config.finetune.learning_rates = (0.01, 0.05)
    config.finetune.crop_area = (0.5, 1.0)
    return config
