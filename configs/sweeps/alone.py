"""Each category alone, in as many steps of as many of its shapes as together.

Together: the first row of encoding.py.
"""

import itertools

CONFIG = "configs/lfm2d.py:archive,ablation,scratch"

CATEGORIES = (
    "accad__human_locomotion",
    "keypointnet__chair",
    "nsp__cheetah",
    "seqik__fly_front_legs",
    "sim__bird",
    "sim__dog",
    "sim__shadow_hand",
    "stacmjx__mouse",
)

RUNS = [
    {"data.only": category, "seed": seed}
    for seed, category in itertools.product(range(3), CATEGORIES)
]
