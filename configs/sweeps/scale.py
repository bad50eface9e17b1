"""How many frames: a share of the training frames of every category.

Once for the published network, which must find everything itself, and once from
factorized shapes, which are made of the same few frames.
"""

import itertools

CONFIG = "configs/lfm2d.py:archive,ablation"

SHARES = (0.01, 0.03, 0.1, 0.3, 1.0)

RUNS = [
    {
        "data.share": share,
        "model.bases": bases,
        "model.inject_values": not bases,
        "optim.learning_rate": 5e-4 if bases else 1e-3,
        "train.steps": 250 if bases else 1000,
        "seed": seed,
    }
    for seed, bases, share in itertools.product((0, 1, 2), ("", "2,5,9"), SHARES)
]
