"""Depths that agree with lengths: the two ends of a bone keep their distance.

An image fixes a point up to its depth. Where the distance l of two points is known, and
their images are d apart, their depths differ by sqrt(l^2 - d^2), up to a sign.
Estimated depths z0 settle the signs, and the lengths then correct the estimates. A few
steps in the depths z and the scale s, by which canonical lengths are seen, lower

    1/2 sum_n ((z_n - z0_n) / doubt_n)^2 + 1/2 WEIGHT sum_(n,m) log(1 + r_nm^2)
        + 1/2 ((s0 / s - 1) / SCALE)^2,
    r_nm = (|x_n - x_m| / s - length_nm) / spread_nm,

the second sum over every point's neighbours in rigidity. It is Cauchy's error: a length
that is far off is no reason to move. Mirrored depths give mirrored results, and the
scale of the image does not matter.

The result is a constant for derivatives.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from lfm_jax.numerics import TINY, keep
from lfm_jax.types import ArrayLike

WEIGHT = 1.0 / 3.0  # the lengths of a keypoint are not independent
SCALE = 0.05  # relative standard deviation of the scale that comes with the estimate
STEPS = 8
MOMENTUM = 0.8  # a step begins ahead by this part of the last one


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Lengths:
    """Lengths of every keypoint to its neighbours in rigidity.

    Attributes:
        neighbour: index of the other end.
        length: in the scale of the canonical shapes.
        spread: standard deviation; infinite where there is no neighbour.
    """

    neighbour: Int[ArrayLike, "*b n k"]
    length: Float[ArrayLike, "*b n k"]
    spread: Float[ArrayLike, "*b n k"]


def refine_depths(
    points2d: Float[ArrayLike, "b n 2"],
    depth: Float[ArrayLike, "b n"],
    mask: Bool[ArrayLike, "b n"],
    doubt: Float[ArrayLike, "b n"],
    scale: Float[ArrayLike, "b"],
    lengths: Lengths,
) -> Float[ArrayLike, "b n"]:
    """Depths that agree better with known lengths.

    Args:
        points2d: image points.
        depth: their estimated depths.
        mask: which points are observed; others neither move nor are reasons to.
        doubt: standard deviation of the estimated depths.
        scale: of the image against the canonical shapes, as far as it is known.
        lengths: what is known, [b n k].
    """
    points2d, first = keep(points2d, mask), jnp.where(mask, depth, 0.0)
    points2d, first, doubt, scale = jax.lax.stop_gradient(
        (points2d, first, doubt, scale)
    )
    # neighbours first, so that sums over the few of them are sums of long vectors
    neighbours = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, -1, 0), lengths)
    other, length = neighbours.neighbour, neighbours.length
    # a shape, not a length: exported programs leave it open
    batch = jnp.arange(depth.shape[0])[None, :, None]
    used = mask[None] & mask[batch, other] & jnp.isfinite(neighbours.spread)
    variance = jnp.square(jnp.where(used, neighbours.spread, 1.0))
    apart = [axis[None] - axis[batch, other] for axis in jnp.moveaxis(points2d, -1, 0)]
    flat = sum(map(jnp.square, apart)) + TINY
    firm = 1.0 / jnp.square(doubt)
    known = jnp.square(scale / SCALE)

    def step(_, carry):
        depth, before, shrink = carry  # shrink is 1 / s
        depth, before = depth + MOMENTUM * (depth - before), depth
        rise = depth[None] - depth[batch, other]
        distance = jnp.sqrt(flat + jnp.square(rise))
        error = distance * shrink[None, :, None] - length
        weight = jnp.where(used, WEIGHT / (variance + jnp.square(error)), 0.0)
        slope = rise / distance * shrink[None, :, None]
        push, steep = weight * error * slope, weight * jnp.square(slope)
        # ends too far apart at equal depth: no slope, but a way down to either side
        bend = jnp.maximum(error, 0.0) * flat / distance**3 * shrink[None, :, None]
        steep = steep + weight * bend
        # what a pair gives to one end, and to the other
        pushed = jnp.sum(push, axis=0).at[batch, other].add(-push)
        steepness = jnp.sum(steep, axis=0).at[batch, other].add(steep)
        gradient = pushed + (depth - first) * firm
        # twice the diagonal of a sum over pairs bounds its matrix
        depth = depth - gradient / (2.0 * steepness + firm)
        # the scale is solved for; that it is known counts as one more length
        wanted = jnp.sum(weight * length * distance, axis=(0, 2))
        total = jnp.sum(weight * jnp.square(distance), axis=(0, 2))
        return depth, before, (wanted + known / scale) / (total + known)

    found = jax.lax.fori_loop(0, STEPS, step, (first, first, 1.0 / scale))[0]
    return jnp.where(mask, found, jax.lax.stop_gradient(depth))
