"""Weighted Procrustes alignment of 3D point sets: y ~ scale * R x + t.

Least squares over the points of a mask (Umeyama, "Least-squares estimation of
transformation parameters between two point patterns", 1991). R is in SO(3), or in O(3)
with `reflection=True`.

The alignment is a constant for derivatives: at its optimum the gradient of the aligned
error with respect to the source equals the gradient with the alignment held fixed
(envelope theorem), so nothing is lost and no SVD is ever differentiated.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from lfm_jax import numerics
from lfm_jax.geometry import rotations
from lfm_jax.types import ArrayLike


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Alignment:
    """y = scale * rotation @ x + translation; rotation may be improper if asked for."""

    scale: Float[ArrayLike, "*b"]
    rotation: Float[ArrayLike, "*b 3 3"]
    translation: Float[ArrayLike, "*b 3"]


def apply_alignment(
    alignment: Alignment, points: Float[ArrayLike, "*b n 3"]
) -> Float[ArrayLike, "*b n 3"]:
    """Moves points by an alignment; all points, masked or not."""
    turned = numerics.einsum("...ij,...nj->...ni", alignment.rotation, points)
    scaled = alignment.scale[..., None, None] * turned
    return scaled + alignment.translation[..., None, :]


def align_similarity(
    source: Float[ArrayLike, "*b n 3"],
    target: Float[ArrayLike, "*b n 3"],
    mask: Bool[ArrayLike, "*b n"],
    *,
    scale: bool = True,
    reflection: bool = False,
) -> Alignment:
    """The similarity that best moves `source` onto `target`, over masked points.

    Args:
        source: points to move; any units.
        target: where they should go.
        mask: which points count; fewer than three leave the rotation arbitrary but
            valid.
        scale: fit the scale; otherwise it is 1.
        reflection: allow the mirror image where it fits better.

    Returns:
        The alignment, constant for derivatives.
    """
    source, target = jax.lax.stop_gradient((source, target))
    source_mean = numerics.masked_mean(source, mask)
    target_mean = numerics.masked_mean(target, mask)
    x = numerics.keep(source - source_mean[..., None, :], mask)
    y = numerics.keep(target - target_mean[..., None, :], mask)
    correlation = numerics.einsum("...ni,...nj->...ij", y, x)
    rotation = rotations.nearest_rotation(correlation)
    if reflection:
        mirrored = -rotations.nearest_rotation(-correlation)
        better = _trace(mirrored, correlation) > _trace(rotation, correlation)
        rotation = jnp.where(better[..., None, None], mirrored, rotation)
    size = jnp.sum(jnp.square(x), axis=(-2, -1))
    factor = numerics.safe_divide(_trace(rotation, correlation), size)
    factor = factor if scale else jnp.ones_like(factor)
    moved = numerics.einsum("...ij,...j->...i", rotation, source_mean)
    return Alignment(factor, rotation, target_mean - factor[..., None] * moved)


def _trace(rotation, correlation):
    return jnp.sum(rotation * correlation, axis=(-2, -1))
