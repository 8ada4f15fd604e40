"""Everything in a few minutes, offline: pretrain, prune, finetune, report."""

from ctl_jax.experiment import default_config


def get_config():
    config = default_config()
    config.stream.variant = "embedded"
    config.data.image_size = 32

    config.model.name = "resnet50"
    config.model.stages = (1, 1, 1)
    config.model.width = 32
    config.model.stem = "cifar"

    config.pretrain.task = "embedded_source"
    config.pretrain.steps = 600

    config.methods = ("dense", "filters@0.25", "filters@0.5", "filters@0.75", "scratch")
    config.budgets.min_flops = 2e10
    config.budgets.max_flops = 3.2e11
    config.budgets.num = 3
    config.finetune.learning_rates = (0.02, 0.1)
    return config
