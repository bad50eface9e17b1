"""Whether a narrow code keeps L_2d from the flat solution, without L_view and with."""

import itertools

CONFIG = "configs/mlp.py:archive,ablation"

RUNS = [
    {"model.code": code, "objective.view_weight": weight, "seed": seed}
    for seed, code, weight in itertools.product((0, 1, 2), (2, 8, 32, 128), (0.0, 0.3))
]
