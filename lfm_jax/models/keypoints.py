"""Weights that belong to keypoints: how networks without attention know which is which.

    h0  = sum_n v_n R_cn + b_c          reads values v_n of the keypoints of category c
    Y_n = C_cn + h^T T_cn               writes a shape, which is then centred

This is one layer on the keypoints of all categories laid end to end, as C3DPO trains
on Pascal: those of other categories are not seen, so their rows of the matrix add
nothing. Between reading and writing, weights are shared.

C begins at zero and T small.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from lfm_jax.numerics import centre, einsum, keep
from lfm_jax.types import ArrayLike, Observation, Skeleton


def presence(skeletons: Sequence[Skeleton]) -> Bool[np.ndarray, "c n"]:
    """Which keypoints each category has, padded to the longest."""
    counts = np.array([len(skeleton.keypoints) for skeleton in skeletons])
    return np.arange(counts.max()) < counts[:, None]


def shown(observation: Observation) -> Float[Array, "b n 3"]:
    """(x, y, 1) of every observed point, zero elsewhere."""
    points = jnp.asarray(observation.points2d)
    seen = jnp.ones_like(points[..., :1])
    return keep(jnp.concatenate([points, seen], axis=-1), observation.observed)


def own(
    module: nn.Module,
    name: str,
    first: nn.initializers.Initializer,
    category: Int[ArrayLike, "b"],
    count: int,
    *shape: int,
) -> Float[Array, "b n *shape"]:
    """A parameter of `module` for every keypoint of every category.

    Args:
        module: a compact module with `present`, see `presence`.
        name: of the parameter.
        first: its initial value.
        category: whose to take.
        count: keypoints in the batch, which may be narrower than the widest category.
        shape: of the parameter of one keypoint.
    """
    table = module.param(name, first, (*module.present.shape, *shape))
    return table[category, :count]


def read(
    module: nn.Module,
    values: Float[ArrayLike, "b n f"],
    category: Int[ArrayLike, "b"],
    first: nn.initializers.Initializer | None = None,
) -> Float[Array, "b d"]:
    """What `module`, of `width` and `present`, reads of values at keypoints.

    Weights begin at `first`, or so that they keep the size of the values.
    """
    fan_in = values.shape[-1] * module.present.sum(axis=1).mean()
    first = first or nn.initializers.normal(fan_in**-0.5)
    shape = values.shape[-1], module.width
    weights = own(module, "read", first, category, values.shape[-2], *shape)
    hidden = einsum("bni,bnid->bd", values, weights)
    bias = nn.Embed(len(module.present), module.width, name="bias")
    return hidden + bias(category)


def write(
    module: nn.Module,
    hidden: Float[Array, "b d"],
    category: Int[ArrayLike, "b"],
    count: int,
    first: nn.initializers.Initializer | None = None,
) -> Float[Array, "b n 3"]:
    """The shape, centred, that `module` writes at the keypoints there are.

    Weights begin at `first`, or so that they keep the size of the features.
    """
    width = hidden.shape[-1]
    first = first or nn.initializers.normal(width**-0.5)
    weights = own(module, "write", first, category, count, width, 3)
    shape = einsum("bd,bndi->bni", hidden, weights)
    shape = shape + own(module, "mean", nn.initializers.zeros, category, count, 3)
    return centre(shape, jnp.asarray(module.present)[category, :count])
