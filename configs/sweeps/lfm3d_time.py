"""Films: what time, its window, clips and their alignment give; occlusion; the unseen.

The last two runs have never seen the dog, which benchmarks/unseen.py lifts by them.
"""

import itertools

CONFIG = "configs/lfm3d_time.py:archive,ablation"

DOG = "motionimitation__dog"
OTHERS = (
    "accad__human_locomotion,cmu_mocap__human_locomotion,"
    "mocaptoolbox__human_dance_walk,nsp__cheetah,seqik__fly_front_legs,sim__bird,"
    "stacmjx__mouse"
)
METHODS = FRAMES, TIME = ("lfm3d", "procrustes", 1), ("lfm3d_time", "clip", 16)


def _run(method, camera="orbit", window=8, weight=1.0, occlusion=0.0, only=""):
    network, alignment, clip = method
    return {
        "model.name": network,
        "objective.alignment": alignment,
        "train.clip": clip,
        "data.camera": camera,
        "model.window": window,
        "objective.velocity_weight": weight,
        "data.occlusion": occlusion,
        "data.only": only or f"{DOG},{OTHERS}",
    }


RUNS = [
    *itertools.starmap(_run, itertools.product(METHODS, ("orbit", "static"))),
    *(_run(TIME, window=window) for window in (1, 2, 4, 16)),
    *(_run(("lfm3d_time", "clip", frames)) for frames in (4, 8, 32)),
    _run(("lfm3d", "clip", 16)),
    _run(("lfm3d_time", "procrustes", 16)),
    *(_run(TIME, weight=weight) for weight in (0.0, 10.0)),
    *(_run(m, occlusion=share) for share in (0.2, 0.4) for m in METHODS),
    *(_run(method, only=OTHERS) for method in METHODS),
]
