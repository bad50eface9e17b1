"""3D-LFM with nothing but its loss swapped for L_2d: more data, and deeper."""

import itertools

CONFIG = "configs/lfm3d.py:ablation"

RUNS = [
    {
        "objective.supervised": False,
        "objective.view_weight": 0.0,
        "model.layers": layers,
        "data.share": share,
    }
    for layers, share in itertools.product((6, 24), (0.1, 1.0))
]
