"""2D-LFM: one network lifts the 2D keypoints of many categories, trained from 2D alone.

    python -m lfm_jax.main --config=configs/lfm2d.py --workdir=runs/lfm2d

Presets state what differs from the defaults in lfm_jax/config.py:

    (none)      the embedded zoo, at a size for two CPU cores
    archive     a folder of keypoint archives, trained longer; name it with
                --config.data.dir=DIR
    release     the zoo and those archives whose licence allows to pass on what was
                learned from them: the weights that come with the package
    base        about 25 M parameters, for accelerators
    large       about 300 M, the widest and deepest of the published range
    supervised  learns from 3D labels: the yardstick of what 2D alone reaches
    ablation    eight categories of the archive and a narrow network: for sweeps
    scratch     no start: the published network, which must find everything itself
    debug       seconds; for tests

They combine, and single values may follow: configs/lfm2d.py:archive,train.steps=100.
"""

import ml_collections

from lfm_jax import config

PRESETS = {
    "archive": {"data.dir": "--config.data.dir", "train.steps": 250},
    "release": {
        "data.dir": "--config.data.dir",
        "data.zoo": True,
        "data.only": (
            "btk__human_gait_pig,handembodiment__human_hand,motionimitation__dog,"
            "pyomeca__human_upper_limb,seqik__fly_front_legs,stacmjx__mouse,"
            "vertebral__reptile_vertebra,sim__baxter,sim__bird,sim__dog,sim__fruitfly,"
            "sim__gr1,sim__inspire_hand,sim__panda,sim__quadruped,sim__rodent,"
            "sim__shadow_hand,sim__tiago"
        ),
        "data.held_out": 200,
    },
    "base": {
        "model.width": 512,
        "model.layers": 8,
        "model.heads": 8,
        "optim.learning_rate": 3e-4,
        "train.per_category": 4,
        "train.steps": 20000,
        "train.validate_every": 2000,
        "train.checkpoint_every": 2000,
    },
    "large": {
        "model.width": 1024,
        "model.layers": 24,
        "model.heads": 16,
        "optim.learning_rate": 1e-4,
        "train.per_category": 4,
        "train.steps": 20000,
        "train.validate_every": 2000,
        "train.checkpoint_every": 2000,
    },
    "supervised": {
        "objective.supervised": True,
        "optim.learning_rate": 1e-3,
    },
    "ablation": {
        "data.only": (
            "accad__human_locomotion,keypointnet__chair,nsp__cheetah,"
            "seqik__fly_front_legs,sim__bird,sim__dog,sim__shadow_hand,stacmjx__mouse"
        ),
        "data.held_out": 200,
        "model.width": 64,
        "train.steps": 1000,
        "train.validate_every": 250,
        "train.checkpoint_every": 250,
    },
    "scratch": {
        "model.bases": "",
        "model.inject_values": True,
        "optim.learning_rate": 1e-3,
    },
    "debug": {
        "model.width": 16,
        "model.layers": 1,
        "model.heads": 2,
        "model.bases": "1",
        "train.steps": 4,
        "train.per_category": 1,
        "train.log_every": 1,
        "train.validate_every": 2,
        "train.checkpoint_every": 2,
    },
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The run that `preset,key=value,...` names."""
    return config.parse_arg(arg, PRESETS)
