"""Films: what time, its window, clips and their alignment give; occlusion.

All begin at 3D-LFM as trained on films of `orbit`, and all go on for equally long:

    python -m lfm_jax.main --config=configs/lfm3d_time.py:archive,ablation,frames \
        --config.data.dir=DIR --workdir=runs/frames
    python launch/sweep.py configs/sweeps/lfm3d_time.py --config.data.dir=DIR \
        --config.train.weights=runs/frames
"""

import itertools

CONFIG = "configs/lfm3d_time.py:archive,ablation"

METHODS = FRAMES, TIME = ("lfm3d", "procrustes", 1), ("lfm3d_time", "clip", 16)


def _run(method, camera="orbit", window=8, weight=1.0, occlusion=0.0):
    network, alignment, clip = method
    return {
        "model.name": network,
        "objective.alignment": alignment,
        "train.clip": clip,
        "data.camera": camera,
        "model.window": window,
        "objective.velocity_weight": weight,
        "data.occlusion": occlusion,
        "train.steps": 2000,
    }


RUNS = [
    *itertools.starmap(_run, itertools.product(METHODS, ("orbit", "static"))),
    *(_run(TIME, window=window) for window in (1, 2, 4, 16)),
    *(_run(("lfm3d_time", "clip", frames)) for frames in (4, 8)),
    _run(("lfm3d", "clip", 16)),
    _run(("lfm3d_time", "procrustes", 16)),
    *(_run(TIME, weight=weight) for weight in (0.0, 10.0)),
    *(_run(m, occlusion=share) for share in (0.2, 0.4) for m in METHODS),
]
