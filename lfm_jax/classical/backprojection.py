"""Depth back-projection: keypoints lifted by reading a depth map at them.

What gives the map, a sensor or a network that estimates depth, is of no concern here. A
map says where the surface is that a camera sees, which for a keypoint inside a body, or
behind another part of it, is not where the keypoint is.

Pixels (u, v) are columns and rows, the middle of the first pixel being (0, 0); camera
frame as in geometry/cameras.py, depth z > 0 in the units of the result:

    orthographic   u = size * x + centre      size: pixels per unit
    pinhole        u = size * x / z + centre  size: focal length in pixels
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from lfm_jax.errors import LfmError

REACH = 3.0  # pixels to the nearest depth there is


@dataclasses.dataclass(frozen=True)
class View:
    """A camera; symbols in the module's header."""

    size: float
    centre: tuple[float, float]
    pinhole: bool = False


def back_project(
    depth: Float[np.ndarray, "h w"],
    keypoints: Float[np.ndarray, "n 2"],
    visible: Bool[np.ndarray, "n"],
    view: View,
    reach: float = REACH,
) -> tuple[Float[np.ndarray, "n 3"], Bool[np.ndarray, "n"]]:
    """Keypoints in the camera frame, and whether each was read in the map.

    Args:
        depth: z of the surface in every pixel; what is not a positive number is none.
        keypoints: in pixels.
        visible: points to read; others count as hidden, whatever the map has there.
        view: the camera of the map.
        reach: pixels to the nearest depth that may stand for that of a keypoint.

    Returns:
        A point that could not be read (hidden, outside of the map, or without a depth
        in reach) has the mean depth of those that could.

    Raises:
        LfmError: no point could be read.
    """
    z = np.array(
        [
            _nearest(depth, keypoint, reach) if seen else np.nan
            for keypoint, seen in zip(keypoints, visible, strict=True)
        ]
    )
    found = np.isfinite(z)
    if not found.any():
        raise LfmError(
            f"None of {len(keypoints)} keypoints has a depth within {reach:g} pixels; "
            "look at whether the map and the keypoints are of the same image."
        )
    z = np.where(found, z, z[found].mean())
    xy = (keypoints - np.asarray(view.centre)) / view.size
    xy = np.where(np.isfinite(xy), xy, 0.0)
    xy = xy * z[:, None] if view.pinhole else xy
    return np.concatenate([xy, z[:, None]], axis=1), found


def _nearest(depth, keypoint, reach: float) -> float:
    """The depth nearest to a keypoint, of which the pixel has to be in the map."""
    inside = (keypoint > -0.5) & (keypoint < np.array(depth.shape[::-1]) - 0.5)
    if not inside.all():
        return np.nan
    first = np.maximum(np.ceil(keypoint - reach), 0).astype(int)
    last = np.floor(keypoint + reach).astype(int)
    near = depth[first[1] : last[1] + 1, first[0] : last[0] + 1]
    row, column = np.indices(near.shape)
    away = np.hypot(column + first[0] - keypoint[0], row + first[1] - keypoint[1])
    known = np.isfinite(near) & (near > 0.0) & (away <= reach)
    if not known.any():
        return np.nan
    return float(near.flat[np.argmin(np.where(known, away, np.inf))])
