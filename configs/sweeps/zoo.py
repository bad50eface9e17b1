"""The zoo on three seeds: from 2D alone, and with labels from the same start."""

CONFIG = "configs/lfm2d.py"

RUNS = [
    {"config": config, "train.steps": steps, "seed": seed}
    for seed in range(3)
    for config, steps in ((CONFIG, 150), (f"{CONFIG}:supervised", 1200))
]
