"""The Nevis'22 stream: a pretrained ResNet-50, whole and pruned, finetuned on every task.

  python -m ctl_jax.main --config=configs/nevis.py:variant=SHORT --workdir=runs/nevis \\
    --config.weights=resnet50_imagenet_keras_conv1-conv4.npz --config.data.dirs=tfds:DIR,folder:DIR

docs/results.md, "The paper's comparison", has what nine small real sets gave on two CPU cores.
"""

from ctl_jax import experiment


def get_config(arguments: str = ""):
    args = experiment.config_arguments(arguments, variant="SHORT")
    config = experiment.default_config()

    # FULL, SHORT, TINY, ... or tasks by TFDS name: mnist+cifar10+caltech101.
    config.stream.variant = args.variant
    # "skip" goes on without tasks whose data is not there; the report names them.
    config.stream.missing = "error"
    # Prepared TFDS data, as `tfds build` or `tfds.load` leave it (ArrayRecord or TFRecord).
    config.data.dirs = ("tfds:~/tensorflow_datasets",)
    config.data.image_size = 64

    # ImageNet weights of Keras' ResNet-50 up to its fourth stage, with Keras' preprocessing.
    config.weights = "resnet50_imagenet_keras_conv1-conv4.npz"
    config.model.name = "resnet50"
    config.model.stages = (3, 4, 6)
    config.model.version = "v1"
    config.model.conv_bias = True
    config.model.epsilon = 1.001e-5
    config.model.preprocess = "caffe"

    config.methods = (
        "dense",
        "filters@0.25",
        "filters@0.5",
        "filters@0.75",
        "channels@0.5",
        "linear_probe",
        "scratch",
    )
    # A dense step costs 0.049 TFLOP: from 10 of them to 320.
    config.budgets.min_flops = 0.5e12
    config.budgets.max_flops = 16e12
    config.budgets.num = 6

    config.finetune.batch_size = 32
    config.finetune.learning_rates = (0.003, 0.01, 0.03)
    config.seeds = (0, 1)
    return config
