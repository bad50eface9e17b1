"""Networks as records of two pure functions; the only room that imports flax.

A network joins by a line in `NETWORKS`: under its name, the function that makes its
flax module from a config, the categories and a start. NumPy arrays that a module has as
attributes hold a row for every category.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from lfm_jax.config import ModelConfig, suggest
from lfm_jax.errors import LfmError
from lfm_jax.models import (
    c3dpo,
    deep_nrsfm,
    lfm2d,
    lfm3d,
    lfm3d_time,
    mlp,
    mv_nrsfm,
    paul,
)
from lfm_jax.models.keypoints import presence
from lfm_jax.models.start import Start
from lfm_jax.types import Observation, Past, Skeleton

__all__ = ["NETWORKS", "Model", "Start", "build", "size"]

NETWORKS = {
    "lfm2d": lfm2d.network,
    "lfm3d": lfm3d.network,
    "lfm3d_time": lfm3d_time.network,
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
        each: None, or, where every category has a network of its own, what maps over
            them: `each(function, in_axes, out_axes)(*inputs)` is function(model,
            *inputs) for the model of every category, in which the category has index 0;
            axes are those of `jax.vmap`.
        past: keypoints -> what a network that looks back in time knows before the first
            frame; None of one that does not. Its method "stream" goes on from there.
        views: rows of a batch that are views of one shape and go together.
    """

    init: Callable
    apply: Callable
    begin: Callable | None = None
    each: Callable | None = None
    past: Callable[[int], Past] | None = None
    views: int = 1

    @property
    def context(self) -> int:
        """How many frames before it the shape of a frame depends on."""
        if self.past is None:
            return 0
        layers, window, _, _ = self.past(1).keys.shape
        return layers * window


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
    if config.alone and (config.bases or start):
        raise LfmError(
            f"model.alone is for networks without a start, and model.bases is "
            f"{config.bases!r}; leave one of them empty."
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
    if config.alone:
        return _side_by_side(network, example)
    return _model(network, example)


def size(params: PyTree, skeletons: Sequence[Skeleton], *, alone: bool) -> int:
    """How many numbers are trained.

    Tables of keypoints are padded to the longest category; what pads does not count.

    Args:
        params: of a network for these categories.
        skeletons: the categories.
        alone: every category has a network of its own.
    """
    present = presence(skeletons)
    count, widest = present.shape
    rows = (count, 1, widest) if alone else (count, widest)

    def used(leaf) -> int:
        table = leaf.ndim > len(rows) and leaf.shape[: len(rows)] == rows
        return leaf.size * int(present.sum()) // present.size if table else leaf.size

    return sum(map(used, jax.tree.leaves(params)))


def _model(network: nn.Module, example: Observation) -> Model:
    has_start = getattr(network, "start", None)
    begin = functools.partial(network.apply, {}, method="begin") if has_start else None
    return Model(
        init=jax.jit(lambda key: network.init(key, example)["params"]),
        apply=lambda params, *inputs, method=None: network.apply(
            {"params": params}, *inputs, method=method
        ),
        begin=begin,
        past=getattr(network, "past", None),
        views=getattr(network, "views", 1),
    )


def _side_by_side(network: nn.Module, example: Observation) -> Model:
    """A network like this for every category, weights stacked along a leading axis.

    All begin with the same key, as in runs of their own. `apply` lifts each frame by
    the network of its category; the losses of some methods, which need more of it, are
    for `each`.
    """
    names = [field.name for field in dataclasses.fields(network)]
    held = {name: getattr(network, name, None) for name in names}
    # [c 1 ...]: what a network holds has a row for each of its categories, here one
    rows = {k: v[:, None] for k, v in held.items() if isinstance(v, np.ndarray)}
    single = lambda own: _model(network.clone(**own), example)

    def each(function: Callable, in_axes: tuple = (), out_axes=0) -> Callable:
        mapped = lambda own, *inputs: function(single(own), *inputs)
        return functools.partial(jax.vmap(mapped, (0, *in_axes), out_axes), rows)

    def lift(params, seen: Observation):
        mine = lambda leaf: jnp.asarray(leaf)[seen.category]
        frame = jax.tree.map(lambda x: jnp.asarray(x)[None], seen)
        frame = dataclasses.replace(frame, category=jnp.zeros(1, jnp.int32))
        own = single(jax.tree.map(mine, rows))
        return own.apply(jax.tree.map(mine, params), frame)[0]

    return Model(
        init=jax.jit(lambda key: each(lambda model: model.init(key))()),
        apply=lambda params, seen, packing=None: jax.vmap(lift, (None, 0))(
            params, seen
        ),
        each=each,
    )
