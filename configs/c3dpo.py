"""C3DPO (Novotny et al., ICCV 2019), a peer: 3D from 2D keypoints alone.

    python -m lfm_jax.main --config=configs/c3dpo.py --workdir=runs/c3dpo

Network and loss are those of the paper (models/c3dpo.py, tasks.c3dpo_task); the pose of
what it lifts is fitted, as that of every other method, and not the one it predicts.

What all its presets share is in `METHOD`; they state what differs from that:

    (none)      the embedded zoo
    archive     a folder of keypoint archives; name it with --config.data.dir=DIR
    ablation    eight categories of the archive, those of configs/lfm2d.py: for sweeps
    debug       seconds; for tests

They combine, and single values may follow: configs/c3dpo.py:archive,model.code=2.
"""

import ml_collections

from lfm_jax import config

METHOD = {
    "model.name": "c3dpo",
    "model.bases": "",
    "model.width": 256,
    "objective.name": "c3dpo",
    "optim.learning_rate": 1e-3,
    "train.steps": 4000,
    "train.validate_every": 1000,
    "train.checkpoint_every": 1000,
    "train.log_every": 100,
}

PRESETS = {
    "archive": {"data.dir": "--config.data.dir"},
    "ablation": {
        "data.only": (
            "accad__human_locomotion,keypointnet__chair,nsp__cheetah,"
            "seqik__fly_front_legs,sim__bird,sim__dog,sim__shadow_hand,stacmjx__mouse"
        ),
        "train.steps": 2000,
    },
    "debug": {
        "model.width": 16,
        "model.layers": 2,
        "train.steps": 4,
        "train.per_category": 1,
        "train.log_every": 1,
        "train.validate_every": 2,
        "train.checkpoint_every": 2,
    },
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The run that `preset,key=value,...` names."""
    return config.parse_arg(arg, PRESETS, METHOD)
