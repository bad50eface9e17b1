"""PAUL (Wang and Lucey, CVPR 2021), a peer: 3D from 2D keypoints alone.

    python -m lfm_jax.main --config=configs/paul.py --workdir=runs/paul

Network and loss are those of the paper as far as they are known (models/paul.py,
tasks.paul_task).

What all its presets share is in `METHOD`; they state what differs from that:

    (none)      the embedded zoo
    archive     a folder of keypoint archives; name it with --config.data.dir=DIR
    ablation    eight categories of the archive, those of configs/lfm2d.py: for sweeps
    debug       seconds; for tests

They combine, and single values may follow: configs/paul.py:archive,model.code=2.
"""

import ml_collections

from lfm_jax import config

METHOD = {
    "model.name": "paul",
    "model.bases": "",
    "model.width": 256,
    "objective.name": "paul",
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
