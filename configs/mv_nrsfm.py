"""MV-NRSfM (Dabhi et al., 3DV 2021), a peer: 3D from several uncalibrated views.

    python -m lfm_jax.main --config=configs/mv_nrsfm.py:archive,data.views=6 \
        --config.data.dir=DIR --config.data.only=nsp__cheetah --workdir=runs/mv_nrsfm

Needs an archive whose categories have so many real cameras. From Python, tracks in and
3D, cameras and outlier scores out, it is `lfm_jax.multiview.reconstruct`, which has the
settings too. What all presets share is `METHOD`; they state what differs from that:

    (none)          two views, held out frames kept apart as for every method
    archive         a folder of keypoint archives; name it with --config.data.dir=DIR
    transductive    train and evaluate on all frames, as published
    debug           seconds; for tests

They combine, and single values may follow: configs/mv_nrsfm.py:archive,data.views=3.
"""

import ml_collections

from lfm_jax import config
from lfm_jax.multiview import METHOD as SETTINGS

METHOD = SETTINGS | {"data.views": 2}

PRESETS = {
    "archive": {"data.dir": "--config.data.dir"},
    "transductive": {"data.transductive": True},
    "debug": {
        "model.width": 16,
        "train.steps": 4,
        "train.per_category": 2,
        "train.log_every": 1,
        "train.validate_every": 2,
        "train.checkpoint_every": 2,
    },
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The run that `preset,key=value,...` names."""
    return config.parse_arg(arg, PRESETS, METHOD)
