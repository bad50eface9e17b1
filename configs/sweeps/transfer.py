"""3D-LFM on what it has not seen: categories, and other rigs of the same body.

    python launch/sweep.py configs/sweeps/transfer.py
    python benchmarks/unseen.py FIRST cheetah,sofa,human_h36m17
    python benchmarks/unseen.py SECOND human_h36m17,human_coco17,human_panoptic19
    python benchmarks/unseen.py THIRD human_mpii16,human_coco17,human_panoptic19
    python benchmarks/unseen.py FOURTH human_wholebody133

FIRST to FOURTH are the work directories of its runs: the zoo without three categories,
of which the cheetah has relatives among the others, the human rig has other rigs of the
same body and the sofa has neither; a human rig of 16 joints, one of 17, and a face.
"""

from lfm_jax.rigs import zoo

CONFIG = "configs/lfm3d.py"

UNSEEN = ("cheetah", "sofa", "human_h36m17")
ONE = {"train.per_category": 64, "train.steps": 3000}

RUNS = [
    {"data.only": ",".join(n for n in zoo.CATEGORIES if n not in UNSEEN)},
    *({"data.only": name} | ONE for name in ("human_mpii16", "human_h36m17", "face68")),
]
