"""Your images, your weights, your budget: the best small model, as a folder.

  python -m ctl_jax.main --config=configs/my_task.py --workdir=runs/flowers \\
    --config.images=/data/flowers --config.weights=resnet50.a1_in1k.safetensors \\
    --config.budget=2e12

`auto` looks at the images within the budget, and learns them by what is best for it: a part of the
network, at a size of images, with a head on its features, or the whole network trained. It says
what it tried, what that cost, what it chose and why, and what ten times the budget would add;
evaluates the model on test; and prints what it is, what it is worth, what a prediction costs, and
where it is. Interrupted, it leaves the best so far, and the same command goes on. Without weights
it pretrains a small network on synthetic images first, and without images it learns a synthetic
task: about a minute on two CPU cores.
"""

from ctl_jax import experiment

# --config.images stands for --config.stream.variant, and so on.
SHORT = {"images": "stream.variant", "budget": "budgets.amounts"}


def get_config():
    config = experiment.default_config()

    # A folder CLASS/FILE or SPLIT/CLASS/FILE, a zip or tar of one, a table, or a data set by name;
    # several, joined by "+", are several tasks.
    config.stream.variant = "signs"
    # FLOPs that may be spent on each task. At 64 pixels a step of a ResNet-50 costs 0.07 TFLOP.
    config.budgets.amounts = experiment.following(
        config, "weights", lambda file: ("2e12",) if file else ("1e11",)
    )
    config.data.image_size = experiment.following(
        config, "weights", lambda file: 64 if file else 32
    )
    # Enough to choose by; the best model is evaluated on all of test.
    config.data.max_eval_examples = 1000

    # The weights say what network they are of. Without any:
    def unless_given(value):
        return experiment.following(
            config, "weights", lambda file: type(value)() if file else value
        )

    config.model.name = unless_given("resnet50")
    config.model.stages = unless_given((1, 1))
    config.model.width = unless_given(32)
    config.pretrain.task = unless_given("synthetic_source")
    config.pretrain.steps = 500

    # Others beside it, or instead, are each tried within the whole budget; the best on dev is kept:
    # --config.methods=auto,dense,probe,filters@0.5:lsq@2stages@48px+probe. It has the middle one of
    # the learning rates, where it trains; other methods that do are tried with each.
    config.methods = ("auto",)
    config.finetune.learning_rates = experiment.following(
        config, "weights", lambda file: (0.01, 0.03) if file else (0.05, 0.2)
    )
    config.finetune.batch_size = 32
    # Milder than Nevis'22's: short trainings do not get over crops of a twelfth of the image.
    config.finetune.crop_area = (0.5, 1.0)
    config.keep_models = "best"
    return config
