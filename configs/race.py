"""A fair race: probes, partial training, two phases, resolutions and cuts at equal budgets.

  python -m ctl_jax.main --config=configs/race.py --workdir=runs/race \\
    --config.images=german_tsr+scenes15 --config.data.dirs=tfds:DIR,folder:DIR \\
    --config.weights=resnet50_imagenet_keras_conv1-conv4.npz
"""

from ctl_jax import experiment

# --config.images stands for --config.stream.variant, and so on.
SHORT = {"images": "stream.variant", "budget": "budgets.amounts"}


def get_config():
    config = experiment.default_config()

    # Tasks by name or path, joined by "+".
    config.stream.variant = "signs"
    config.data.image_size = 64
    config.data.max_eval_examples = 500
    # At 64 pixels and a batch of 32, a step of the whole network costs 0.05 TFLOP.
    config.budgets.amounts = ("5e10", "1e11", "2.5e11", "5e11", "1.5e12", "5e12")

    config.methods = (
        # Heads on features that are computed once an image.
        "probe",
        "probe@last",
        "probe@logistic",
        "dense@48px+probe",
        "dense@32px+probe",
        "filters@0.25+probe",
        "filters@0.5+probe",
        # The whole network, and networks without some of their channels.
        "dense",
        "filters@0.5",
        "channels@0.5",
        "filters@0.5:random",
        # Parts of the network.
        "dense+head_bn",
        "dense+last@1",
        "linear_probe",
        # From a fitted head on.
        "dense+lp_ft",
        "filters@0.5+lp_ft",
        # Without what was learnt before.
        "scratch",
    )
    config.finetune.batch_size = 32
    # Of each method that makes steps; later phases have a share of them.
    config.finetune.learning_rates = (0.003, 0.01, 0.03)
    # Milder than Nevis'22's: short trainings do not get over crops of a twelfth of the image.
    config.finetune.crop_area = (0.5, 1.0)
    return config
