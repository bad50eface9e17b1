"""Do the images of an object show it from different sides? Without that, no method
can tell its depth.

Turning an object about the viewing axis shows nothing new. What counts is how far the
viewing direction moves in the frame of the object, which poses of the rigid shape that
explains the images best tell: the third row of a rotation is that direction.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from lfm_jax.classical.factorization import factorize_rigid
from lfm_jax.geometry.pose import fit_pose

FRAMES = 400  # evenly spaced, of which the poses are found


def view_spread(
    points2d: Float[np.ndarray, "f n 2"], mask: Bool[np.ndarray, "f n"]
) -> float:
    """How far viewing directions lie from their mean, root mean square, in degrees.

    Near 0 for an object that never turns out of the image plane, about 100 for views
    from everywhere. An object that moves its parts seems to turn a little.

    Args:
        points2d: image points in units that all frames share.
        mask: which points are seen.
    """
    few = np.linspace(0, len(mask) - 1, min(len(mask), FRAMES)).round().astype(int)
    points2d, mask = points2d[few], mask[few]
    shape = factorize_rigid(points2d, mask).shapes[0]
    views = np.asarray(_directions(jnp.asarray(shape, jnp.float32), points2d, mask))
    mean = views.mean(axis=0)
    cosine = views @ (mean / max(np.linalg.norm(mean), 1e-6))
    angles = np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))
    return float(np.sqrt(np.mean(np.square(angles))))


@jax.jit
def _directions(shape, points2d, mask):
    shapes = jnp.broadcast_to(shape, (*points2d.shape[:2], 3))
    pose = fit_pose(shapes, points2d.astype(jnp.float32), mask)
    return pose.rotation[:, 2]
