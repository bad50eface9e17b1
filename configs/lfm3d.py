"""3D-LFM: one network lifts the 2D keypoints of many categories, from 3D labels.

    python -m lfm_jax.main --config=configs/lfm3d.py --workdir=runs/lfm3d

It knows neither keypoints nor categories by name, only skeletons, and begins from
nothing. What all its presets share is in `METHOD`; they state what differs from that:

    (none)      the embedded zoo, at a size for two CPU cores
    archive     a folder of keypoint archives, trained longer; name it with
                --config.data.dir=DIR
    ablation    eight categories, for sweeps
    debug       seconds; for tests

They combine, and single values may follow: configs/lfm3d.py:archive,train.steps=100.
"""

import ml_collections

from lfm_jax import config

METHOD = {
    "model.name": "lfm3d",
    "model.bases": "",
    "model.width": 64,
    "objective.supervised": True,
    "objective.alignment": "procrustes",
    "optim.learning_rate": 3e-3,
    "train.steps": 6000,  # 18,000 shapes of each category; it learns slowly
    "train.log_every": 100,
    "train.validate_every": 1000,
    "train.checkpoint_every": 1000,
}

PRESETS = {
    "archive": {"data.dir": "--config.data.dir", "train.steps": 12000},
    "ablation": {
        "data.only": "car,chair,dog,drosophila,eagle,hand21,human_mpii16,shark",
        "train.per_category": 6,
    },
    "debug": {
        "model.width": 16,
        "model.layers": 1,
        "model.heads": 2,
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
