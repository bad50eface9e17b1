"""Weighted Procrustes alignment of 3D point sets: y ~ scale * R x + t.

Least squares over points with weights, such as those of a mask (Umeyama, "Least-squares
estimation of transformation parameters between two point patterns", 1991). R is in
SO(3), or in O(3) with `reflection=True`.

The alignment is a constant for derivatives: at its optimum the gradient of the aligned
error with respect to the source equals the gradient with the alignment held fixed
(envelope theorem), so nothing is lost and no SVD is ever differentiated.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from lfm_jax import clips, numerics
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
    weight: Bool[ArrayLike, "*b n"] | Float[ArrayLike, "*b n"],
    *,
    scale: bool = True,
    reflection: bool = False,
    run: Int[Array, "b"] | None = None,
) -> Alignment:
    """The similarity that best moves `source` onto `target`.

    Args:
        source: points to move; any units.
        target: where they should go.
        weight: how much each point's squared distance counts, not negative, or a mask;
            points of weight zero play no part whatever they hold. Fewer than three
            others leave the rotation arbitrary but valid.
        scale: fit the scale; otherwise it is 1.
        reflection: allow the mirror image where it fits better.
        run: of each frame, as in clips.py: frames of one run have one alignment; for
            arrays [b n 3]. None: every frame its own.

    Returns:
        The alignment, constant for derivatives.
    """
    source, target = jax.lax.stop_gradient((source, target))
    pool = (lambda x: x) if run is None else lambda x: clips.total(x, run)
    share = weight.astype(source.dtype)
    mask = share > 0.0
    total = pool(jnp.sum(share, axis=-1, keepdims=True))
    share = share / jnp.where(total > 0.0, total, 1.0)
    source, target = numerics.keep(source, mask), numerics.keep(target, mask)
    source_mean = pool(numerics.einsum("...n,...ni->...i", share, source))
    target_mean = pool(numerics.einsum("...n,...ni->...i", share, target))
    x = numerics.keep(source - source_mean[..., None, :], mask)
    y = numerics.keep(target - target_mean[..., None, :], mask)
    weighted = x * share[..., None]
    correlation = pool(numerics.einsum("...ni,...nj->...ij", y, weighted))
    rotation = rotations.nearest_rotation(correlation)
    if reflection:
        mirrored = -rotations.nearest_rotation(-correlation)
        better = _trace(mirrored, correlation) > _trace(rotation, correlation)
        rotation = jnp.where(better[..., None, None], mirrored, rotation)
    size = pool(jnp.sum(weighted * x, axis=(-2, -1)))
    factor = numerics.safe_divide(_trace(rotation, correlation), size)
    factor = factor if scale else jnp.ones_like(factor)
    moved = numerics.einsum("...ij,...j->...i", rotation, source_mean)
    return Alignment(factor, rotation, target_mean - factor[..., None] * moved)


def _trace(rotation, correlation):
    return jnp.sum(rotation * correlation, axis=(-2, -1))
