"""What each part of 3D-LFM does: alignment in the loss, attention, token encoding.

The last run has the 2D loss in the place of its own.
"""

CONFIG = "configs/lfm3d.py:ablation"

RUNS = [
    {},
    {"objective.alignment": "rotation"},
    {"objective.alignment": "none"},
    {"model.attention": "local"},
    {"model.attention": "global"},
    {"model.encoding": "learned"},
    {"objective.supervised": False, "objective.view_weight": 0.0},
]
