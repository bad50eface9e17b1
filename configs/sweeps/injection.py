"""Where the correspondence encoding enters, by depth, in the published network.

Without a start: a start knows every keypoint by name, whatever the encoding.
"""

import itertools

CONFIG = "configs/lfm2d.py:archive,ablation"

RUNS = [
    {
        "model.bases": "",
        "model.injection": injection,
        "model.layers": layers,
        "seed": seed,
    }
    for injection, layers, seed in itertools.product(
        ("none", "input", "every"), (4, 12), (0, 1, 2)
    )
]
