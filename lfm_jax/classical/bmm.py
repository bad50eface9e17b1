"""Non-rigid factorization by convex relaxation: the block matrix method, BMM.

Dai, Li & He, "A simple prior-free method for non-rigid structure-from-motion
factorization", 2012 and 2014. Symbols are those of classical/affine.py: W = M B has
rank 3k for shapes of k bases (the mean is one), and M [f 2 3k]. Shapes have the size
they show, cameras the scale 1: to this method a change of size is a deformation.

**Rotations.** Three columns G [3k 3] of the corrective matrix make M G a camera in
every frame, times that frame's coefficient. Q = G G' is semidefinite and of rank
three, and is found as the solution of least trace, the convex stand-in for rank, of
equations that are linear in Q; its three main axes are G, refined without the
relaxation. The paper takes the null space of a Q a' = b Q b', a Q b' = 0, a and b the
rows of a frame, and fixes the sum of Q's coordinates there. Here the equations are
a Q a' = b Q b' = 1 and a Q b' = 0 in the sense of least squares, which says that a body
about keeps its size: its solution is nearly of rank three, where that of the sum
depends on the basis of the null space.

**Shapes.** Of all shapes with the given images, those whose matrix [f 3n] has the least
nuclear norm, the convex stand-in for the number of bases: fixed-point continuation
(Ma, Goldfarb & Chen 2011) with momentum.

A frame's opposite camera, and its shape turned inside out, explain it as well. Where
the frames are a video this is told by continuity, as in the paper; else by what makes
the mean shape larger, the signs as they are (the coefficient of G is positive) or those
of the largest basis.
"""

import numpy as np
import scipy.optimize
from jaxtyping import Float

from lfm_jax.classical.affine import (
    Reconstruction,
    centred_tracks,
    complete_rotations,
    nearest_cameras,
    quadratic,
    symmetric,
    truncate,
)

# Weight of the trace, the first column of M having mean square 1. A tenth or ten times
# of this gives about the same cameras once they are refined.
TRACE = 1e-3
ROUNDS, ENOUGH = 500, 1e-7  # of the convex program; relative change that ends it
RELAXED = 1.6  # over-relaxation of its multipliers' updates
REFINEMENTS = 500
NOTHING = 1e-12  # squared size of a frame whose points coincide; that of others is 1
# In a video all neighbouring cameras have an inner product above this: 2 is that of
# the same camera, and random ones reach this in one case of six.
STEADY = 1.41
LEVELS, COOLING = 15, 0.25  # of the nuclear norm's weight, from the largest to 1e-9
INNER, STILL = 200, 1e-6  # rounds of a level; relative change that ends it


def bmm(points2d: Float[np.ndarray, "f n 2"], num_bases: int) -> Reconstruction:
    """Deforming shapes and their cameras from 2D tracks.

    Args:
        points2d: image points in any units, all seen, orthographic or nearly.
        num_bases: k, the mean among them; at most a third of the keypoints.

    Returns:
        Shapes in the units of the image; all scales are 1.

    Raises:
        LfmError: too many bases for the points or frames, fewer than three frames, or a
            point that is not finite.
    """
    tracks, translations = centred_tracks(points2d, num_bases)
    cameras = _cameras(tracks, num_bases)
    shapes = recover_shapes(points2d, complete_rotations(cameras), num_bases)
    sign = _signs(cameras, shapes)[:, None, None]
    rotations = complete_rotations(sign * cameras)
    return Reconstruction(sign * shapes, rotations, np.ones(len(sign)), translations)


def recover_shapes(
    points2d: Float[np.ndarray, "f n 2"],
    rotations: Float[np.ndarray, "f 3 3"],
    num_bases: int,
) -> Float[np.ndarray, "f n 3"]:
    """The shapes of least nuclear norm that orthographic cameras see so.

    Args:
        points2d: image points, all seen.
        rotations: world to camera.
        num_bases: the rank that shapes are cut to in the end.

    Returns:
        Centred shapes in the world and in the units of the image.

    Raises:
        LfmError: as `bmm`.
    """
    tracks, _ = centred_tracks(points2d, num_bases)
    cameras = rotations[:, :2]
    shapes = cameras.swapaxes(1, 2) @ tracks
    weight = np.linalg.norm(shapes.reshape(len(shapes), -1), 2)
    for _ in range(LEVELS):
        weight = COOLING * weight
        shapes = _least_nuclear_norm(tracks, cameras, shapes, weight)
    left, values, right = _svd(shapes)
    cut = (left[:, :num_bases] * values[:num_bases]) @ right[:num_bases]
    return cut.reshape(shapes.shape).swapaxes(1, 2)


def _least_nuclear_norm(tracks, cameras, shapes, weight):
    """Accelerated proximal gradient at one weight of the norm.

    Cameras have orthonormal rows, so a step of length one puts the shapes [f 3 n] onto
    their images.
    """
    ahead, pace = shapes, 1.0
    for _ in range(INNER):
        missed = tracks - cameras @ ahead
        left, values, right = _svd(ahead + cameras.swapaxes(1, 2) @ missed)
        less = (left * np.maximum(values - weight, 0.0)) @ right
        change = less.reshape(shapes.shape) - shapes
        shapes = shapes + change
        quicker = (1.0 + np.sqrt(1.0 + 4.0 * pace**2)) / 2.0
        ahead, pace = shapes + (pace - 1.0) / quicker * change, quicker
        if np.linalg.norm(change) <= STILL * np.linalg.norm(shapes):
            break
    return shapes


def _svd(shapes):
    return np.linalg.svd(shapes.reshape(len(shapes), -1), full_matrices=False)


def _cameras(tracks, num_bases):
    """Cameras [f 2 3] of every frame, by convex program and refinement."""
    motion, _ = truncate(tracks, 3 * num_bases)
    motion = motion * np.sqrt(len(motion) / np.linalg.norm(motion[..., 0]) ** 2)
    squares, axes = np.linalg.eigh(_least_trace(motion))
    start = axes[:, -3:] * np.sqrt(np.maximum(squares[-3:], 0.0))
    refined = scipy.optimize.minimize(
        _skew,
        start.ravel(),
        args=(motion,),
        jac=True,
        method="BFGS",
        options={"maxiter": REFINEMENTS, "gtol": 1e-9},
    )
    return nearest_cameras(motion @ refined.x.reshape(start.shape))[0]


def _least_trace(motion):
    """Semidefinite Q [3k 3k] that makes a Q a' and b Q b' one and a Q b' zero.

    Alternating directions: least squares for the equations, eigenvalues cut at zero
    for the cone.
    """
    a, b = motion[:, 0], motion[:, 1]
    along = np.concatenate([quadratic(a, a), quadratic(b, b)])
    equations = np.concatenate([along, np.sqrt(2.0) * quadratic(a, b)])
    row, column = np.triu_indices(a.shape[1])
    trace = (row == column).astype(float)
    values, axes = np.linalg.eigh(equations.T @ equations / len(a))
    fixed = along.sum(0) / len(a) - TRACE * trace
    inside, multiplier = trace / a.shape[1], np.zeros(len(trace))
    for _ in range(ROUNDS):
        aim = axes.T @ (fixed + TRACE * (inside - multiplier))
        fitted = axes @ (aim / (values + TRACE))
        relaxed = RELAXED * fitted + (1.0 - RELAXED) * inside + multiplier
        before, inside = inside, _semidefinite(relaxed)
        multiplier = relaxed - inside
        moved = np.linalg.norm(inside - before), np.linalg.norm(inside - fitted)
        if max(moved) < ENOUGH * np.linalg.norm(inside):
            break
    return symmetric(inside)


def _semidefinite(entries):
    """The nearest without negative eigenvalues, both as `symmetric` takes them."""
    squares, axes = np.linalg.eigh(symmetric(entries))
    matrix = (axes * np.maximum(squares, 0.0)) @ axes.T
    row, column = np.triu_indices(len(matrix))
    return matrix[row, column] * np.where(row == column, 1.0, np.sqrt(2.0))


def _skew(flat, motion):
    """How far M G is from scaled cameras in all frames, and its derivative.

    ((|a|^2 - |b|^2)^2 + 4 (a b)^2) / (|a|^2 + |b|^2)^2 of the rows of each frame: the
    paper's measure with both rows treated alike.
    """
    camera = motion @ flat.reshape(-1, 3)
    squares = np.sum(camera**2, axis=2)
    difference = squares[:, 0] - squares[:, 1]
    product = np.sum(camera[:, 0] * camera[:, 1], axis=1)
    size = squares.sum(1) + NOTHING
    difference, product = difference / size, 2.0 * product / size
    cost = difference**2 + product**2
    own = np.stack([difference, -difference], 1) - cost[:, None]
    other = camera[:, ::-1] * product[:, None, None]
    slope = 4.0 / size[:, None, None] * (own[..., None] * camera + other)
    return cost.sum(), np.tensordot(motion, slope, ((0, 1), (0, 1))).ravel()


def _signs(cameras, shapes):
    """+1 or -1 for every frame: by continuity of cameras, or by likeness of shapes."""
    alike = np.sum(cameras[1:] * cameras[:-1], axis=(1, 2))
    if np.abs(alike).min() >= STEADY:
        return np.cumprod(np.where(np.append(1.0, alike) < 0.0, -1.0, 1.0))
    main = np.where(_svd(shapes)[0][:, 0] < 0.0, -1.0, 1.0)
    mean = lambda signs: np.linalg.norm(np.tensordot(signs, shapes, 1))
    return max(np.ones(len(shapes)), main, key=mean)
