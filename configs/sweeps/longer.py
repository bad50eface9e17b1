"""The published network for four times as long: does it come to deform?"""

CONFIG = "configs/lfm2d.py:archive,ablation,scratch,train.steps=4000"

RUNS = [
    {"model.injection": "every", "objective.view_weight": 0.3},
    {"model.injection": "input", "objective.view_weight": 0.3},
    {"model.injection": "every", "objective.view_weight": 0.0},
]
