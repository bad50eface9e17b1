"""What each part of 3D-LFM does: alignment in the loss, attention, token encoding.

The seventh run has the 2D loss in the place of its own; the last eight have a category
each, which the first has together.
"""

CONFIG = "configs/lfm3d.py:ablation"

CATEGORIES = "car,chair,dog,drosophila,eagle,hand21,human_mpii16,shark".split(",")

RUNS = [
    {},
    {"objective.alignment": "rotation"},
    {"objective.alignment": "none"},
    {"model.attention": "local"},
    {"model.attention": "global"},
    {"model.encoding": "learned"},
    {"objective.supervised": False, "objective.view_weight": 0.0},
    *({"data.only": name} for name in CATEGORIES),
]
