"""Affine factorization of image tracks, and cameras from it by one 3 x 3 matrix.

Symbols. Image points x [f n 2] of f frames; a frame's translation is the image of the
centroid, and what is left is W, [f 2 n] here. Scaled orthographic cameras
x = s R X + t with R [2 3] the first two rows of a rotation. An affine factorization
W = M B is known up to a matrix G, M B = (M G) (G^-1 B), and the metric upgrade is the G
that makes the rows of every camera in M G orthogonal and of one length.

All is float64 on the host, without random starts, and in closed form but for missing
data. What is found is defined up to one rotation of the world, one mirror image in
depth, and the scale of the world, chosen so that the mean of the cameras' scales is 1.
The order of the frames plays no part.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from lfm_jax.errors import LfmError

FEWEST_POINTS = 4  # fewer are explained by any camera
FLAT = 1e-3  # root of the third singular value of tracks without depth, to the first
PLANAR = 1e-8  # least eigenvalue of the Gram matrix of points in a plane
DEFINITE = 1e-6  # least eigenvalue of G G', to the largest
FILL_ROUNDS, WIBERG_ROUNDS = 20, 200
LEAST_DAMPING = 1e-9  # the shape's own 12 degrees of freedom need some
SINGULAR = 1e-13  # added where a frame's seen points lie in a plane
CONVERGED = 1e-13  # relative change of the shape's column space in a round


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """Shapes and cameras of all frames: x = scale * (rotation @ X)[:2] + translation.

    Attributes:
        points3d: centred shapes in the world. Those of a deforming body keep their
            size: `scales` does not say it.
        rotations: world to camera, in SO(3).
        scales: positive.
        translations: where the centroid is seen.
    """

    points3d: Float[np.ndarray, "f n 3"]
    rotations: Float[np.ndarray, "f 3 3"]
    scales: Float[np.ndarray, "f"]
    translations: Float[np.ndarray, "f 2"]


def tomasi_kanade(
    points2d: Float[np.ndarray, "f n 2"], mask: Bool[np.ndarray, "f n"] | None = None
) -> Reconstruction:
    """One rigid shape and its cameras, exact where the 2D is.

    Tomasi & Kanade, "Shape and motion from image streams under orthography", 1992, for
    scaled orthography. With points missing, the affine factorization is that of the
    seen entries (damped Wiberg; Okatani, Yoshida & Deguchi 2011).

    Args:
        points2d: image points in any units; values outside the mask are ignored.
        mask: which points are seen; all by default.

    Returns:
        The same shape in every frame, complete.

    Raises:
        LfmError: fewer than three frames, a frame with fewer than four points or (with
            others missing) none out of a plane, a point in fewer than two frames, a
            seen point that is not finite, or 2D that a plane explains.
    """
    mask = np.ones(points2d.shape[:2], bool) if mask is None else mask
    _check(points2d, mask)
    points = np.where(mask[..., None], points2d, 0.0).astype(np.float64)
    if mask.all():
        translations = points.mean(1)
        motion, shape = truncate(points.swapaxes(1, 2) - translations[..., None], 3)
    else:
        motion, shape, translations = _complete(points, mask)
    scales, cameras, upgrade = metric_upgrade(motion)
    shape = np.linalg.solve(upgrade, shape).T
    return Reconstruction(
        np.tile(shape, (len(points), 1, 1)),
        complete_rotations(cameras),
        scales,
        translations,
    )


def bregler(points2d: Float[np.ndarray, "f n 2"], num_bases: int) -> Reconstruction:
    """A low-rank shape and its cameras, as good as one 3 x 3 matrix can make them.

    Bregler, Hertzmann & Biermann, "Recovering non-rigid 3D shape from image streams",
    2000. W = M B has rank 3k, and the camera of a frame, 2 x 3k, is read as k multiples
    of one 2 x 3 camera. With one basis that is true of any factorization and all is
    exact. With more it is true of one that only a 3k x 3k matrix could find
    (`classical.bmm` does), and the 3 x 3 one that follows cannot mend it: the images
    are explained, for shapes are moved in the image plane to where the factorization
    has them, but depths are wrong whatever the data.

    Args:
        points2d: image points in any units, all seen.
        num_bases: k; shapes are sums of so many, the mean among them.

    Raises:
        LfmError: too many bases for the points or frames, a point that is not finite,
            fewer than three frames, or 2D that a plane explains.
    """
    tracks, translations = centred_tracks(points2d, num_bases)
    motion, bases = truncate(tracks, 3 * num_bases)
    images = motion @ bases
    blocks = motion.reshape(-1, 2, num_bases, 3).swapaxes(1, 2)
    left, strength, right = np.linalg.svd(
        blocks.reshape(-1, num_bases, 6), full_matrices=False
    )
    # the first basis is most of the mean shape, and keeps its sign
    sign = np.where(left[:, :1, 0] < 0.0, -1.0, 1.0)
    codes, cameras = sign * left[:, :, 0], sign * strength[:, :1] * right[:, 0]
    scales, cameras, upgrade = metric_upgrade(cameras.reshape(-1, 2, 3))
    bases = np.linalg.solve(upgrade, bases.reshape(num_bases, 3, -1))
    shapes = np.einsum("fk,kin->fin", codes, bases)
    missed = images / scales[:, None, None] - cameras @ shapes
    shapes = shapes + cameras.swapaxes(1, 2) @ missed
    return Reconstruction(
        shapes.swapaxes(1, 2), complete_rotations(cameras), scales, translations
    )


def centred_tracks(
    points2d: Float[np.ndarray, "f n 2"], num_bases: int
) -> tuple[Float[np.ndarray, "f 2 n"], Float[np.ndarray, "f 2"]]:
    """Image points about their centroids, and those.

    Raises:
        LfmError: more bases than the rank of the tracks can hold, fewer than three
            frames, or a point that is not finite.
    """
    _check(points2d, np.ones(points2d.shape[:2], bool))
    frames, count = points2d.shape[:2]
    most = min(2 * frames, count - 1) // 3
    if not 1 <= num_bases <= most:
        raise LfmError(
            f"{num_bases} bases cannot be told from {frames} frames of {count} "
            f"keypoints: ask for 1 to {most}."
        )
    tracks = points2d.astype(np.float64).swapaxes(1, 2)
    translations = tracks.mean(2)
    return tracks - translations[..., None], translations


def truncate(
    tracks: Float[np.ndarray, "f 2 n"], rank: int
) -> tuple[Float[np.ndarray, "f 2 r"], Float[np.ndarray, "r n"]]:
    """The best product of that rank, the singular values shared by both factors."""
    left, values, right = np.linalg.svd(
        tracks.reshape(-1, tracks.shape[2]), full_matrices=False
    )
    root = np.sqrt(values[:rank])
    motion = (left[:, :rank] * root).reshape(len(tracks), 2, rank)
    return motion, root[:, None] * right[:rank]


def metric_upgrade(
    motion: Float[np.ndarray, "f 2 3"],
) -> tuple[
    Float[np.ndarray, "f"], Float[np.ndarray, "f 2 3"], Float[np.ndarray, "3 3"]
]:
    """Scales, cameras and the G for which motion @ G is nearly scale * camera.

    Rows a, b of a frame's motion ask of L = G G' that a L a' = b L b' and a L b' = 0.
    That is solved by least squares given the mean of a L a' and b L b', so that the
    solution does not depend on which of its factorizations the motion is from.

    Raises:
        LfmError: where the motion has no third dimension.
    """
    values = np.linalg.svd(motion.reshape(-1, 3), compute_uv=False)
    if values[2] <= FLAT * values[0]:
        raise LfmError(
            "A plane explains the 2D, so it says nothing of depth: give frames between "
            "which the object turns, and keypoints that are not all in one plane."
        )
    a, b = motion[:, 0], motion[:, 1]
    alike = quadratic(a, a) - quadratic(b, b), 2.0 * quadratic(a, b)
    size = np.mean(quadratic(a, a) + quadratic(b, b), axis=0)
    equations = np.concatenate([*alike, size[None]])
    sides = np.append(np.zeros(2 * len(motion)), 2.0)
    gram = symmetric(np.linalg.lstsq(equations, sides, rcond=None)[0])
    squares, axes = np.linalg.eigh(gram)
    upgrade = axes * np.sqrt(np.maximum(squares, DEFINITE * squares[-1]))
    cameras, scales = nearest_cameras(motion @ upgrade)
    return scales / scales.mean(), cameras, upgrade / scales.mean()


def quadratic(
    a: Float[np.ndarray, "f m"], b: Float[np.ndarray, "f m"]
) -> Float[np.ndarray, "f p"]:
    """The coefficients with which a Q b' is linear in Q = `symmetric` of a vector."""
    row, column = np.triu_indices(a.shape[1])
    both = a[:, row] * b[:, column] + a[:, column] * b[:, row]
    return both * np.where(row == column, 0.5, np.sqrt(0.5))


def symmetric(entries: Float[np.ndarray, "p"]) -> Float[np.ndarray, "m m"]:
    """The symmetric matrix of p = m (m + 1) / 2 entries, of the same norm."""
    size = int(np.sqrt(2 * len(entries)))
    row, column = np.triu_indices(size)
    matrix = np.zeros((size, size))
    matrix[row, column] = entries * np.where(row == column, 0.5, np.sqrt(0.5))
    return matrix + matrix.T


def nearest_cameras(
    motion: Float[np.ndarray, "f 2 3"],
) -> tuple[Float[np.ndarray, "f 2 3"], Float[np.ndarray, "f"]]:
    """Two orthonormal rows, and the scale, that are nearest to those of each frame."""
    left, values, right = np.linalg.svd(motion, full_matrices=False)
    return left @ right, values.mean(1)


def complete_rotations(
    cameras: Float[np.ndarray, "f 2 3"],
) -> Float[np.ndarray, "f 3 3"]:
    """With the third row that makes them rotations."""
    third = np.cross(cameras[:, 0], cameras[:, 1])
    return np.concatenate([cameras, third[:, None]], axis=1)


def _complete(points, mask):
    """Motion, shape and translations of rank three that fit the seen points best.

    Damped Wiberg: for any shape, every frame's motion and translation are a small
    least-squares problem, and Gauss-Newton steps of the shape take that into account.
    They leave a centred shape centred.
    """
    shape, damping = _filled(points, mask), 1e-3
    motion, residual = _motions(points, mask, shape)
    cost = np.sum(residual**2)
    for _ in range(WIBERG_ROUNDS):
        step = _wiberg_step(mask, shape, motion, residual, damping)
        trial = np.linalg.qr(shape + step)[0]
        trial_motion, trial_residual = _motions(points, mask, trial)
        if np.sum(trial_residual**2) < cost:
            shape, motion, residual = trial, trial_motion, trial_residual
            cost, damping = np.sum(residual**2), max(0.1 * damping, LEAST_DAMPING)
        else:
            damping = 10.0 * damping
        if np.linalg.norm(step) < CONVERGED:
            break
    moved, _ = _shown(mask, shape)
    least = np.linalg.eigvalsh(moved.swapaxes(1, 2) @ moved)[:, 0]
    if least.min() < PLANAR:
        raise LfmError(
            f"Frame {least.argmin()} shows only keypoints that lie in a plane, which "
            "leaves its camera open: leave it out."
        )
    return *truncate(motion[..., :3] @ shape.T, 3), motion[..., 3]


def _filled(points, mask):
    """Orthonormal columns [n 3], the shape of the points with unseen ones guessed."""
    count = mask.sum(1)[:, None, None]
    seen = mask[..., None]
    filled = np.where(seen, points, points.sum(1, keepdims=True) / count)
    for _ in range(FILL_ROUNDS):
        middle = filled.mean(1, keepdims=True)
        motion, shape = truncate((filled - middle).swapaxes(1, 2), 3)
        filled = np.where(seen, points, (motion @ shape).swapaxes(1, 2) + middle)
    return np.linalg.qr(shape.T)[0]


def _motions(points, mask, shape):
    """Of every frame motion and translation [2 4], and what they leave [n 2]."""
    moved, inverse = _shown(mask, shape)
    solve = inverse @ moved.swapaxes(1, 2)
    motion = solve @ points
    # once more: what is added to the Gram matrix shifts points near a plane
    motion = motion + solve @ np.where(mask[..., None], points - moved @ motion, 0)
    return motion.swapaxes(1, 2), np.where(mask[..., None], points - moved @ motion, 0)


def _shown(mask, shape):
    """The seen points in homogeneous coordinates [f n 4], and their inverse Gram."""
    moved = np.append(shape, np.ones((len(shape), 1)), axis=1) * mask[..., None]
    gram = moved.swapaxes(1, 2) @ moved + SINGULAR * np.eye(4)
    return moved, np.linalg.inv(gram)


def _wiberg_step(mask, shape, motion, residual, damping):
    moved, inverse = _shown(mask, shape)
    free = np.eye(mask.shape[1]) * mask[:, None]
    free = free - moved @ inverse @ moved.swapaxes(1, 2)
    cameras = motion[..., :3]
    products = cameras.swapaxes(1, 2) @ cameras
    hessian = np.tensordot(free, products, (0, 0)).swapaxes(1, 2)
    hessian = hessian.reshape(shape.size, shape.size)
    gradient = np.tensordot(residual, cameras, ((0, 2), (0, 1)))
    ridge = damping * np.trace(hessian) / shape.size
    hessian = hessian + ridge * np.eye(shape.size)
    return np.linalg.solve(hessian, gradient.ravel()).reshape(shape.shape)


def _check(points2d, mask):
    if len(points2d) < 3:
        raise LfmError(
            f"{len(points2d)} frames do not give a shape: at least three are needed."
        )
    wrong = np.argwhere(mask & ~np.isfinite(points2d).all(2))
    if len(wrong):
        frame, point = wrong[0]
        raise LfmError(
            f"Keypoint {point} of frame {frame} is not finite: mend it, or leave the "
            "frame out."
        )
    seen = mask.sum(1)
    if seen.min() < FEWEST_POINTS:
        raise LfmError(
            f"Frame {seen.argmin()} shows {seen.min()} keypoints, {FEWEST_POINTS} are "
            "needed: leave it out."
        )
    sightings = mask.sum(0)
    if sightings.min() < 2:
        raise LfmError(
            f"Keypoint {sightings.argmin()} is seen in {sightings.min()} frames, two "
            "are needed: leave it out."
        )
