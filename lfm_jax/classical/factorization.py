"""Structure from motion by factorization: shapes from 2D alone, without weights.

Symbols. Image points x [f n 2] of f frames, normalised: every frame is centred over its
seen points and has RMS radius 1. Scaled orthographic cameras x = s P R X + t with P the
first two rows of the identity and R in SO(3). A rigid shape is one X [n 3] for all
frames; a low-rank shape is a mean and k deformation bases with Gaussian coefficients,
stacked as `shapes` [m n 3], m = k + 1 (geometry/deformable.py).

The result is defined up to one global rotation, the scale of the shape, and one global
mirror image in depth, which 2D cannot tell. The order of the frames plays no part.

The low-rank model is fitted by expectation maximisation (Torresani, Hertzmann &
Bregler 2008). Its likelihood has many optima: the rigid shape with the least 2D error
often explains part of the frames by the mirror image of their pose (a walking body and
its mirror look alike to a rigid model). Hence many random starts, each deformed a
little before they are compared: with deformation, the likelihood of the 2D tells the
right one.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from lfm_jax import numerics
from lfm_jax.geometry.deformable import (
    Moments,
    deform,
    fit_low_rank,
    moments,
    posterior,
    refine_pose,
)
from lfm_jax.numerics import einsum

NOISE_FLOOR = 1e-3  # variance; keypoints are good to 3 % of the object, not better
SEARCH_FRAMES, FRAMES = 256, 1024  # frames used to choose a start, and to fit it
# A frame of n points has 2 n image coordinates, 4 of which go to the pose: more bases
# than a third of the points explain any 2D, also by a wrong pose.
POINTS_PER_BASIS = 3
STARTS, SEARCH_BASES = 24, 4


@dataclasses.dataclass(frozen=True)
class Factorization:
    """Rigid or deformable shape that explains the 2D of one category.

    Attributes:
        shapes: mean shape and deformation bases (one standard deviation each),
            centred, the mean with RMS radius 1.
        noise: variance of an image coordinate, for 2D of RMS radius 1.
        score: mean log-likelihood of an image coordinate.
    """

    shapes: Float[np.ndarray, "m n 3"]
    noise: float
    score: float


def factorize(
    points2d: Float[np.ndarray, "f n 2"],
    mask: Bool[np.ndarray, "f n"],
    bases: int = 0,
    *,
    width: int | None = None,
    iterations: int = 30,
    seed: int = 0,
) -> Factorization:
    """Fits the shape of one category to its 2D.

    Args:
        points2d: image points in any units; values outside the mask are ignored.
        mask: which points are seen.
        bases: deformation bases k; 0 is rigid; at most a third of the keypoints.
        width: pad keypoints to this many, so that categories of different size share
            one compilation.
        iterations: rounds of alternation after the search for a start.
        seed: of the random starts.

    Returns:
        The factorization, keypoints not padded.
    """
    count = points2d.shape[1]
    width = width or count
    # the others stay zero: one compilation for categories of any size
    active = min(bases, count // POINTS_PER_BASIS)
    few = _prepare(points2d, mask, SEARCH_FRAMES, width)
    many = _prepare(points2d, mask, FRAMES, width)
    keys = jax.random.split(jax.random.key(seed), STARTS)
    shapes, noise, scores = _search(keys, *few, active, min(bases, SEARCH_BASES))
    best = int(jnp.argmax(scores))
    shapes, noise = shapes[best], noise[best]
    extra = bases + 1 - len(shapes)
    if extra:
        fresh = jax.random.normal(jax.random.key(seed), (extra, width, 3))
        used = jnp.arange(len(shapes), bases + 1) <= active
        fresh = jnp.where(used[:, None, None], 0.05 * fresh, 0.0)
        shapes = jnp.concatenate([shapes, fresh])
    shapes, noise, score = _fit(*many, shapes, noise, iterations)
    shapes = np.asarray(shapes, np.float64)[: active + 1, :count]
    shapes = shapes - shapes.mean(1, keepdims=True)
    radius = np.sqrt((shapes[0] ** 2).sum(-1).mean())
    return Factorization(shapes / radius, float(noise), float(score))


def _prepare(points2d, mask, frames, width):
    """At most `frames` frames, evenly spread, normalised and padded.

    Padded to `frames` halved as often as they still fit: few sizes to compile, little
    computed on padding.
    """
    usable = np.flatnonzero(mask.sum(1) >= 4)
    if len(usable) > frames:
        usable = usable[np.linspace(0, len(usable) - 1, frames).astype(int)]
    while frames > SEARCH_FRAMES and len(usable) <= frames // 2:
        frames //= 2
    seen = mask[usable][..., None]
    count = np.maximum(seen.sum(1, keepdims=True), 1)
    points = np.where(seen, points2d[usable], 0.0)
    points = np.where(seen, points - points.sum(1, keepdims=True) / count, 0.0)
    size = np.sqrt((points**2).sum((1, 2), keepdims=True) / count)
    points = points / np.where(size > 0, size, 1.0)
    padding = [(0, frames - len(usable)), (0, width - mask.shape[1])]
    padded = np.pad(points, [*padding, (0, 0)]).astype(np.float32)
    return jnp.asarray(padded), jnp.asarray(np.pad(seen[..., 0], padding))


@functools.partial(jax.jit, static_argnames="bases")
def _search(keys, tracks, mask, active, bases):
    """Random starts, rigid and then with a few bases; the last two are the results."""

    def one(key: Key[Array, ""]):
        shape_key, basis_key = jax.random.split(key)
        shapes = jax.random.normal(shape_key, (1, tracks.shape[1], 3))
        # a rigid start that has converged forgets what it started from
        rounds = 3 if bases else 10
        shapes, noise = _iterate(tracks, mask, shapes, jnp.float32(1.0), rounds)
        if bases:
            fresh = jax.random.normal(basis_key, (bases, *shapes.shape[1:]))
            used = jnp.arange(bases) < active
            fresh = jnp.where(used[:, None, None], 0.1 * fresh, 0.0)
            shapes = jnp.concatenate([shapes, fresh])
            shapes, noise = _iterate(tracks, mask, shapes, noise, 20)
        return shapes, noise, log_likelihood(tracks, mask, shapes, noise)

    return jax.lax.map(one, keys)


@jax.jit
def _fit(tracks, mask, shapes, noise, iterations):
    shapes, noise = _iterate(tracks, mask, shapes, noise, iterations)
    return shapes, noise, log_likelihood(tracks, mask, shapes, noise)


def _iterate(tracks, mask, shapes, noise, iterations):
    """Expectation maximisation; without bases, alternation of pose and shape."""
    _, pose = _explain(tracks, mask, shapes, noise)

    def step(_, carry):
        shapes, noise, scale, rotation = carry
        moment = _moments(tracks, mask, shapes)
        noises = jnp.broadcast_to(noise, scale.shape)
        codes, spread = posterior(moment, noises, scale, rotation)
        scale, rotation = refine_pose(moment, codes, rotation)
        shapes = _maximise(tracks, mask, shapes, codes, spread, scale, rotation)
        noise = _noise(tracks, mask, shapes, codes, spread, scale, rotation)
        return shapes, noise, scale, rotation

    carry = (shapes, noise, pose.scale, pose.rotation)
    shapes, noise, _, _ = jax.lax.fori_loop(0, iterations, step, carry)
    return shapes, noise


def _explain(tracks, mask, shapes, noise, rounds: int = 8):
    """Coefficients and pose of every frame, afresh."""
    frames = len(tracks)
    return fit_low_rank(
        jnp.broadcast_to(shapes, (frames, *shapes.shape)),
        jnp.broadcast_to(noise, (frames,)),
        tracks,
        mask,
        rounds=rounds,
    )


def _moments(tracks, mask, shapes) -> Moments:
    stacked = jnp.broadcast_to(shapes, (len(tracks), *shapes.shape))
    return moments(stacked, tracks, mask)


def _maximise(tracks, mask, shapes, codes, spread, scale, rotation):
    """Mean and bases by least squares under the posterior of the coefficients.

    A frame is centred over the points it sees, so its translation is that of its
    present shape over the same points.
    """
    frames, size = len(codes), 3 * (codes.shape[1] + 1)
    weights = jnp.concatenate([jnp.ones((frames, 1)), codes], axis=1)
    second = weights[:, :, None] * weights[:, None, :]
    second = second.at[:, 1:, 1:].add(spread)
    camera = scale[:, None, None] * rotation[:, :2]
    stacked = jnp.broadcast_to(shapes, (frames, *shapes.shape))
    middle = numerics.masked_mean(deform(stacked, codes), mask)
    shift = einsum("fai,fi->fa", camera, middle)
    tracks = numerics.keep(tracks + shift[:, None], mask)
    products = einsum("fai,faj->fij", camera, camera)
    outer = einsum("fkl,fij->fkilj", second, products).reshape(frames, -1)
    seen = mask.astype(tracks.dtype)
    normal = einsum("fn,fo->no", seen, outer).reshape(-1, size, size)
    back = einsum("fai,fna->fni", camera, tracks)
    right = einsum("fk,fni->nki", weights, back).reshape(-1, size)
    ridge = 1e-4 * jnp.mean(jnp.trace(normal, axis1=1, axis2=2)) / size + 1e-9
    normal = normal + numerics.scaled_identity(ridge[None], size)
    solved = jnp.linalg.solve(normal, right[..., None])[..., 0]
    shapes = solved.reshape(-1, codes.shape[1] + 1, 3).swapaxes(0, 1)
    ever = jnp.any(mask, axis=0)[None]
    return numerics.centre(shapes, jnp.broadcast_to(ever, shapes.shape[:2]))


def _noise(tracks, mask, shapes, codes, spread, scale, rotation):
    """Variance of an image coordinate, expected over the posterior."""
    camera = scale[:, None, None] * rotation[:, :2]
    moment = _moments(tracks, mask, shapes)
    stacked = jnp.broadcast_to(shapes, (len(tracks), *shapes.shape))
    image = einsum("fai,fni->fna", camera, deform(stacked, codes))
    residual = numerics.centre(tracks - image, mask)
    images = einsum("fai,fkilj,faj->fkl", camera, moment.shapes, camera)
    uncertain = jnp.sum(spread * images[:, 1:, 1:])
    total = jnp.sum(jnp.square(residual)) + uncertain
    return jnp.maximum(total / (2.0 * jnp.sum(mask, dtype=total.dtype)), NOISE_FLOOR)


def log_likelihood(
    tracks: Float[Array, "f n 2"],
    mask: Bool[Array, "f n"],
    shapes: Float[Array, "m n 3"],
    noise: Float[Array, ""],
) -> Float[Array, ""]:
    """Mean log-likelihood of an image coordinate, up to a constant.

    The coefficients are integrated out, the cameras are at their optimum: the Gaussian
    N(s P R mean + t, A A^T + noise I) of each frame, by the matrix inversion lemma.
    """
    codes, pose = _explain(tracks, mask, shapes, noise)
    moment = _moments(tracks, mask, shapes)
    noises = jnp.broadcast_to(noise, pose.scale.shape)
    codes, spread = posterior(moment, noises, pose.scale, pose.rotation)
    camera = pose.scale[:, None, None] * pose.rotation[:, :2]
    image = einsum("fai,ni->fna", camera, shapes[0])
    residual = numerics.centre(tracks - image, mask)
    whole = jnp.sum(jnp.square(residual), axis=(1, 2))
    design = einsum("fai,fkia->fk", camera, moment.cross)
    rigid = einsum("fai,fkij,faj->fk", camera, moment.shapes[:, :, :, 0], camera)
    explained = jnp.sum(codes * (design - rigid)[:, 1:], axis=-1)
    seen = jnp.maximum(2.0 * jnp.sum(mask, axis=1, dtype=tracks.dtype), 1.0)
    logdet = seen * jnp.log(noise) - jnp.linalg.slogdet(spread)[1]
    frames = jnp.any(mask, axis=1)
    each = -0.5 * ((whole - explained) / noise + logdet) / seen
    return jnp.sum(jnp.where(frames, each, 0.0)) / jnp.sum(frames, dtype=each.dtype)
