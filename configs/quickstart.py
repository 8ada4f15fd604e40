"""Everything in a few minutes, offline: pretrain a small ResNet, prune, finetune on eleven tasks.

  python -m ctl_jax.main --config=configs/quickstart.py --workdir=runs/quickstart

About three minutes on two CPU cores, empty caches. Mean dev_test accuracy, and relative to dense:

  budget              4 GFLOP     11.3 GFLOP       32 GFLOP
  tasks                    11             11             11
  ---------------------------------------------------------
  dense         0.350          0.535          0.653
  filters@0.25  0.391  +11.8%  0.529   -1.0%  0.638   -2.3%
  filters@0.5   0.370   +5.8%  0.527   -1.4%  0.634   -2.8%
  filters@0.75  0.355   +1.4%  0.490   -8.4%  0.630   -3.5%
  scratch       0.168  -52.1%  0.235  -56.0%  0.343  -47.5%

One seed, so what another one would change is not known. Over the tasks, filters@0.25 is +0.041
(+0.017 to +0.066, 95%) above dense at 4 GFLOP; among all twelve comparisons that is not significant
(Wilcoxon, Holm: p = .26).
"""

from ctl_jax import experiment


def get_config():
    config = experiment.default_config()

    # Eleven small tasks from ten domains, made on first use.
    config.stream.variant = "synthetic"
    config.data.image_size = 32
    config.data.max_eval_examples = 256

    # One bottleneck block a stage: small enough for two CPU cores.
    config.model.name = "resnet50"
    config.model.stages = (1, 1)
    config.model.width = 32

    # 20,000 images of 55 other classes.
    config.pretrain.task = "synthetic_source"
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
