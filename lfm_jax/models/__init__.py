"""Networks as records of two pure functions; the only room that imports flax.

A network joins by a line in `NETWORKS`: under its name, the function that makes its
flax module from a config, the categories and a start.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lfm_jax.config import ModelConfig, suggest
from lfm_jax.errors import LfmError
from lfm_jax.models import c3dpo, deep_nrsfm, lfm2d, lfm3d, mlp, mv_nrsfm, paul
from lfm_jax.models.start import Start
from lfm_jax.types import Observation, Skeleton

__all__ = ["NETWORKS", "Model", "Start", "build"]

NETWORKS = {
    "lfm2d": lfm2d.network,
    "lfm3d": lfm3d.network,
    "mlp": mlp.network,
    "deep_nrsfm": deep_nrsfm.network,
    "c3dpo": c3dpo.network,
    "paul": paul.network,
    "mv_nrsfm": mv_nrsfm.network,
}

DTYPES = ("float32", "bfloat16")


class Model(NamedTuple):
    """A network without state.

    Attributes:
        init: key -> params.
        apply: (params, normalised observation, packing or None) -> canonical [b n 3].
            With `method=`, what that method of the network gives for its own inputs:
            the losses of some methods need more than the shape.
        begin: normalised observation -> the start in the camera [b n 3], which is what
            the network adds to; None where there is no start.
        views: rows of a batch that are views of one shape and go together.
    """

    init: Callable
    apply: Callable
    begin: Callable | None = None
    views: int = 1


def build(
    config: ModelConfig,
    skeletons: Sequence[Skeleton],
    start: Start | None = None,
    views: int = 1,
) -> Model:
    """The network of a config for these categories.

    Args:
        config: what to build.
        skeletons: the categories, in the order of their index.
        start: factorized shapes to begin from; None for the bare network.
        views: of every frame, side by side in a batch; only mv_nrsfm fuses them, the
            others take each for a frame.

    Raises:
        LfmError: a setting that names nothing, or that the network does not have.
    """
    if config.name not in NETWORKS:
        known = suggest(config.name, NETWORKS)
        raise LfmError(f"There is no model.name {config.name!r}{known}.")
    if config.width % (2 * config.heads):
        raise LfmError(
            f"model.width is {config.width}; make it a multiple of twice model.heads "
            f"({2 * config.heads})."
        )
    if config.dtype not in DTYPES:
        raise LfmError(
            f"model.dtype is {config.dtype!r}; choose {' or '.join(DTYPES)}."
        )
    if config.name != "lfm2d" and (config.dtype != DTYPES[0] or config.remat):
        raise LfmError(
            f"model.dtype and model.remat are settings of lfm2d; {config.name} has "
            "neither, leave both out."
        )
    if config.name != "lfm2d" and (config.bases or start):
        raise LfmError(
            f"model.bases is {config.bases!r}, and {config.name} has no start; leave "
            "it empty."
        )
    network = NETWORKS[config.name](config, skeletons, start)
    fused = views if config.name == "mv_nrsfm" else 1
    if fused > 1:
        network = network.clone(views=fused)
    count = max(len(skeleton.keypoints) for skeleton in skeletons)
    example = Observation(
        points2d=jnp.zeros((fused, count, 2)),
        observed=jnp.ones((fused, count), bool),
        annotated=jnp.ones((fused, count), bool),
        category=jnp.zeros(fused, jnp.int32),
    )
    return Model(
        init=jax.jit(lambda key: network.init(key, example)["params"]),
        apply=lambda params, *inputs, method=None: network.apply(
            {"params": params}, *inputs, method=method
        ),
        begin=functools.partial(network.apply, {}, method="begin") if start else None,
        views=fused,
    )
