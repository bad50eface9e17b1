"""The published network with 3D labels: what identity gives when depth is told."""

import itertools

CONFIG = "configs/lfm2d.py:archive,ablation,scratch,supervised"

RUNS = [
    {"model.injection": place, "seed": seed}
    for seed, place in itertools.product(range(3), ("none", "input", "every"))
]
