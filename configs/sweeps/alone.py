"""Each category by a network of its own, or all by one; as many shapes either way."""

import itertools

CONFIG = "configs/lfm2d.py:archive,ablation,scratch"

RUNS = [
    {"model.alone": alone, "seed": seed}
    for alone, seed in itertools.product((True, False), range(3))
]
