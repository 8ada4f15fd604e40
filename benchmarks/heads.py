"""Seconds that a head takes on features in memory, beside scikit-learn's, in one run.

  python benchmarks/heads.py --images=10000 --features=4000 --classes=100

scikit-learn's Ridge fits one coefficient, with the intercept, on the same features standardised
before; ours chooses the coefficient and the features' weights, too, reads float16, and calibrates.
RidgeClassifierCV (--cv) chooses among seven coefficients by leaving out one image, as ours.
"""

import argparse

import numpy as np
from sklearn.linear_model import Ridge, RidgeClassifierCV
from turns import ratio, seconds, take_turns, threads

from ctl_jax import heads


def _data(images: int, features: int, classes: int) -> heads.Shard:
    """Classes whose means differ, as ReLUs give them."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, images).astype(np.int32)
    centres = rng.standard_normal((classes, features), np.float32)
    rows = rng.standard_normal((images, features), np.float32) + 0.3 * centres[labels]
    return heads.Shard(np.maximum(rows, 0).astype(np.float16), labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--features", type=int, default=4000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--solvers", default="ridge", help="of heads.SOLVERS, with commas between")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cv", action="store_true", help="RidgeClassifierCV in the place of Ridge")
    parser.add_argument("--cpu", action="store_true", help="CPU seconds of all threads, not wall")
    args = parser.parse_args()

    shard = _data(args.images, args.features, args.classes)
    rows = shard.features.astype(np.float32)
    rows = (rows - rows.mean(0)) / rows.std(0)
    targets = np.eye(args.classes, dtype=np.float32)[shard.labels]

    def theirs(steps: int) -> None:
        for _ in range(steps):
            if args.cv:
                RidgeClassifierCV(alphas=np.logspace(-1, 5, 7)).fit(rows, shard.labels)
            else:
                Ridge(alpha=1000.0, solver="cholesky").fit(rows, targets)

    contenders = {"scikit-learn": theirs}
    for solver in args.solvers.split(","):

        def ours(steps: int, solver: str = solver) -> None:
            for _ in range(steps):
                heads.fit(solver, [shard], args.classes)

        contenders[solver] = ours
    turns = take_turns(contenders, rounds=args.rounds, steps=1, cpu=args.cpu)
    print(f"{args.images} images x {args.features} features, {threads()} threads")
    for name, taken in turns.items():
        times = f"{seconds(taken)} s"
        print(f"{name:14}{times:40}{ratio(taken, turns['scikit-learn'])} of scikit-learn's")


if __name__ == "__main__":
    main()
