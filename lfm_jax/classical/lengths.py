"""Lengths that stay: which keypoints keep their distance, and how well.

In shapes that explain the 2D roughly, the distance between the two ends of a bone
scatters about its true length, and the pairs that scatter least are on one bone,
whatever the object is: no skeleton is asked for. All frames share the lengths, so what
they say together corrects each of them (`geometry.lengths`).

A length that does change is told from one that stays without any depth. Seen from
directions uniform on the sphere, a constant length l has image length d with

    E d^2 = 2/3 l^2,   E d^4 = 8/15 l^4 = 1.2 (E d^2)^2,

and for one that changes E d^4 / (1.2 (E d^2)^2) - 1 is the relative variance of l^2.
Factorized shapes deform too little; this number takes nothing of them but the scales of
the frames, whose errors only add to it. Cameras that are not uniform change it: people
seen from the side have less of it in their legs and more across.
"""

import numpy as np
from jaxtyping import Bool, Float

from lfm_jax.geometry.lengths import Lengths

TOGETHER = 10  # frames that must show both ends, and a tenth of what others have
NOISE = 0.02  # least spread of a length; canonical shapes have an RMS radius of about 1
DEVIATION = 1.4826  # standard deviation of a Gaussian in median absolute deviations


def steady_lengths(
    points: Float[np.ndarray, "f n 3"], mask: Bool[np.ndarray, "f n"], neighbours: int
) -> Lengths:
    """Of every keypoint, the lengths that change least.

    Args:
        points: image points with estimated depths, all frames in the scale of the
            canonical shapes.
        mask: which points are observed.
        neighbours: how many lengths of each keypoint are wanted.

    Returns:
        Lengths [n k], infinite in spread where a keypoint has fewer.
    """
    count = points.shape[1]
    pairs = mask[:, :, None] & mask[:, None]
    apart = points[:, :, None] - points[:, None]
    distance = np.linalg.norm(apart, axis=-1)
    seen = pairs.sum(axis=0)
    enough = max(TOGETHER, 0.1 * seen.max(initial=0))
    usable = (seen >= enough) & ~np.eye(count, dtype=bool)
    distance[~pairs] = np.nan
    distance[:, ~usable] = 0.0  # what is not used has no warning of an empty median
    length = np.nanmedian(distance, axis=0)
    usable &= length > NOISE  # of coincident points depths are equal already
    spread = DEVIATION * np.nanmedian(np.abs(distance - length), axis=0)
    spread = np.where(usable, spread, np.inf)

    neighbour = np.argsort(spread, axis=1)[:, :neighbours]
    length, spread = (np.take_along_axis(v, neighbour, 1) for v in (length, spread))
    neighbour = np.where(np.isfinite(spread), neighbour, 0)
    square = np.sum(np.square(apart[..., :2]), axis=-1)
    square[~pairs] = np.nan
    square = np.take_along_axis(square, neighbour[None], 2)
    change = relative_change(square[:, np.isfinite(spread)])
    spread = np.sqrt(spread**2 + NOISE**2 + (change * length) ** 2)
    missing = neighbours - neighbour.shape[1]
    pad = lambda values, value: np.pad(
        values, ((0, 0), (0, max(missing, 0))), constant_values=value
    )
    return Lengths(
        pad(neighbour, 0).astype(np.int32),
        pad(length, 1.0).astype(np.float32),
        pad(spread, np.inf).astype(np.float32),
    )


def relative_change(square: Float[np.ndarray, "f p"]) -> float:
    """Relative standard deviation of lengths, from their squared images.

    To first order, as the root of the mean over pairs; zero where sampling makes that
    negative, and without pairs.

    Args:
        square: squared image lengths of p pairs in f frames, seen from directions
            uniform on the sphere; NaN where an end is hidden.
    """
    square = square[:, np.any(square > 0.0, axis=0)]
    if not square.size:
        return 0.0
    second = np.nanmean(square, axis=0)
    fourth = np.nanmean(np.square(square), axis=0)
    variance = np.mean(fourth / (1.2 * np.square(second)) - 1.0)
    return 0.5 * float(np.sqrt(max(variance, 0.0)))  # half that of the square
