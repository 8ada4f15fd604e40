"""Everything in a few minutes, offline: pretrain a small ResNet, prune, finetune on eleven tasks.

  python -m ctl_jax.main --config=configs/quickstart.py --workdir=runs/quickstart

About three minutes on two CPU cores, empty caches. Mean dev_test accuracy, and relative to dense:

  budget              2 GFLOP     5.66 GFLOP       16 GFLOP
  tasks                    11             11             11
  ---------------------------------------------------------
  dense         0.280          0.395          0.545
  filters@0.25  0.254   -9.2%  0.422   +7.0%  0.557   +2.3%
  filters@0.5   0.240  -14.2%  0.404   +2.4%  0.532   -2.3%
  filters@0.75  0.220  -21.3%  0.339  -14.2%  0.507   -6.9%
  scratch       0.134  -52.2%  0.165  -58.2%  0.257  -52.8%
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
    # A dense step costs 0.37 GFLOP: from 10 of them to 86.
    config.budgets.min_flops = 4e9
    config.budgets.max_flops = 32e9
    config.budgets.num = 3

    config.finetune.batch_size = 16
    config.finetune.learning_rates = (0.05, 0.2)
    config.finetune.crop_area = (0.5, 1.0)
    return config
