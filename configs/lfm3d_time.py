"""3D-LFM-Time: lifts films of many categories, each frame in the light of those before.

    python -m lfm_jax.main --config=configs/lfm3d_time.py --workdir=runs/lfm3d_time

3D-LFM, which also looks back in time, learning from 3D labels by one alignment for each
clip. The camera goes round what it films (data.camera=orbit); static is a camera that
stays where it is. What all its presets share is in `METHOD`; they state what differs
from that:

    (none)      the embedded zoo, at a size for two CPU cores
    archive     a folder of keypoint archives, trained longer; name it with
                --config.data.dir=DIR
    ablation    eight categories of the shared archive that move, for sweeps
    frames      3D-LFM, which lifts and aligns every frame by itself, on the same films
    debug       seconds; for tests

They combine, and single values may follow: configs/lfm3d_time.py:archive,frames.

A film has many frames and few shapes, and 3D-LFM needs many. So that is trained first,
and this network begins at its weights; those of lfm3d.py do too:

    python -m lfm_jax.main --config=configs/lfm3d_time.py:frames --workdir=runs/frames
    python -m lfm_jax.main --config=configs/lfm3d_time.py --workdir=runs/lfm3d_time \
        --config.train.weights=runs/frames
"""

import ml_collections

from lfm_jax import config

METHOD = {
    "data.camera": "orbit",
    "model.name": "lfm3d_time",
    "model.bases": "",
    "model.width": 64,
    "objective.supervised": True,
    "objective.alignment": "clip",
    "optim.learning_rate": 3e-3,
    "train.steps": 600,
    "train.per_category": 16,
    "train.clip": 16,
    "train.validate_every": 300,
    "train.checkpoint_every": 300,
}

PRESETS = {
    "archive": {"data.dir": "--config.data.dir", "train.steps": 2000},
    "ablation": {
        "data.only": (
            "accad__human_locomotion,cmu_mocap__human_locomotion,"
            "mocaptoolbox__human_dance_walk,motionimitation__dog,nsp__cheetah,"
            "seqik__fly_front_legs,sim__bird,stacmjx__mouse"
        ),
        "train.steps": 3000,
    },
    "frames": {
        "model.name": "lfm3d",
        "objective.alignment": "procrustes",
        "train.clip": 1,
    },
    "debug": {
        "model.width": 16,
        "model.layers": 1,
        "model.heads": 2,
        "model.window": 2,
        "train.steps": 4,
        "train.per_category": 4,
        "train.clip": 4,
        "train.log_every": 1,
        "train.validate_every": 2,
        "train.checkpoint_every": 2,
    },
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The run that `preset,key=value,...` names."""
    return config.parse_arg(arg, PRESETS, METHOD)
