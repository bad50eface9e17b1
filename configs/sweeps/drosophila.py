"""The fruit fly of the zoo, 80 frames of ten: alone, and together with seven others.

In as many steps of as many of its shapes.
"""

import itertools

CONFIG = "configs/lfm2d.py:ablation,scratch"

ALONE = "drosophila"
TOGETHER = "car,chair,dog,drosophila,eagle,hand21,human_mpii16,shark"

RUNS = [
    {"data.only": categories, "seed": seed}
    for categories, seed in itertools.product((TOGETHER, ALONE), range(3))
]
