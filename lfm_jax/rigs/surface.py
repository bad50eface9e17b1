"""Depth maps of the zoo: a z-buffer of capsules around bones.

The camera is orthographic and looks along +z; a map has a row for each y and a column
for each x. Keypoints lie inside of their capsules, as joints lie inside of bodies.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lfm_jax.types import ArrayLike

STEPS = 8  # spheres along a bone, besides that at its first end


def render_depth(
    points3d: Float[ArrayLike, "n 3"],
    edges: Int[ArrayLike, "e 2"],
    radius: Float[ArrayLike, ""],
    x: Float[ArrayLike, "w"],
    y: Float[ArrayLike, "h"],
) -> Float[Array, "h w"]:
    """z of the nearest surface in every pixel, NaN where there is none.

    Args:
        points3d: keypoints in the camera frame.
        edges: the bones.
        radius: of the capsules.
        x, y: where the pixels are.
    """
    points3d = jnp.asarray(points3d)
    start, end = points3d[edges[:, 0]], points3d[edges[:, 1]]
    along = jnp.linspace(0.0, 1.0, STEPS + 1)[:, None, None]
    inner = start[None] + along * (end - start)[None]
    spheres = jnp.concatenate([points3d, inner.reshape(-1, 3)])

    def nearer(front, sphere):
        beside = jnp.square(x - sphere[0])[None] + jnp.square(y - sphere[1])[:, None]
        bulge = jnp.square(radius) - beside
        surface = sphere[2] - jnp.sqrt(jnp.maximum(bulge, 0.0))
        return jnp.where(bulge > 0.0, jnp.minimum(front, surface), front), None

    nothing = jnp.full((len(y), len(x)), jnp.inf)
    front, _ = jax.lax.scan(nearer, nothing, spheres)
    return jnp.where(jnp.isfinite(front), front, jnp.nan)
