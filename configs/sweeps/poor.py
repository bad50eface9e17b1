"""Categories with few frames: alone, and together with the eight of `ablation`.

In as many steps of as many of their shapes; alone.py has the eight themselves.
"""

import itertools

CONFIG = "configs/lfm2d.py:archive,ablation,scratch"

POOR = ("morpho__human_nasal_bone", "nrsfm__walking", "nrsfm__face")
EIGHT = (
    "accad__human_locomotion,keypointnet__chair,nsp__cheetah,seqik__fly_front_legs,"
    "sim__bird,sim__dog,sim__shadow_hand,stacmjx__mouse"
)

RUNS = [
    {"data.only": categories, "seed": seed}
    for categories, seed in itertools.product(
        (",".join((EIGHT, *POOR)), *POOR), range(3)
    )
]
